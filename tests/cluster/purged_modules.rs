//! `spec.purgeModules`: the only way in which a module is dropped from a tenant's database.

use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::{
    conditions::{READY, find_condition},
    tenant_status::ModuleState,
};
use tenantry_test_support::shared_operator::{ask, superuser};

use crate::{modules::Modules, secrets::event};

const TENANT: &str = "purged-modules";

async fn rooms() -> Option<i64> {
    let mut session = superuser("tenant_purged_modules").await;
    sqlx::query_scalar("SELECT count(*) FROM purged_rooms.rooms").fetch_one(&mut session).await.ok()
}

/// Writes these names, which count once, and waits until they are refused. Returns the message.
async fn refused(modules: &Modules, spec: Value) -> String {
    let tenant = modules.fleet.apply(TENANT, spec).await;
    let generation = tenant.metadata.generation;
    let wait = modules.fleet.until("the purge is refused");
    wait.observe(async || {
        let status = modules.fleet.tenants.get(TENANT).await.unwrap().status.unwrap_or_default();
        let ready = find_condition(&status.conditions, READY);
        let is_it = ready.is_some_and(|ready| {
            ready.status == "False"
                && ready.reason == "ModulePurgeRefused"
                && ready.observed_generation == generation
        });
        if is_it { Ok(ready.unwrap().message.clone()) } else { Err(ready.cloned()) }
    })
    .await
}

#[tokio::test]
async fn module_is_dropped_only_when_nothing_gives_it_to_the_tenant() {
    let modules = Modules::new("purged-modules").await;
    let fleet = &modules.fleet;
    let tables = "CREATE TABLE rooms (id integer); SELECT tenantry.meter('rooms', 'purged_rooms.rooms')";
    modules.files("purged-rooms", &[("0001_rooms.sql", tables)]).await;
    modules.apply("purged-rooms", json!({"schema": "purged_rooms"})).await;
    modules.files("purged-beds", &[("0001_beds.sql", "CREATE TABLE purged_beds (id integer)")]).await;
    modules.apply("purged-beds", json!({"dependsOn": ["purged-rooms"]})).await;
    modules.accepted("purged-beds", "1").await;
    let both = json!([{"name": "purged-rooms"}, {"name": "purged-beds"}]);
    fleet.apply(TENANT, json!({"modules": both})).await;
    fleet.ready(TENANT).await;
    fleet.login(TENANT).await.unwrap().execute("INSERT INTO purged_rooms.rooms VALUES (1)").await.unwrap();

    let rooms_only = json!(["purged-rooms"]);
    let core = json!([{"name": "core"}]);
    let message = refused(&modules, json!({"modules": both, "purgeModules": rooms_only})).await;
    assert!(message.contains("spec.modules gave it to the tenant"), "{message}");
    // The name had its answer: it does not become due by another change.
    let message = refused(&modules, json!({"modules": core, "purgeModules": rooms_only})).await;
    assert!(message.contains("remove the name from spec.purgeModules and write it again"), "{message}");
    let again = async |spec: Value| {
        fleet.apply(TENANT, json!({"modules": core})).await;
        fleet.ready(TENANT).await;
        refused(&modules, spec).await
    };
    let message = again(json!({"modules": core, "purgeModules": rooms_only})).await;
    assert!(message.contains("module \"purged-beds\" depends on it"), "{message}");
    let all = json!(["purged-rooms", "purged-beds"]);
    fleet.apply_hold("case-7", TENANT, json!({"mode": "None", "preserve": true})).await;
    let message = again(json!({"modules": core, "purgeModules": all})).await;
    assert!(message.contains("case-7") && message.contains("keeps the tenant's data"), "{message}");
    fleet.delete_hold("case-7").await;
    let status = fleet.tenants.get(TENANT).await.unwrap().status.unwrap();
    let kept = status.modules.iter().filter(|module| module.name.starts_with("purged-"));
    assert!(
        kept.clone().count() == 2 && kept.clone().all(|module| module.state == Some(ModuleState::Current))
    );
    assert_eq!(rooms().await, Some(1));

    fleet.apply(TENANT, json!({"modules": core})).await;
    fleet.ready(TENANT).await;
    fleet.apply(TENANT, json!({"modules": core, "purgeModules": all})).await;
    let status = fleet.ready(TENANT).await.status.unwrap();
    assert!(!status.modules.iter().any(|module| module.name.starts_with("purged-")), "{:?}", status.modules);
    let secret = fleet.secrets.get(&format!("{TENANT}-db")).await.unwrap().data.unwrap();
    assert!(secret.contains_key("schema.core") && !secret.contains_key("schema.purged-rooms"));
    let is_gone = "SELECT to_regnamespace('purged_rooms') IS NULL AND to_regclass('purged_beds') IS NULL
                   AND NOT EXISTS (SELECT FROM tenantry.counters WHERE name = 'rooms') AND $1 <> ''";
    assert!(ask::<bool>("tenant_purged_modules", is_gone, "x").await);
    let recorded = "SELECT module_versions::text NOT LIKE '%purged%' AND (
                        SELECT count(*) = 2 FROM activity AS a WHERE a.tenant_id = t.id AND action = 'ModulePurged')
                    FROM tenants AS t WHERE slug = $1";
    assert!(ask::<bool>("tenantry_system", recorded, TENANT).await);
    let note = event(fleet, TENANT, "ModulePurged").await;
    assert!(note.contains("was dropped from the database with its data"), "{note}");
    // A name that means nothing there differs from one that was dropped.
    fleet
        .apply(
            TENANT,
            json!({"modules": core, "purgeModules": ["purged-rooms", "purged-beds", "purged-typo"]}),
        )
        .await;
    let note = event(fleet, TENANT, "ModuleNotFound").await;
    assert!(note.contains("has no module \"purged-typo\""), "{note}");
    // It is given again, and starts from nothing, although the name is still there.
    fleet.apply(TENANT, json!({"modules": both, "purgeModules": all})).await;
    fleet.ready(TENANT).await;
    assert_eq!(rooms().await, Some(0));
}
