//! Plans: their tenants are counted, a plan in use is not deleted, and a change reaches tenants a few at a time.

use std::{
    collections::HashSet,
    future::ready,
    sync::Mutex,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        conditions::is_deleted,
        wait::{Condition, await_condition},
        watcher,
    },
};
use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::{
    FINALIZER,
    conditions::{LIMITS_KNOWN, READY, RECONCILING, find_condition},
    limit::LimitValue,
    plan::{TenantPlan, TenantPlanStatus},
    tenant::Tenant,
    tenant_status::TenantState,
};
use tenantry_test_support::{
    Fleet,
    shared_operator::{self, superuser},
};

/// While a Tenant of another test cannot be decoded, a plan counts as used: it may be on any.
const PATIENCE: Duration = Duration::from_secs(240);

/// The plans of one test, and a namespace for their tenants.
struct Plans {
    api: Api<TenantPlan>,
    fleet: Fleet,
}

impl Plans {
    async fn new(namespace: &str) -> Self {
        let fleet = Fleet::new(namespace).await;
        Self { api: Api::all(fleet.client.clone()), fleet }
    }

    async fn apply(&self, name: &str, spec: Value) -> TenantPlan {
        self.fleet.apply_plan(name, spec).await
    }

    async fn until(&self, name: &str, what: &str, condition: impl Condition<TenantPlan>) {
        let waited = await_condition(self.api.clone(), name, condition);
        if tokio::time::timeout(PATIENCE, waited).await.is_err() {
            panic!("{name} is not {what}: {:#?}\n{}", self.api.get(name).await, self.fleet.operator_log());
        }
    }

    async fn used_by(&self, name: &str, count: i64) {
        let so = status_is(move |status| status.used_by == Some(count));
        self.until(name, &format!("used by {count}"), so).await;
    }

    /// Deletes a plan; returns its uid.
    async fn delete(&self, name: &str) -> String {
        let uid = self.api.get(name).await.unwrap().metadata.uid.unwrap();
        self.api.delete(name, &DeleteParams::default()).await.unwrap();
        uid
    }

    async fn gone(&self, name: &str, uid: &str) {
        self.until(name, "gone", is_deleted(uid)).await;
    }
}

fn status_is(so: impl Fn(&TenantPlanStatus) -> bool) -> impl Condition<TenantPlan> {
    move |plan: Option<&TenantPlan>| plan.and_then(|plan| plan.status.as_ref()).is_some_and(&so)
}

/// Status and reason of `Ready`, and its message.
fn summary(status: &TenantPlanStatus) -> Option<(&str, &str, &str)> {
    let ready = find_condition(&status.conditions, READY)?;
    Some((&ready.status, &ready.reason, &ready.message))
}

#[tokio::test]
async fn plan_in_use_is_not_deleted() {
    let plans = Plans::new("plans-used").await;
    let fleet = &plans.fleet;
    for name in ["plans-used", "plans-other"] {
        plans.apply(name, json!({})).await;
    }
    for name in ["plans-gone", "plans-moved"] {
        fleet.apply(name, json!({"plan": "plans-used"})).await;
    }
    for name in ["plans-gone", "plans-moved"] {
        fleet.ready(name).await;
    }
    plans
        .until(
            "plans-used",
            "counting both",
            status_is(|status| {
                status.used_by == Some(2) && summary(status).is_some_and(|(status, ..)| status == "True")
            }),
        )
        .await;
    let uid = plans.delete("plans-used").await;
    plans
        .until(
            "plans-used",
            "InUse",
            status_is(|status| {
                summary(status).is_some_and(|(status, reason, message)| {
                    (status, reason) == ("False", "InUse")
                        && message.contains("2 tenants")
                        && message.contains("plans-used/plans-gone, plans-used/plans-moved")
                })
            }),
        )
        .await;
    fleet.delete("plans-gone").await;
    plans.used_by("plans-used", 1).await;
    // The plan still applies, and its tenant is reconciled.
    fleet.apply("plans-moved", json!({"plan": "plans-used", "displayName": "Moved"})).await;
    fleet.ready("plans-moved").await;
    fleet.apply("plans-moved", json!({"plan": "plans-other"})).await;
    fleet.ready("plans-moved").await;
    plans.gone("plans-used", &uid).await;
    plans.used_by("plans-other", 1).await;
    fleet.delete("plans-moved").await;
    plans.used_by("plans-other", 0).await;
    // Its finalizer is removed, and nothing is pending any more.
    plans
        .until("plans-other", "released", |plan: Option<&TenantPlan>| {
            plan.is_some_and(|plan| {
                let status = plan.status.as_ref().unwrap();
                plan.metadata.finalizers.is_none()
                    && status.pending.is_none()
                    && summary(status)
                        .is_some_and(|(status, reason, _)| (status, reason) == ("True", "Unused"))
            })
        })
        .await;
    plans.delete("plans-other").await;
    assert!(plans.api.get_opt("plans-other").await.unwrap().is_none());
}

#[tokio::test]
async fn unused_plan_has_no_finalizer_and_is_ready() {
    let plans = Plans::new("plans-unused").await;
    let fleet = &plans.fleet;
    plans.apply("plans-unused", json!({"limits": {"usres": 5}})).await;
    let wait = ["wait", "--for=condition=Ready", "tenantplan/plans-unused", "--timeout=240s"];
    shared_operator::ENVIRONMENT.control_plane().kubectl().run(&wait).await.unwrap();
    plans.apply("plans-beside", json!({})).await;
    fleet.apply("plans-beside", json!({"plan": "plans-beside"})).await;
    plans.used_by("plans-beside", 1).await;
    let unused = plans.api.get("plans-unused").await.unwrap();
    assert_eq!(unused.metadata.finalizers, None);
    let status = unused.status.unwrap();
    let limits = find_condition(&status.conditions, LIMITS_KNOWN).unwrap();
    assert_eq!((&*limits.status, &*limits.reason), ("False", "UnknownLimit"));
    assert!(limits.message.contains("usres (do you mean users?)"), "{}", limits.message);
    plans.delete("plans-unused").await;
    assert!(plans.api.get_opt("plans-unused").await.unwrap().is_none());
    fleet.delete("plans-beside").await;
}

#[tokio::test]
async fn finalizer_of_a_former_installation_goes_with_the_last_tenant() {
    let plans = Plans::new("plans-shared").await;
    let fleet = &plans.fleet;
    plans.apply("plans-shared", json!({})).await;
    fleet.apply("plans-shared", json!({"plan": "plans-shared"})).await;
    fleet.ready("plans-shared").await;
    // Only now: a former finalizer on a plan without tenants is released at once.
    plans.used_by("plans-shared", 1).await;
    let other = json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan",
        "metadata": {"name": "plans-shared", "finalizers": [FINALIZER]}});
    let params = PatchParams::apply("tenantry/finalizer/another");
    plans.api.patch("plans-shared", &params, &Patch::Apply(&other)).await.unwrap();
    let managers = |plan: &TenantPlan| -> HashSet<String> {
        let entries = plan.metadata.managed_fields.clone().unwrap_or_default().into_iter();
        entries
            .filter_map(|entry| entry.manager)
            .filter(|name| name.starts_with("tenantry/finalizer/"))
            .collect()
    };
    let guarded = move |plan: Option<&TenantPlan>| {
        plan.is_some_and(|plan| managers(plan).len() == 2 && plan.metadata.finalizers.is_some())
    };
    plans.until("plans-shared", "guarded by both", guarded).await;
    let uid = plans.delete("plans-shared").await;
    plans.until("plans-shared", "still guarded by both", guarded).await;
    // This operator watches every namespace, so the other one has no tenant of its own.
    fleet.delete("plans-shared").await;
    plans.gone("plans-shared", &uid).await;
}

#[tokio::test]
async fn many_tenants_on_a_plan_are_counted_in_few_writes() {
    let plans = Plans::new("plans-many").await;
    let fleet = &plans.fleet;
    plans.apply("plans-many", json!({})).await;
    let names: Vec<String> = (0..20).map(|n| format!("plans-many-{n}")).collect();
    let (seen, begun) = (Mutex::new(HashSet::new()), Instant::now());
    let only = watcher::Config::default().fields("metadata.name=plans-many");
    let watch = watcher(plans.api.clone(), only).touched_objects().for_each(|plan| {
        let version = plan.ok().and_then(|plan| plan.metadata.resource_version);
        seen.lock().unwrap().extend(version);
        ready(())
    });
    let work = async {
        join_all(names.iter().map(|name| fleet.apply(name, json!({"plan": "plans-many"})))).await;
        join_all(names.iter().map(|name| fleet.ready(name))).await;
        let so = status_is(|status| {
            (status.used_by, status.pending) == (Some(20), Some(0))
                && find_condition(&status.conditions, RECONCILING).is_none()
        });
        plans.until("plans-many", "counting all", so).await;
        begun.elapsed()
    };
    tokio::pin!(watch);
    let took = tokio::select! { took = work => took, () = &mut watch => unreachable!() };
    // When nothing changes any more, nothing is written.
    assert!(tokio::time::timeout(Duration::from_secs(5), watch).await.is_err());
    // The plan itself, its finalizer, and a status in two seconds.
    let (versions, most) = (seen.lock().unwrap().len(), 2 + 1 + took.as_secs() / 2 + 1);
    println!("20 tenants on a plan in {took:?}: {versions} versions of it");
    assert!(u64::try_from(versions).unwrap() <= most, "{versions} versions of the plan in {took:?}");
}

/// A quarter of the default --concurrency.
const AT_ONCE: i64 = 4;

#[tokio::test]
async fn changed_plan_reaches_tenants_a_few_at_a_time() {
    let plans = Plans::new("plans-spread").await;
    let fleet = &plans.fleet;
    plans.apply("plans-spread", json!({})).await;
    let names: Vec<String> = (0..30).map(|n| format!("plans-spread-{n}")).collect();
    join_all(names.iter().map(|name| fleet.apply(name, json!({"plan": "plans-spread"})))).await;
    join_all(names.iter().map(|name| fleet.ready(name))).await;

    let begun = Instant::now();
    plans.apply("plans-spread", json!({"trialDays": 14})).await;
    for name in &names {
        let in_trial = |tenant: Option<&Tenant>| {
            let status = tenant.and_then(|tenant| tenant.status.as_ref());
            status.is_some_and(|status| status.state == Some(TenantState::Trial))
        };
        fleet.wait(name, "in its trial", in_trial).await;
    }
    println!("30 tenants in their trial {:?} after their plan changed", begun.elapsed());
    let at_once: i64 = sqlx::query_scalar(
        "WITH w AS (SELECT w.* FROM workflows w JOIN tenants t ON t.id = w.tenant_id
                    WHERE t.slug LIKE 'plans-spread-%' AND w.kind <> 'Provision')
         SELECT max((SELECT count(*) FROM w b WHERE b.started_at <= a.started_at
                     AND coalesce(b.finished_at, 'infinity') > a.started_at)) FROM w a",
    )
    .fetch_one(&mut superuser("tenantry_system").await)
    .await
    .unwrap();
    assert!((1..=AT_ONCE).contains(&at_once), "{at_once} at once");
}

#[tokio::test]
async fn plan_status_shows_progress_of_a_change() {
    let plans = Plans::new("plans-pending").await;
    let fleet = &plans.fleet;
    plans.apply("plans-pending", json!({"limits": {"users": 5}})).await;
    let names: Vec<String> = (0..30).map(|n| format!("plans-pending-{n}")).collect();
    join_all(names.iter().map(|name| fleet.apply(name, json!({"plan": "plans-pending"})))).await;
    join_all(names.iter().map(|name| fleet.ready(name))).await;
    let in_force = |generation: Option<i64>| {
        status_is(move |status| {
            status.observed_generation == generation
                && (status.used_by, status.pending) == (Some(30), Some(0))
                && summary(status).is_some_and(|(status, ..)| status == "True")
        })
    };
    plans.until("plans-pending", "in force", in_force(Some(1))).await;

    let change = json!({"limits": {"users": 7}, "features": ["sso"]});
    let begun = Instant::now();
    let changed = plans.apply("plans-pending", change).await.metadata.generation;
    plans.until("plans-pending", "in force again", in_force(changed)).await;
    println!("30 tenants had a changed plan after {:?}", begun.elapsed());
    for name in &names {
        let status = fleet.tenants.get(name).await.unwrap().status.unwrap();
        assert_eq!(status.limits["users"], LimitValue::Number(7), "{name}");
        assert_eq!(status.features, ["sso"], "{name}");
    }
}

/// The modules in a status.
fn modules_of(tenant: &Tenant) -> Vec<&str> {
    let status = tenant.status.as_ref().unwrap();
    assert!(status.modules.iter().all(|module| module.version == module.target), "{:?}", status.modules);
    status.modules.iter().map(|module| module.name.as_str()).collect()
}

#[tokio::test]
async fn tenant_gets_modules_of_its_plan_and_keeps_its_own() {
    let plans = Plans::new("plans-modules").await;
    let fleet = &plans.fleet;
    plans.apply("plans-basic", json!({"modules": ["core"], "limits": {"projects": 1}})).await;
    plans.apply("plans-whole", json!({"limits": {"projects": 1}})).await;
    fleet.apply("plans-modules", json!({"plan": "plans-basic"})).await;
    assert_eq!(modules_of(&fleet.ready("plans-modules").await), ["tenantry", "core"]);
    let mut session = fleet.login("plans-modules").await.unwrap();
    let add = "INSERT INTO projects (name) VALUES ('one')";
    let missing = session.execute(add).await.unwrap_err().into_database_error().unwrap();
    assert_eq!(missing.code().unwrap(), "42P01");

    // The larger plan adds its modules, and their limits apply at once.
    fleet.apply("plans-modules", json!({"plan": "plans-whole"})).await;
    let all = ["tenantry", "core", "identity", "projects"];
    assert_eq!(modules_of(&fleet.ready("plans-modules").await), all);
    session.execute(add).await.unwrap();
    let refused = session.execute(add).await.unwrap_err().into_database_error().unwrap();
    assert_eq!((refused.code().unwrap().as_ref(), refused.constraint()), ("TNLIM", Some("projects")));

    // The smaller plan removes no module.
    fleet.apply("plans-modules", json!({"plan": "plans-basic"})).await;
    let back = |tenant: Option<&Tenant>| {
        tenant.and_then(|tenant| tenant.status.as_ref()?.plan.as_deref()) == Some("plans-basic")
    };
    fleet.wait("plans-modules", "back on the smaller plan", back).await;
    assert_eq!(modules_of(&fleet.ready("plans-modules").await), all);
    session.execute("DELETE FROM projects").await.unwrap();

    // An unknown module prevents the plan from being applied; its tenants keep what they have.
    plans.apply("plans-basic", json!({"modules": ["wikis"], "limits": {"projects": 9}})).await;
    let status = fleet.reason("plans-modules", READY, "ModuleNotFound").await.status.unwrap();
    let ready = find_condition(&status.conditions, READY).unwrap();
    assert!(ready.message.contains("\"wikis\"") && ready.message.contains("projects"), "{}", ready.message);
    assert_eq!(status.limits["projects"], LimitValue::Number(1));
    plans.until("plans-basic", "pending", pending(1)).await;
    fleet.apply("plans-new", json!({"plan": "plans-basic"})).await;
    fleet.reason("plans-new", READY, "ModuleNotFound").await;
    plans.apply("plans-basic", json!({"modules": ["projects"], "limits": {"projects": 9}})).await;
    for name in ["plans-modules", "plans-new"] {
        fleet.ready(name).await;
    }
    plans.until("plans-basic", "in force", pending(0)).await;
}

fn pending(count: i64) -> impl Condition<TenantPlan> {
    status_is(move |status| status.pending == Some(count))
}
