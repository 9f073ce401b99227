//! The mass-deletion breaker. Each test has a control plane of its own: the Tenant CRD is one for a cluster.

use futures::future::join_all;
use k8s_openapi::{
    api::events::v1::Event, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;
use tenantry::api::{
    ANNOTATION_BREAKER_ACKNOWLEDGED,
    conditions::{DEPROVISIONED, READY},
};
use tenantry_test_support::{Options, PATIENCE, World, login};

const DAY: i64 = 24 * 3600;

const DEFINITION: &str = "tenants.tenantry.dev";

/// With a breaker that tolerates two deletions.
async fn guarded(name: &'static str) -> World {
    World::with(name, Options { own_plane: true, breaker: Some(2), ..Options::default() }).await
}

async fn provision(world: &World, names: &[&str], grace: i64) {
    let spec = json!({"offboarding": {"gracePeriodSeconds": grace}});
    join_all(names.iter().map(|name| world.apply(name, spec.clone()))).await;
    join_all(names.iter().map(|name| world.fleet.ready(name))).await;
}

/// Deletes Tenants at once, and waits until they do not exist.
async fn delete_at_once(world: &World, names: &[&str]) {
    let tenants = join_all(names.iter().map(async |name| {
        let tenant = world.fleet.tenants.get(name).await.unwrap();
        world.fleet.tenants.delete(name, &DeleteParams::default()).await.unwrap();
        tenant
    }))
    .await;
    join_all(names.iter().zip(&tenants).map(|(name, tenant)| world.fleet.deleted(name, tenant))).await;
}

async fn breaker_is(world: &World, open: bool) {
    metric_is(world, "mass_deletion_breaker_open", i32::from(open)).await;
}

async fn metric_is(world: &World, name: &str, value: i32) {
    let line = format!("tenantry_{name} {value}");
    world
        .until(&line, async || {
            let metrics = world.installation.operator().metrics().await;
            metrics.is_ok_and(|text| text.lines().any(|found| found == line))
        })
        .await;
}

fn definitions(world: &World) -> Api<CustomResourceDefinition> {
    Api::all(world.fleet.client.clone())
}

/// The token to acknowledge, from the Event.
async fn opening(world: &World, cause: &str) -> String {
    let events = Api::<Event>::namespaced(world.fleet.client.clone(), "default");
    let mut number = None;
    world
        .until(&format!("an Event has the reason {cause}"), async || {
            let all = events.list(&ListParams::default()).await.unwrap();
            let about = |event: &&Event| {
                event.reason.as_deref() == Some(cause)
                    && event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(DEFINITION)
            };
            let note = all.iter().find(about).and_then(|event| event.note.clone());
            let said = note.and_then(|note| {
                let (_, rest) = note.split_once(&format!("{ANNOTATION_BREAKER_ACKNOWLEDGED}="))?;
                rest.split_whitespace().next().map(str::to_owned)
            });
            number = said;
            number.is_some()
        })
        .await;
    number.unwrap()
}

async fn acknowledge(world: &World, opening: &str) {
    let annotated = json!({"metadata": {"annotations": {ANNOTATION_BREAKER_ACKNOWLEDGED: opening}}});
    let params = PatchParams::default();
    definitions(world).patch(DEFINITION, &params, &Patch::Merge(annotated)).await.unwrap();
}

#[tokio::test]
async fn mass_deletion_freezes_purges_until_acknowledged() {
    let world = guarded("breaker").await;
    provision(&world, &["few-1", "few-2", "many-1", "many-2", "many-3", "kept"], 0).await;
    // The tolerated number is purged, after the count.
    delete_at_once(&world, &["few-1", "few-2"]).await;
    for name in ["few-1", "few-2"] {
        assert_eq!(world.status(name).await.as_deref(), Some("deprovisioned"));
        assert!(!world.database_exists(&format!("tenant_{}", name.replace('-', "_"))).await);
        let waited =
            "SELECT closed_at - deprovisioned_at >= interval '5 seconds' FROM tenants WHERE slug = $1";
        assert!(world.holds("tenantry_system", waited, name).await);
    }
    breaker_is(&world, false).await;
    // After their window, so that only the next three count.
    world.set_clock_ahead(1000);
    let many = ["many-1", "many-2", "many-3"];
    delete_at_once(&world, &many).await;
    breaker_is(&world, true).await;
    let marked = "SELECT status = 'deprovisioning' AND access = 'Blocked' AND purge_started_at IS NULL
                  AND frozen_by IS NOT NULL FROM tenants WHERE slug = $1";
    for name in many {
        world
            .until(&format!("{name} is marked"), async || world.holds("tenantry_system", marked, name).await)
            .await;
        assert!(world.database_exists(&format!("tenant_{}", name.replace('-', "_"))).await);
    }
    // The breaker stays open after a restart, and a tenant deleted meanwhile is held too.
    world.installation.operator().stop().await.unwrap();
    world.installation.operator().start().await.unwrap();
    breaker_is(&world, true).await;
    delete_at_once(&world, &["kept"]).await;
    assert!(world.holds("tenantry_system", marked, "kept").await);
    // A tenant deleted by mistake can be restored as always.
    world.apply("many-1", json!({})).await;
    world.fleet.ready("many-1").await;

    let opening = opening(&world, "MassDeletion").await;
    acknowledge(&world, "12345").await;
    let events = Api::<Event>::namespaced(world.fleet.client.clone(), "default");
    world
        .until("an Event says that the token is wrong", async || {
            let all = events.list(&ListParams::default()).await.unwrap();
            let about = |event: &Event| {
                let note = event.note.as_deref().unwrap_or_default();
                event.reason.as_deref() == Some("WrongToken")
                    && note.contains("is \"12345\"")
                    && note.contains(&opening)
            };
            all.iter().any(about)
        })
        .await;
    breaker_is(&world, true).await;
    acknowledge(&world, &opening).await;
    breaker_is(&world, false).await;
    for name in ["many-2", "many-3", "kept"] {
        world.until_status(name, "deprovisioned").await;
    }
    assert!(world.database_exists("tenant_many_1").await);
}

#[tokio::test]
async fn deleted_crd_purges_no_tenant() {
    let world = guarded("breaker-crd").await;
    provision(&world, &["one", "two"], 0).await;
    let definitions = definitions(&world);
    definitions.delete(DEFINITION, &DeleteParams::default()).await.unwrap();
    let gone = |definition: Option<&CustomResourceDefinition>| definition.is_none();
    let waited = tokio::time::timeout(PATIENCE, await_condition(definitions, DEFINITION, gone)).await;
    waited.expect("the CRD is deleted").unwrap();
    let opening = opening(&world, "DefinitionDeleted").await;
    breaker_is(&world, true).await;
    for name in ["one", "two"] {
        assert_eq!(world.status(name).await.as_deref(), Some("deprovisioning"));
        assert!(world.database_exists(&format!("tenant_{name}")).await);
    }
    world.install_crds().await;
    // The API server serves them a moment after it has said so.
    let serves = async || world.fleet.tenants.list_metadata(&ListParams::default()).await.is_ok();
    world.until("Tenants are served", serves).await;
    world.apply("one", json!({"offboarding": {"gracePeriodSeconds": 0}})).await;
    world.fleet.ready("one").await;
    acknowledge(&world, &opening).await;
    breaker_is(&world, false).await;
    world.until_status("two", "deprovisioned").await;
    assert!(world.database_exists("tenant_one").await);
}

/// A tenant is being deprovisioned, its access is revoked, and its purge has not begun.
const NOT_PURGED: &str =
    "SELECT status = 'deprovisioning' AND access = 'Blocked' AND purge_started_at IS NULL
     FROM tenants WHERE slug = $1";

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn shorter_graces_and_wrong_clocks_purge_nothing_at_once() {
    let world = guarded("breaker-due").await;
    let fleet = ["one", "two", "three", "four"];
    let plan = json!({"limits": {}, "graceSeconds": {"CustomerRequest": 30 * DAY}});
    world.fleet.apply_plan("breaker-due", plan.clone()).await;
    let spec = json!({"plan": "breaker-due"});
    join_all(fleet.iter().map(|name| world.apply(name, spec.clone()))).await;
    join_all(fleet.iter().map(|name| world.fleet.ready(name))).await;
    // They leave over time, never too many at once.
    let gone = json!({"plan": "breaker-due", "state": "Deprovisioned", "stateReason": "contract ended"});
    for (window, names) in fleet.chunks(2).enumerate() {
        world.set_clock_ahead(1000 * i64::try_from(window).unwrap());
        join_all(names.iter().map(|name| world.apply(name, gone.clone()))).await;
        join_all(names.iter().map(|name| world.fleet.reason(name, READY, "GracePeriod"))).await;
    }
    breaker_is(&world, false).await;

    // Seconds instead of days.
    let seconds = json!({"limits": {}, "graceSeconds": {"CustomerRequest": 30}});
    world.fleet.apply_plan("breaker-due", seconds).await;
    let shortened = opening(&world, "GraceShortened").await;
    breaker_is(&world, true).await;
    for name in fleet {
        world.fleet.reason(name, DEPROVISIONED, "PurgesFrozen").await;
        assert!(world.holds("tenantry_system", NOT_PURGED, name).await, "{name}");
    }
    world.fleet.apply_plan("breaker-due", plan).await;
    let restored = "SELECT purge_after = deprovisioned_at + interval '30 days' FROM tenants WHERE slug = $1";
    for name in fleet {
        world.until("thirty days", async || world.holds("tenantry_system", restored, name).await).await;
    }
    acknowledge(&world, &shortened).await;
    breaker_is(&world, false).await;
    // A single one may go earlier.
    let now = json!({"plan": "breaker-due", "state": "Deprovisioned", "stateReason": "contract ended",
        "offboarding": {"gracePeriodSeconds": 0}});
    world.apply("one", now).await;
    world.until_status("one", "deprovisioned").await;

    // The clocks of the operator and of the registry are wrong.
    world.set_clock_ahead(40 * DAY);
    let due = opening(&world, "MassPurge").await;
    breaker_is(&world, true).await;
    for name in &fleet[1..] {
        assert!(world.holds("tenantry_system", NOT_PURGED, name).await, "{name}");
    }
    acknowledge(&world, &due).await;
    for name in &fleet[1..] {
        world.until_status(name, "deprovisioned").await;
    }
}

#[tokio::test]
async fn tenants_that_vanished_together_keep_access_until_acknowledged() {
    let world = guarded("breaker-empty").await;
    let fleet = ["one", "two", "three", "four"];
    provision(&world, &fleet, 0).await;
    let id = world.fleet.ready("one").await.status.unwrap().tenant_id;
    let uris = join_all(fleet.map(async |name| world.fleet.secret(&format!("{name}-db"), "uri").await)).await;
    // The objects are lost with their cluster: no operator sees a deletion.
    world.installation.operator().stop().await.unwrap();
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    for name in fleet {
        world.fleet.tenants.patch(name, &PatchParams::default(), &none).await.unwrap();
        world.fleet.tenants.delete(name, &DeleteParams::default()).await.unwrap();
    }
    world.installation.operator().start().await.unwrap();
    let opening = opening(&world, "TenantsVanished").await;
    breaker_is(&world, true).await;
    metric_is(&world, "vanished_tenants", 4).await;
    for (name, uri) in fleet.iter().zip(&uris) {
        assert_eq!(world.status(name).await.as_deref(), Some("active"));
        login(uri).await.unwrap();
    }

    // Applied again, a tenant is the same. The others are given up.
    world.apply("one", json!({})).await;
    assert_eq!(world.fleet.ready("one").await.status.unwrap().tenant_id, id);
    acknowledge(&world, &opening).await;
    for (name, uri) in fleet.iter().zip(&uris).skip(1) {
        world.until_status(name, "deprovisioning").await;
        let kept = "SELECT access = 'Blocked' AND purge_after >= now() + interval '23 hours'
                    FROM tenants WHERE slug = $1";
        world.until("revoked and kept", async || world.holds("tenantry_system", kept, name).await).await;
        assert!(login(uri).await.is_err());
    }
    metric_is(&world, "vanished_tenants", 0).await;
    breaker_is(&world, false).await;
    assert_eq!(world.status("one").await.as_deref(), Some("active"));
    login(&uris[0]).await.unwrap();
}
