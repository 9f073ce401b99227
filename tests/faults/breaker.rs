//! The breaker of mass deletions. Each test has a control plane of its own: the definition of Tenants is one for all.

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
use tenantry::api::ANNOTATION_BREAKER_ACKNOWLEDGED;
use tenantry_dev::installation::install_crds;

use crate::world::{Options, PATIENCE, World};

const DEFINITION: &str = "tenants.tenantry.dev";

impl World {
    /// With a breaker that more than two departures open.
    async fn guarded(name: &'static str) -> Self {
        Self::with(name, Options { own_plane: true, breaker: Some(2), ..Options::default() }).await
    }

    async fn provision(&self, names: &[&str], grace: i64) {
        let spec = json!({"offboarding": {"gracePeriodSeconds": grace}});
        join_all(names.iter().map(|name| self.apply(name, spec.clone()))).await;
        join_all(names.iter().map(|name| self.fleet.ready(name))).await;
    }

    /// Deletes Tenants at once, and waits until their objects are gone.
    async fn delete_at_once(&self, names: &[&str]) {
        let tenants = join_all(names.iter().map(async |name| {
            let tenant = self.fleet.tenants.get(name).await.unwrap();
            self.fleet.tenants.delete(name, &DeleteParams::default()).await.unwrap();
            tenant
        }))
        .await;
        join_all(names.iter().zip(&tenants).map(|(name, tenant)| self.fleet.gone(name, tenant))).await;
    }

    async fn breaker_is(&self, open: bool) {
        let line = format!("tenantry_mass_deletion_breaker_open {}", i32::from(open));
        self.until(&line, async || {
            let metrics = self.installation.operator().metrics().await;
            metrics.is_ok_and(|text| text.lines().any(|found| found == line))
        })
        .await;
    }

    fn definitions(&self) -> Api<CustomResourceDefinition> {
        Api::all(self.fleet.client.clone())
    }

    /// The token of the opening, from the Event that tells of it.
    async fn opening(&self, cause: &str) -> String {
        let events = Api::<Event>::namespaced(self.fleet.client.clone(), "default");
        let mut number = None;
        self.until(&format!("an Event says {cause}"), async || {
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

    async fn acknowledge(&self, opening: &str) {
        let annotated = json!({"metadata": {"annotations": {ANNOTATION_BREAKER_ACKNOWLEDGED: opening}}});
        let params = PatchParams::default();
        self.definitions().patch(DEFINITION, &params, &Patch::Merge(annotated)).await.unwrap();
    }
}

#[tokio::test]
async fn many_deletions_at_once_freeze_every_purge_until_somebody_has_looked() {
    let world = World::guarded("breaker").await;
    world.provision(&["few-1", "few-2", "many-1", "many-2", "many-3", "kept"], 0).await;
    // As many as are usual go, after they were counted.
    world.delete_at_once(&["few-1", "few-2"]).await;
    for name in ["few-1", "few-2"] {
        assert_eq!(world.status(name).await.as_deref(), Some("deprovisioned"));
        assert!(!world.database_exists(&format!("tenant_{}", name.replace('-', "_"))).await);
        let waited =
            "SELECT closed_at - deprovisioned_at >= interval '5 seconds' FROM tenants WHERE slug = $1";
        assert!(world.holds("tenantry_system", waited, name).await);
    }
    world.breaker_is(false).await;
    // Out of their window, so that it is the next three alone that count.
    world.ahead(1000);
    let many = ["many-1", "many-2", "many-3"];
    world.delete_at_once(&many).await;
    world.breaker_is(true).await;
    let marked = "SELECT status = 'deprovisioning' AND access = 'Blocked' AND purge_started_at IS NULL
                  AND frozen_by IS NOT NULL FROM tenants WHERE slug = $1";
    for name in many {
        world
            .until(&format!("{name} is marked"), async || world.holds("tenantry_system", marked, name).await)
            .await;
        assert!(world.database_exists(&format!("tenant_{}", name.replace('-', "_"))).await);
    }
    // A restart forgets nothing, and one that goes meanwhile waits with the others.
    world.installation.operator().stop().await.unwrap();
    world.installation.operator().start().await.unwrap();
    world.breaker_is(true).await;
    world.delete_at_once(&["kept"]).await;
    assert!(world.holds("tenantry_system", marked, "kept").await);
    // Whoever was deleted by mistake comes back as ever.
    world.apply("many-1", json!({})).await;
    world.fleet.ready("many-1").await;

    let opening = world.opening("MassDeletion").await;
    world.acknowledge("12345").await;
    world.acknowledge(&opening).await;
    world.breaker_is(false).await;
    for name in ["many-2", "many-3", "kept"] {
        world.until_status(name, "deprovisioned").await;
    }
    assert!(world.database_exists("tenant_many_1").await);
}

#[tokio::test]
async fn a_definition_that_is_deleted_purges_nobody() {
    let world = World::guarded("breaker-crd").await;
    world.provision(&["one", "two"], 0).await;
    let definitions = world.definitions();
    definitions.delete(DEFINITION, &DeleteParams::default()).await.unwrap();
    let gone = |definition: Option<&CustomResourceDefinition>| definition.is_none();
    let waited = tokio::time::timeout(PATIENCE, await_condition(definitions, DEFINITION, gone)).await;
    waited.expect("the definition goes").unwrap();
    let opening = world.opening("DefinitionDeleted").await;
    world.breaker_is(true).await;
    for name in ["one", "two"] {
        assert_eq!(world.status(name).await.as_deref(), Some("deprovisioning"));
        assert!(world.database_exists(&format!("tenant_{name}")).await);
    }
    install_crds(env!("CARGO_BIN_EXE_tenantry").as_ref(), &world.kubectl()).await.unwrap();
    world.apply("one", json!({"offboarding": {"gracePeriodSeconds": 0}})).await;
    world.fleet.ready("one").await;
    world.acknowledge(&opening).await;
    world.breaker_is(false).await;
    world.until_status("two", "deprovisioned").await;
    assert!(world.database_exists("tenant_one").await);
}
