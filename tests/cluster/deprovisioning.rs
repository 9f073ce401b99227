//! Deprovisioning without a grace period.

use kube::api::DeleteParams;
use serde_json::json;
use sqlx::Executor;
use tenantry::api::{conditions::READY, tenant::Tenant};
use tenantry_test_support::{
    Fleet,
    shared_operator::{self, ask, database_exists, registry_status, role_exists},
};

#[tokio::test]
async fn deleted_tenant_leaves_only_a_closed_row() {
    let fleet = Fleet::new("leave").await;
    fleet.apply("leave-all", json!({"admins": [{"email": "a@leave.example"}]})).await;
    let id = fleet.ready("leave-all").await.status.unwrap().tenant_id.unwrap();
    // An open transaction does not delay it.
    let mut session = fleet.login("leave-all").await.unwrap();
    session.execute("BEGIN; INSERT INTO users (email) VALUES ('open@leave.example')").await.unwrap();
    fleet.delete("leave-all").await;
    assert!(session.execute("SELECT 1").await.is_err());
    assert!(!database_exists("tenant_leave_all").await);
    assert!(!role_exists("tenant_leave_all_app").await);
    assert!(fleet.secrets.get_opt("leave-all-db").await.unwrap().is_none());
    assert!(fleet.secrets.get_opt("leave-all-admin").await.unwrap().is_none());
    assert_eq!(registry_status("leave-all").await.as_deref(), Some("deprovisioned"));
    let receipts: i64 =
        ask("tenantry_system", "SELECT count(*) FROM deletion_receipts WHERE tenant_id = $1::uuid", &id)
            .await;
    assert_eq!(receipts, 1);
    // The object is gone a moment before the workflow ends.
    let ended = "SELECT EXISTS (SELECT FROM workflows
                 WHERE tenant_id = $1::uuid AND kind = 'Deprovision' AND finished_at IS NOT NULL)";
    fleet
        .until("the workflow has ended")
        .is_true(async || ask::<bool>("tenantry_system", ended, &id).await)
        .await;
    let order: Vec<String> = sqlx::query_scalar(
        "SELECT s.name FROM workflow_steps s JOIN workflows w ON w.id = s.workflow_id
         WHERE w.tenant_id = $1::uuid AND w.kind = 'Deprovision' ORDER BY s.started_at",
    )
    .bind(&id)
    .fetch_all(&mut shared_operator::superuser("tenantry_system").await)
    .await
    .unwrap();
    assert_eq!(
        order,
        ["CutAccess", "Tombstone", "DropDatabase", "DropRoles", "RemoveSecrets", "Close", "ReleaseFinalizer"]
    );

    // The slug is free, for a new tenant with another id.
    fleet.apply("leave-all", json!({})).await;
    assert_ne!(fleet.ready("leave-all").await.status.unwrap().tenant_id.unwrap(), id);
}

#[tokio::test]
async fn tenant_never_provisioned_is_deleted_at_once() {
    let fleet = Fleet::new("leave-never").await;
    fleet.apply("leave-never", json!({"plan": "no-such-plan"})).await;
    fleet.reason("leave-never", READY, "PlanNotFound").await;
    fleet.delete("leave-never").await;
    assert_eq!(registry_status("leave-never").await, None);
}

#[tokio::test]
async fn tenant_without_database_can_be_deleted() {
    let fleet = Fleet::new("leave-lost").await;
    fleet.apply("leave-lost", json!({})).await;
    fleet.ready("leave-lost").await;
    let mut superuser = shared_operator::superuser("postgres").await;
    superuser.execute("DROP DATABASE tenant_leave_lost WITH (FORCE)").await.unwrap();
    fleet.delete("leave-lost").await;
    assert!(!role_exists("tenant_leave_lost_app").await);
    assert_eq!(registry_status("leave-lost").await.as_deref(), Some("deprovisioned"));
}

#[tokio::test]
async fn tenant_with_invalid_spec_can_be_deleted() {
    let fleet = Fleet::new("leave-invalid").await;
    fleet.apply("leave-invalid", json!({})).await;
    fleet.ready("leave-invalid").await;
    fleet.apply("leave-invalid", json!({"settings": {"a": "x".repeat(70_000)}})).await;
    fleet.reason("leave-invalid", READY, "SettingsTooLarge").await;
    fleet.delete("leave-invalid").await;
    assert!(!database_exists("tenant_leave_invalid").await);
}

#[tokio::test]
async fn retained_database_is_kept_without_access() {
    let fleet = Fleet::new("leave-retain").await;
    fleet.apply("retained", json!({"deletionPolicy": "Retain"})).await;
    fleet.ready("retained").await;
    let uri = fleet.secret("retained-db", "uri").await;
    let mut session = fleet.login("retained").await.unwrap();
    fleet.delete("retained").await;
    assert!(session.execute("SELECT 1").await.is_err());
    assert!(database_exists("tenant_retained").await);
    assert!(<sqlx::PgConnection as sqlx::Connection>::connect(&uri).await.is_err());
    assert!(fleet.secrets.get_opt("retained-db").await.unwrap().is_none());
    assert_eq!(registry_status("retained").await.as_deref(), Some("deprovisioned"));

    // The slug is free; the name of the retained database is not.
    fleet.apply("retained", json!({})).await;
    let status = fleet.ready("retained").await.status.unwrap();
    assert_eq!(status.database.as_deref(), Some("tenant_retained_2"));
}

#[tokio::test]
async fn deletion_of_paused_tenant_revokes_access_and_holds_purge() {
    let fleet = Fleet::new("leave-paused").await;
    fleet.apply("leave-paused", json!({})).await;
    let id = fleet.ready("leave-paused").await.status.unwrap().tenant_id;
    let uri = fleet.secret("leave-paused-db", "uri").await;
    fleet.apply("leave-paused", json!({"paused": true})).await;
    fleet.delete("leave-paused").await;
    assert!(<sqlx::PgConnection as sqlx::Connection>::connect(&uri).await.is_err());
    assert_eq!(registry_status("leave-paused").await.as_deref(), Some("deprovisioning"));

    // Applied again it is the same tenant; without the pause it is purged.
    fleet.apply("leave-paused", json!({"paused": false})).await;
    assert_eq!(fleet.ready("leave-paused").await.status.unwrap().tenant_id, id);
    <sqlx::PgConnection as sqlx::Connection>::connect(&uri).await.unwrap();
    fleet.delete("leave-paused").await;
    assert!(!database_exists("tenant_leave_paused").await);
}

#[tokio::test]
async fn tenant_deleted_during_provisioning_leaves_nothing() {
    let fleet = Fleet::new("leave-early").await;
    for round in 0..6 {
        let name = format!("early-{round}");
        // It may be active before the deletion arrives: then its data would be kept for the grace period.
        let no_grace = json!({"offboarding": {"gracePeriodSeconds": 0}});
        let tenant = fleet.apply(&name, no_grace).await;
        // Deleted a little later each time: the outcome is the same at every point.
        if round % 2 == 1 {
            fleet
                .wait(&name, "begun", |t: Option<&Tenant>| t.is_some_and(|t| t.metadata.finalizers.is_some()))
                .await;
        }
        fleet.tenants.delete(&name, &DeleteParams::default()).await.unwrap();
        fleet.deleted(&name, &tenant).await;
        // The API server can delete an object although a finalizer is added to it at that moment (it does not look again):
        // then the tenant has vanished, and the drift check writes its tombstone.
        let database = format!("tenant_early_{round}");
        let login = format!("{database}_app");
        let is_accounted_for = async || {
            let exists = database_exists(&database).await || role_exists(&login).await;
            let status = registry_status(&name).await;
            match status.as_deref() {
                Some("deprovisioning") => true,
                None | Some("deprovisioned") => !exists,
                Some(_) => false,
            }
        };
        fleet
            .until(format!("nothing of {name} is left, or its tombstone is"))
            .is_true(is_accounted_for)
            .await;
    }
}
