//! Objects of every state, as the API server returns them: `tests/gitops/objects.json` has them, one in each line.
//! `UPDATE=1 cargo test --test gitops objects -- --ignored` records them again.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Request},
};
use serde_json::{Map, Value, json};
use tenantry::api::{
    conditions::{READY, RECONCILING, find_condition},
    plan::TenantPlan,
    tenant::Tenant,
};
use tenantry_dev::{Stop, kubectl::Kubectl};
use tenantry_test_support::{Options, Wait, World, objects};

use crate::{file, text};

/// What tools evaluate an object by.
struct Recorder {
    kubectl: Kubectl,
    found: BTreeMap<String, Value>,
}

impl Recorder {
    /// Records an object as it is now. By parts, since one of them has settings that no parser here follows.
    async fn record(&mut self, state: &str, kind: &str, namespace: &str, name: &str) {
        let paths = [
            "{.metadata.generation}",
            "{.metadata.deletionTimestamp}",
            "{.spec.paused}",
            "{.status.observedGeneration}",
            "{.status.state}",
            "{.status.conditions}",
        ];
        let template = format!("jsonpath={}", paths.join("\n"));
        let arguments = ["get", kind, name, "-n", namespace, "-o", &template];
        let answer = self.kubectl.run(&arguments).await.unwrap();
        let parts: Vec<&str> = answer.split('\n').collect();
        let part = |n: usize| serde_json::from_str(parts[n]).unwrap_or_else(|_| json!(parts[n]));
        let mut metadata = json!({"name": name, "generation": part(0)});
        let mut object = json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": kind});
        let mut status = json!({"observedGeneration": part(3)});
        for (n, target, field) in [(1, &mut metadata, "deletionTimestamp"), (4, &mut status, "state")] {
            if !parts[n].is_empty() {
                target[field] = json!(parts[n]);
            }
        }
        if !parts[5].is_empty() {
            status["conditions"] = part(5);
        }
        object["metadata"] = metadata;
        object["spec"] = if parts[2].is_empty() { json!({}) } else { json!({"paused": part(2)}) };
        object["status"] = status;
        self.found.insert(state.to_owned(), object);
    }

    /// Compares with the file, or writes it.
    fn conclude(self) {
        let path = "tests/gitops/objects.json";
        if std::env::var_os("UPDATE").is_some() {
            let lines: Vec<String> =
                self.found.iter().map(|(name, object)| format!("{}: {object}", json!(name))).collect();
            std::fs::write(file(path), format!("{{\n{}\n}}\n", lines.join(",\n"))).unwrap();
        }
        let recorded: BTreeMap<String, Value> = serde_json::from_str(&text(path)).unwrap();
        let shapes = |objects: &BTreeMap<String, Value>| -> BTreeMap<String, Value> {
            objects.iter().map(|(name, object)| (name.clone(), shape(object))).collect()
        };
        assert_eq!(shapes(&self.found), shapes(&recorded), "review, then UPDATE=1");
    }
}

/// An object without what differs from run to run: times, messages and numbers.
fn shape(object: &Value) -> Value {
    let status = &object["status"];
    let conditions: Map<String, Value> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap().to_owned();
            (text("type"), json!([text("status"), text("reason")]))
        })
        .collect();
    json!({
        "kind": object["kind"], "state": status["state"], "conditions": conditions,
        "observed": status["observedGeneration"] == object["metadata"]["generation"],
        "deleting": object["metadata"]["deletionTimestamp"].is_string(), "spec": object["spec"],
    })
}

const NAMESPACE: &str = "states";
const OPERATORS: &str = "states-system";

/// The objects that are not Tenants.
async fn apply(world: &World, object: Value) {
    let mut object = object;
    object["metadata"]["labels"] = json!({"tenantry.dev/test": NAMESPACE});
    world.kubectl().apply(&object.to_string()).await.unwrap();
}

/// Waits until `Ready` of an object has this reason.
async fn until(world: &World, kind: &str, name: &str, reason: &str) {
    let kubectl = world.kubectl();
    let wait = world.fleet.until(format!("{kind} {name} is {reason}"));
    wait.observe(async || {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}";
        let found = kubectl.run(&["get", kind, name, "-n", NAMESPACE, "-o", path]).await.unwrap();
        if found == reason { Ok(()) } else { Err(found) }
    })
    .await;
}

fn module(name: &str) -> Value {
    json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantModule", "metadata": {"name": name},
        "spec": {"source": {"configMaps": [{"name": name}]}}})
}

fn files(name: &str, file: &str, sql: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": OPERATORS},
        "data": {file: sql}})
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn objects_are_as_recorded() {
    let world = World::with(NAMESPACE, Options { breaker: Some(100), ..Options::default() }).await;
    let mut recorder = Recorder { kubectl: world.kubectl(), found: BTreeMap::new() };
    others(&world, &mut recorder).await;
    tenants(&world, &mut recorder).await;
    restricted(&world, &mut recorder).await;
    offboarded(&world, &mut recorder).await;
    undecodable(&world, &mut recorder).await;
    recorder.conclude();
}

/// Plans, servers and modules.
async fn others(world: &World, recorder: &mut Recorder) {
    let plan = |name: &str| objects::plan(name, json!({"limits": {"users": 5}}));
    apply(world, plan("states-unused")).await;
    until(world, "TenantPlan", "states-unused", "Unused").await;
    recorder.record("plan-ready", "TenantPlan", NAMESPACE, "states-unused").await;
    apply(world, plan("states-used")).await;
    world.apply("states-planned", json!({"plan": "states-used"})).await;
    world.fleet.ready("states-planned").await;
    until(world, "TenantPlan", "states-used", "Verified").await;
    let plans = Api::<TenantPlan>::all(world.fleet.client.clone());
    plans.delete("states-used", &DeleteParams::default()).await.unwrap();
    until(world, "TenantPlan", "states-used", "InUse").await;
    recorder.record("plan-in-use-deleted", "TenantPlan", NAMESPACE, "states-used").await;

    recorder.record("server-ready", "DatabaseServer", NAMESPACE, world.name).await;
    apply(world, objects::database_server("states-no-secret", 5432, json!({}))).await;
    until(world, "DatabaseServer", "states-no-secret", "SecretNotFound").await;
    recorder.record("server-without-secret", "DatabaseServer", NAMESPACE, "states-no-secret").await;
    let mut secret =
        objects::secret("states-wrong", json!({"username": "tenantry_operator", "password": "no"}));
    secret["metadata"]["namespace"] = json!(OPERATORS);
    apply(world, secret).await;
    let port = world.installation.postgres().port();
    apply(world, objects::database_server("states-wrong", port, json!({}))).await;
    until(world, "DatabaseServer", "states-wrong", "AuthenticationFailed").await;
    recorder.record("server-refuses-login", "DatabaseServer", NAMESPACE, "states-wrong").await;

    apply(world, module("states-good")).await;
    until(world, "TenantModule", "states-good", "SourceNotFound").await;
    recorder.record("module-without-source", "TenantModule", NAMESPACE, "states-good").await;
    apply(world, files("states-good", "0001_a.sql", "CREATE TABLE a (id bigint PRIMARY KEY);")).await;
    until(world, "TenantModule", "states-good", "Accepted").await;
    recorder.record("module-ready", "TenantModule", NAMESPACE, "states-good").await;
    apply(world, files("states-bad", "0001_a.sql", "CREATE TABLE a (id no_such_type);")).await;
    apply(world, module("states-bad")).await;
    until(world, "TenantModule", "states-bad", "RehearsalFailed").await;
    recorder.record("module-refused", "TenantModule", NAMESPACE, "states-bad").await;
}

/// Tenants that are new, in use, or not as their spec asks.
async fn tenants(world: &World, recorder: &mut Recorder) {
    // A namespace that the operator does not watch.
    let ignored = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "states-ignored"}});
    apply(world, ignored).await;
    world.fleet.in_namespace("states-ignored").apply("states-new", json!({})).await;
    recorder.record("tenant-new", "Tenant", "states-ignored", "states-new").await;

    let is_working = |tenant: Option<&Tenant>| {
        tenant.and_then(|tenant| tenant.status.as_ref()).is_some_and(|status| {
            find_condition(&status.conditions, RECONCILING)
                .is_some_and(|found| found.reason == "Provisioning")
        })
    };
    let name = "states-provisioning";
    let (seen, _) = tokio::join!(
        Wait::until("it is being provisioned").object(&world.fleet.tenants, name, is_working),
        world.apply(name, json!({}))
    );
    let seen = serde_json::to_value(seen.unwrap()).unwrap();
    recorder.found.insert("tenant-provisioning".to_owned(), pruned(&seen));

    world.fleet.ready(name).await;
    recorder.record("tenant-active", "Tenant", NAMESPACE, name).await;
    world.apply("states-unplanned", json!({"plan": "states-none"})).await;
    until(world, "Tenant", "states-unplanned", "PlanNotFound").await;
    recorder.record("tenant-waiting-for-plan", "Tenant", NAMESPACE, "states-unplanned").await;
    world.apply("states-failed", json!({"modules": [{"name": "no-such-module"}]})).await;
    until(world, "Tenant", "states-failed", "ModuleNotFound").await;
    recorder.record("tenant-failed", "Tenant", NAMESPACE, "states-failed").await;
    world.apply("states-taken", json!({"slug": name})).await;
    until(world, "Tenant", "states-taken", "SlugTaken").await;
    recorder.record("tenant-slug-taken", "Tenant", NAMESPACE, "states-taken").await;
    world.apply(name, json!({"modules": [{"name": "no-such-module"}]})).await;
    until(world, "Tenant", name, "ModuleNotFound").await;
    recorder.record("tenant-active-invalid-change", "Tenant", NAMESPACE, name).await;

    let second = world.second_server("states-second").await;
    world.apply_on("states-second", "states-apart").await;
    world.fleet.ready("states-apart").await;
    second.stop(Stop::Fast).await.unwrap();
    until(world, "DatabaseServer", "states-second", "DatabaseUnreachable").await;
    recorder.record("server-unreachable", "DatabaseServer", NAMESPACE, "states-second").await;
    let stop = json!({"server": "states-second", "state": "Suspended", "stateReason": "unpaid"});
    world.fleet.apply("states-apart", stop).await;
    let is_waiting = |tenant: Option<&Tenant>| {
        tenant.is_some_and(|tenant| {
            let status = tenant.status.as_ref();
            status.is_some_and(|status| {
                status.observed_generation == tenant.metadata.generation
                    && find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "False")
            })
        })
    };
    world.fleet.wait("states-apart", "waiting for its server", is_waiting).await;
    recorder.record("tenant-server-unreachable", "Tenant", NAMESPACE, "states-apart").await;
}

/// What `Recorder::record` keeps of an object.
fn pruned(object: &Value) -> Value {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": {"name": metadata["name"], "generation": metadata["generation"]}, "spec": {},
        "status": {"observedGeneration": status["observedGeneration"], "state": status["state"],
            "conditions": status["conditions"]},
    })
}

/// Tenants whose access is less than full, because that is what is asked for; paused ones, and holds.
async fn restricted(world: &World, recorder: &mut Recorder) {
    let fleet = &world.fleet;
    let end = Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_hours(48);
    let trial = json!({"trial": {"endsAt": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}});
    let unpaid = json!({"state": "Suspended", "stateReason": "unpaid"});
    let cases = [
        ("tenant-trial", "states-trial", trial),
        ("tenant-suspended", "states-suspended", unpaid.clone()),
        ("tenant-gate-open", "states-gated", json!({"gates": [{"name": "contract"}]})),
    ];
    for (state, name, spec) in cases {
        world.apply(name, spec).await;
        fleet.ready(name).await;
        recorder.record(state, "Tenant", NAMESPACE, name).await;
    }
    world.apply("states-held", json!({})).await;
    fleet.ready("states-held").await;
    fleet.apply_hold("states-hold", "states-held", json!({"mode": "ReadOnly"})).await;
    fleet.hold_reason("states-hold", "Verified").await;
    recorder.record("hold-in-force", "TenantHold", NAMESPACE, "states-hold").await;
    fleet.ready("states-held").await;
    until(world, "Tenant", "states-held", "Suspended").await;
    recorder.record("tenant-held", "Tenant", NAMESPACE, "states-held").await;
    fleet.apply_hold("states-absent", "states-absent", json!({"mode": "Blocked"})).await;
    fleet.hold_reason("states-absent", "TenantNotFound").await;
    recorder.record("hold-without-tenant", "TenantHold", NAMESPACE, "states-absent").await;

    world.apply("states-paused", json!({})).await;
    fleet.ready("states-paused").await;
    world.apply("states-paused", json!({"paused": true})).await;
    fleet.ready("states-paused").await;
    recorder.record("tenant-paused", "Tenant", NAMESPACE, "states-paused").await;
    world
        .apply("states-paused", json!({"paused": true, "state": "Suspended", "stateReason": "unpaid"}))
        .await;
    until(world, "Tenant", "states-paused", "Paused").await;
    recorder.record("tenant-paused-change-waits", "Tenant", NAMESPACE, "states-paused").await;
}

/// Tenants that leave.
async fn offboarded(world: &World, recorder: &mut Recorder) {
    let fleet = &world.fleet;
    let leaving = json!({"state": "Deprovisioned", "stateReason": "contract ended"});
    let names = ["states-grace", "states-legal", "states-gone", "states-deleted"];
    for name in names {
        world.apply(name, json!({})).await;
    }
    for name in names {
        fleet.ready(name).await;
    }
    world.apply("states-grace", leaving.clone()).await;
    until(world, "Tenant", "states-grace", "GracePeriod").await;
    recorder.record("tenant-grace-period", "Tenant", NAMESPACE, "states-grace").await;
    fleet.apply_hold("states-legal", "states-legal", json!({"mode": "None", "preserve": true})).await;
    fleet.hold_reason("states-legal", "LegalHold").await;
    recorder.record("hold-legal", "TenantHold", NAMESPACE, "states-legal").await;
    world.apply("states-legal", leaving.clone()).await;
    until(world, "Tenant", "states-legal", "LegalHold").await;
    recorder.record("tenant-legal-hold", "Tenant", NAMESPACE, "states-legal").await;
    let mut now = leaving;
    now["offboarding"] = json!({"gracePeriodSeconds": 0});
    world.apply("states-gone", now).await;
    until(world, "Tenant", "states-gone", "Deprovisioned").await;
    recorder.record("tenant-deprovisioned", "Tenant", NAMESPACE, "states-gone").await;

    // A finalizer of another keeps the object.
    let finalizer = |names: &[&str]| Patch::Merge(json!({"metadata": {"finalizers": names}}));
    let patch = finalizer(&["tenantry.dev/deprovision", "tests/keep"]);
    let own = fleet.tenants.get("states-deleted").await.unwrap().metadata.finalizers.unwrap();
    assert_eq!(own, ["tenantry.dev/deprovision"]);
    fleet.tenants.patch("states-deleted", &PatchParams::default(), &patch).await.unwrap();
    fleet.tenants.delete("states-deleted", &DeleteParams::default()).await.unwrap();
    let is_released = |tenant: Option<&Tenant>| {
        tenant.is_some_and(|tenant| {
            tenant.metadata.finalizers.as_ref().is_some_and(|left| *left == ["tests/keep"])
        })
    };
    fleet.wait("states-deleted", "released", is_released).await;
    recorder.record("tenant-deleted", "Tenant", NAMESPACE, "states-deleted").await;
    fleet.tenants.patch("states-deleted", &PatchParams::default(), &finalizer(&[])).await.unwrap();
}

/// Tenants that this version cannot decode: a known one and a new one.
async fn undecodable(world: &World, recorder: &mut Recorder) {
    world.apply("states-decoded", json!({})).await;
    world.fleet.ready("states-decoded").await;
    let nested = (0..200).fold(json!(1), |inner, _| json!({"a": inner}));
    for (state, name) in [("tenant-undecodable", "states-decoded"), ("tenant-new-undecodable", "states-odd")]
    {
        let tenant =
            objects::tenant(name, json!({"server": world.name, "settings": {"deep": nested.clone()}}));
        let request = Request::new(world.fleet.tenants.resource_url());
        let patch = Patch::Apply(tenant);
        let request = request.patch(name, &PatchParams::apply("tests").force(), &patch).unwrap();
        world.fleet.client.request_text(request).await.unwrap();
        world.event(name, "InvalidObject", "recursion limit").await;
        recorder.record(state, "Tenant", NAMESPACE, name).await;
    }
}
