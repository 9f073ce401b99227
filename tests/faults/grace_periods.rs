//! Grace periods: a deleted tenant can be restored until the end of the period, and is purged then.

use futures::future::join_all;
use k8s_openapi::{api::core::v1::Namespace, jiff::Timestamp};
use kube::{Api, api::DeleteParams};
use serde_json::json;
use sqlx::Executor;
use tenantry::api::{
    conditions::{DEPROVISIONED, READY, REGISTERED, find_condition},
    tenant::Tenant,
    tenant_status::{Access, TenantState},
};
use tenantry_dev::Stop;
use tenantry_test_support::{World, login};

const DAY: i64 = 24 * 3600;

#[tokio::test]
async fn deleted_tenant_can_be_restored_with_data_and_password() {
    let world = World::new("grace-back").await;
    world.apply("acme", json!({"admins": [{"email": "a@acme.example"}]})).await;
    let status = world.fleet.ready("acme").await.status.unwrap();
    let uri = world.fleet.secret("acme-db", "uri").await;
    let admin = world.fleet.secret("acme-admin", "admins.json").await;
    let mut session = world.fleet.login("acme").await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('kept@acme.example')").await.unwrap();

    // The object is deleted, access is revoked, the data stays.
    world.fleet.delete("acme").await;
    assert!(session.execute("SELECT 1").await.is_err());
    assert!(login(&uri).await.is_err());
    assert!(world.database_exists("tenant_acme").await);
    assert_eq!(world.status("acme").await.as_deref(), Some("deprovisioning"));
    let query = "SELECT purge_after BETWEEN deprovisioned_at + interval '30 days' AND deprovisioned_at + interval '30 days'
                 AND access = 'Blocked' FROM tenants WHERE slug = $1";
    assert!(world.holds("tenantry_system", query, "acme").await);

    // The slug stays reserved.
    world.apply("other", json!({"slug": "acme"})).await;
    world.fleet.reason("other", REGISTERED, "SlugTaken").await;
    world.fleet.delete("other").await;

    world.apply("acme", json!({"admins": [{"email": "a@acme.example"}]})).await;
    let back = world.fleet.ready("acme").await.status.unwrap();
    assert_eq!(back.tenant_id, status.tenant_id);
    assert_eq!(back.purge_after, None);
    assert_eq!(world.fleet.secret("acme-db", "uri").await, uri);
    assert_eq!(world.fleet.secret("acme-admin", "admins.json").await, admin);
    let mut session = login(&uri).await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE email = 'kept@acme.example'")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(kept, 1);
    let actions: Vec<String> = sqlx::query_scalar(
        "SELECT action FROM activity WHERE tenant_id = $1::uuid AND action IN
         ('Activated', 'DeprovisioningBegun', 'ObjectReplaced', 'Reinstated') ORDER BY id",
    )
    .bind(status.tenant_id.unwrap())
    .fetch_all(&mut world.superuser("tenantry_system").await)
    .await
    .unwrap();
    assert_eq!(actions, ["Activated", "DeprovisioningBegun", "ObjectReplaced", "Reinstated"]);
}

#[tokio::test]
async fn registry_ends_grace_period_after_restart_without_namespace() {
    let world = World::new("grace-purge").await;
    for (name, more) in [
        ("before", json!({"offboarding": {"gracePeriodSeconds": 29 * DAY}})),
        ("thirty", json!({})),
        ("sixty", json!({"offboarding": {"trigger": "NonPayment"}})),
        ("retained", json!({"deletionPolicy": "Retain"})),
    ] {
        world.apply(name, more).await;
        world.fleet.ready(name).await;
    }
    let namespaces = Api::<Namespace>::all(world.fleet.client.clone());
    let uid = namespaces.get(world.name).await.unwrap().metadata.uid.unwrap();
    namespaces.delete(world.name, &DeleteParams::default()).await.unwrap();
    let wait = world.fleet.until("the namespace is deleted");
    wait.object(&namespaces, world.name, kube::runtime::conditions::is_deleted(&uid)).await;
    world.installation.operator().kill().await.unwrap();
    // The Lease of the killed operator is not waited for: that is tested in leaders.rs.
    world.delete_lease().await;
    world.installation.operator().start().await.unwrap();
    for slug in ["before", "thirty", "sixty", "retained"] {
        assert_eq!(world.status(slug).await.as_deref(), Some("deprovisioning"));
    }

    world.set_clock_ahead(30 * DAY - 3600);
    // The purge of one that is due shows that the clock was read.
    world.until_status("before", "deprovisioned").await;
    assert!(world.database_exists("tenant_thirty").await);

    world.set_clock_ahead(30 * DAY + 60);
    world.until_status("thirty", "deprovisioned").await;
    assert!(!world.database_exists("tenant_thirty").await && !world.role_exists("tenant_thirty_app").await);
    world.until_status("retained", "deprovisioned").await;
    assert!(world.database_exists("tenant_retained").await, "kept");
    assert_eq!(world.status("sixty").await.as_deref(), Some("deprovisioning"));

    world.set_clock_ahead(60 * DAY + 60);
    world.until_status("sixty", "deprovisioned").await;
    assert!(!world.database_exists("tenant_sixty").await);
}

#[tokio::test]
async fn deprovisioned_state_keeps_object_through_grace_period() {
    let world = World::new("grace-state").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    let uri = world.fleet.secret("acme-db", "uri").await;
    let gone = json!({"state": "Deprovisioned", "stateReason": "contract ended",
        "offboarding": {"trigger": "ContractEnd"}});
    world.apply("acme", gone.clone()).await;
    let in_grace = |tenant: Option<&Tenant>| {
        let status = tenant.and_then(|tenant| tenant.status.as_ref());
        status.is_some_and(|status| {
            status.state == Some(TenantState::Deprovisioning)
                && find_condition(&status.conditions, READY)
                    .is_some_and(|ready| ready.status == "True" && ready.reason == "GracePeriod")
        })
    };
    let status = world.fleet.wait("acme", "in its grace period", in_grace).await.status.unwrap();
    assert_eq!(status.access, Some(Access::Blocked));
    assert_eq!(status.binding, None);
    let days = status.purge_after.unwrap().0.duration_since(Timestamp::now()).as_hours();
    assert!((30 * 24 - 1..=30 * 24).contains(&days), "{days}");
    assert!(login(&uri).await.is_err());

    // Set back, the tenant is restored.
    world.apply("acme", json!({})).await;
    let status = world.fleet.ready("acme").await.status.unwrap();
    assert_eq!((status.state, status.access), (Some(TenantState::Active), Some(Access::ReadWrite)));
    assert!(find_condition(&status.conditions, DEPROVISIONED).is_none());
    assert_eq!(status.binding.unwrap().name, "acme-db");
    login(&uri).await.unwrap();

    // Purged, it cannot be restored.
    world.apply("acme", gone).await;
    world.fleet.wait("acme", "in its grace period", in_grace).await;
    world.set_clock_ahead(31 * DAY);
    let ended = |tenant: Option<&Tenant>| {
        let status = tenant.and_then(|tenant| tenant.status.as_ref());
        status.is_some_and(|status| {
            status.state == Some(TenantState::Deprovisioned)
                && find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "True")
        })
    };
    world.fleet.wait("acme", "deprovisioned", ended).await;
    assert!(!world.database_exists("tenant_acme").await);
    assert!(world.fleet.secrets.get_opt("acme-db").await.unwrap().is_none());
    world.apply("acme", json!({})).await;
    world.fleet.reason("acme", READY, "Conflict").await;
    world.fleet.delete("acme").await;
}

#[tokio::test]
async fn finalizer_is_released_after_a_minute_and_access_revoked_later() {
    let world = World::new("grace-uncut").await;
    let second = world.second_server("grace-uncut-2").await;
    let on_second = |more| {
        let mut spec = json!({"server": "grace-uncut-2"});
        spec.as_object_mut()
            .unwrap()
            .extend(serde_json::Map::clone(serde_json::Value::as_object(&more).unwrap()));
        spec
    };
    world.apply("graced", on_second(json!({}))).await;
    world.apply("ungraced", on_second(json!({"offboarding": {"gracePeriodSeconds": 0}}))).await;
    let (graced, ungraced) = (world.fleet.ready("graced").await, world.fleet.ready("ungraced").await);
    second.stop(Stop::Fast).await.unwrap();
    for name in ["graced", "ungraced"] {
        world.fleet.tenants.delete(name, &DeleteParams::default()).await.unwrap();
        world.until_status(name, "deprovisioning").await;
        let unknown = "SELECT access = 'Unknown' FROM tenants WHERE slug = $1";
        world
            .until("its access is not known", async || world.holds("tenantry_system", unknown, name).await)
            .await;
        assert!(world.fleet.tenants.get_opt(name).await.unwrap().is_some(), "held for a minute");
    }
    world.set_clock_ahead(120);
    world.fleet.deleted("graced", &graced).await;
    // Without a grace period, the object is held until everything is deleted.
    assert!(world.fleet.tenants.get_opt("ungraced").await.unwrap().is_some());

    second.start_again().await.unwrap();
    let cut = "SELECT access = 'Blocked' FROM tenants WHERE slug = $1";
    world.until("its access is revoked", async || world.holds("tenantry_system", cut, "graced").await).await;
    world.fleet.deleted("ungraced", &ungraced).await;
    assert_eq!(world.status("ungraced").await.as_deref(), Some("deprovisioned"));
    assert_eq!(world.status("graced").await.as_deref(), Some("deprovisioning"));
}

#[tokio::test]
async fn twenty_tenants_applied_again_keep_data_and_passwords() {
    let world = World::new("grace-twenty").await;
    let names: Vec<String> = (0..20).map(|n| format!("twenty-{n}")).collect();
    join_all(names.iter().map(|name| world.apply(name, json!({})))).await;
    join_all(names.iter().map(|name| world.fleet.ready(name))).await;
    let uris = join_all(names.iter().map(async |name| {
        let mut session = world.fleet.login(name).await.unwrap();
        session.execute("INSERT INTO users (email) VALUES ('kept@acme.example')").await.unwrap();
        world.fleet.secret(&format!("{name}-db"), "uri").await
    }))
    .await;
    join_all(names.iter().map(|name| world.fleet.delete(name))).await;
    world.set_clock_ahead(60);
    join_all(names.iter().map(|name| world.apply(name, json!({})))).await;
    join_all(names.iter().map(|name| world.fleet.ready(name))).await;
    for uri in uris {
        let mut session = login(&uri).await.unwrap();
        let kept: i64 =
            sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
        assert_eq!(kept, 1);
    }
}
