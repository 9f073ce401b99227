//! A migration that fails blocks nothing else.

use kube::api::DeleteParams;
use serde_json::json;
use sqlx::Executor;
use tenantry::api::{
    conditions::{ACCESS_ENFORCED, CREDENTIALS_PUBLISHED, MIGRATIONS_APPLIED, find_condition},
    tenant_status::Access,
};
use tenantry_test_support::{Fleet, shared_operator::superuser};

/// Waits until access is this, while `MigrationsApplied` is False.
async fn has_access(fleet: &Fleet, access: Access) {
    let what = format!("{access}, with a failed migration");
    fleet
        .wait("migr", &what, move |tenant: Option<&tenantry::api::tenant::Tenant>| {
            let Some(tenant) = tenant else { return false };
            let Some(status) = &tenant.status else { return false };
            let is = |type_, wanted| {
                find_condition(&status.conditions, type_).is_some_and(|found| found.status == wanted)
            };
            status.observed_generation == tenant.metadata.generation
                && status.access == Some(access)
                && is(MIGRATIONS_APPLIED, "False")
                && is(ACCESS_ENFORCED, "True")
        })
        .await;
}

#[tokio::test]
async fn failed_migration_delays_no_suspension_no_resumption_and_no_repair() {
    let fleet = Fleet::new("migrations").await;
    fleet.apply("migr", json!({})).await;
    fleet.ready("migr").await;
    let checksum = "UPDATE tenantry.migrations SET checksum = '\\x00' || checksum WHERE module = 'projects'";
    superuser("tenant_migr").await.execute(checksum).await.unwrap();
    let behind =
        "UPDATE tenants SET module_versions = '[{\"name\": \"core\", \"version\": 3}]' WHERE slug = 'migr'";
    superuser("tenantry_system").await.execute(behind).await.unwrap();

    let suspended = json!({"state": "Suspended", "stateReason": "unpaid", "suspension": {"mode": "Blocked"}});
    fleet.apply("migr", suspended).await;
    has_access(&fleet, Access::Blocked).await;
    assert!(fleet.login("migr").await.is_err());
    fleet.apply("migr", json!({})).await;
    has_access(&fleet, Access::ReadWrite).await;
    // This status may show a workflow in which the login gets LOGIN only now.
    fleet.until("the tenant can log in").is_true(async || fleet.login("migr").await.is_ok()).await;

    // Repairs: a lost Secret, and manual changes in PostgreSQL.
    fleet.secrets.delete("migr-db", &DeleteParams::default()).await.unwrap();
    let exists = async || fleet.secrets.get_opt("migr-db").await.unwrap().is_some();
    fleet.until("the Secret is written again").is_true(exists).await;
    superuser("postgres").await.execute("ALTER ROLE tenant_migr_app NOLOGIN").await.unwrap();
    fleet.until("LOGIN is granted again").is_true(async || fleet.login("migr").await.is_ok()).await;
    has_access(&fleet, Access::ReadWrite).await;
    let wait = fleet.until("the credentials are published");
    wait.observe(async || {
        let status = fleet.tenants.get("migr").await.unwrap().status.unwrap();
        let credentials = find_condition(&status.conditions, CREDENTIALS_PUBLISHED).cloned().unwrap();
        if credentials.status == "True" { Ok(()) } else { Err(credentials) }
    })
    .await;

    // Corrected, it becomes Ready.
    let corrected = checksum.replace("'\\x00' || checksum", "substring(checksum FROM 2)");
    superuser("tenant_migr").await.execute(sqlx::AssertSqlSafe(corrected)).await.unwrap();
    fleet.apply("migr", json!({"displayName": "another"})).await;
    fleet.ready("migr").await;
}
