//! The status of a TenantPlan, and whether it keeps its finalizer. Pure: the plan, its tenants, and the time.
//!
//! Several operators may share a cluster, with a registry each, and a plan may have tenants of more than one of them. Each
//! adds the finalizer under a field manager of its own, so that it stays until the last of them has released it. The status
//! is that of the operator that wrote last.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::ResourceExt;

use crate::{
    api::{
        FINALIZER,
        conditions::{
            ConditionStatus, LIMITS_KNOWN, READY, RECONCILING, condition, find_condition, remove_condition,
            same_ignoring_times, set_condition,
        },
        plan::{TenantPlan, TenantPlanStatus},
        reason::Reason,
    },
    domain::{
        modules::{ModuleError, unknown_of_plan},
        plan_adoption::PlanAdoption,
        usage::limit_names::{UnknownLimit, published_without_limit, unknown_limits},
    },
};

/// The writes to a plan.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// Whether the finalizer is added (true) or released (false); none: neither.
    pub guard: Option<bool>,
    /// The field managers of former installations: the finalizer that they added is released.
    pub abandoned: Vec<String>,
    /// The new status; none: unchanged.
    pub status: Option<TenantPlanStatus>,
}

/// What this operator knows about a plan.
pub struct PlanInputs<'a> {
    /// Its tenants; none if it has none.
    pub adoption: Option<&'a PlanAdoption>,
    /// Whether this operator watches every namespace: then no other one has tenants that this one does not know.
    pub sees_all_tenants: bool,
    /// The limits that modules meter.
    pub metered_limits: &'a [String],
    /// The modules that exist.
    pub modules: &'a [String],
}

/// The writes to a plan with these tenants, by an operator that adds finalizers as `manager`; `family` is the prefix of the
/// managers of all operators. A plan without tenants of this operator, now and before, is written once, so that a wait for
/// it ends and its limits are checked; and not if it has tenants of others. If no Tenant at all is on it, the finalizers of
/// others are those of installations whose registry was lost, or of wrong starts.
pub fn changes(
    plan: &TenantPlan,
    known: &PlanInputs<'_>,
    manager: &str,
    family: &str,
    now: Timestamp,
) -> Changes {
    let before = plan.status.clone().unwrap_or_default();
    let guards = !guardians(plan, |name| name == manager).is_empty();
    let Some(adoption) = known.adoption else {
        let mut others = guardians(plan, |name| name != manager && name.starts_with(family));
        let abandoned = if known.sees_all_tenants { std::mem::take(&mut others) } else { Vec::new() };
        // A deleted plan whose finalizer only another client's manifest carries would stay for ever.
        let left_behind =
            plan.metadata.deletion_timestamp.is_some() && has_finalizer(plan) && others.is_empty();
        let guards = guards || left_behind;
        let unused = unused_status(plan, &before, known, now);
        // Operators of different versions may know different limits: each takes what another wrote for this generation.
        let is_written = !guards
            && before.observed_generation == plan.metadata.generation
            && before.used_by == Some(0)
            && !before.conditions.is_empty()
            && !corrects(&unused.conditions, &before.conditions);
        let keeps_status = plan.metadata.deletion_timestamp.is_some() || !others.is_empty() || is_written;
        return Changes {
            guard: guards.then_some(false),
            abandoned,
            status: (!keeps_status && !same(&before, &unused)).then_some(unused),
        };
    };
    // An object that is being deleted takes no new finalizer.
    let possible = plan.metadata.deletion_timestamp.is_none() || has_finalizer(plan);
    let status = next_status(plan, &before, adoption, known, now);
    Changes {
        guard: (!guards && possible).then_some(true),
        abandoned: Vec::new(),
        status: (!same(&before, &status)).then_some(status),
    }
}

/// Whether what was a fault for the operator that wrote before is none for this one, which knows more. It is never written
/// back, so that two do not write in turn.
fn corrects(now: &[Condition], before: &[Condition]) -> bool {
    let is = |found: &Condition, status: ConditionStatus| found.status == status.as_str();
    now.iter().any(|new| {
        is(new, ConditionStatus::True)
            && find_condition(before, &new.type_).is_some_and(|old| is(old, ConditionStatus::False))
    })
}

fn has_finalizer(plan: &TenantPlan) -> bool {
    plan.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Those of these managers that have added the finalizer.
fn guardians(plan: &TenantPlan, of: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = if has_finalizer(plan) { plan.managed_fields() } else { &[] };
    entries.iter().filter_map(|entry| entry.manager.clone()).filter(|name| of(name)).collect()
}

/// The status of a plan without tenants.
fn unused_status(
    plan: &TenantPlan,
    before: &TenantPlanStatus,
    known: &PlanInputs<'_>,
    now: Timestamp,
) -> TenantPlanStatus {
    let generation = plan.metadata.generation;
    let mut conditions = before.conditions.clone();
    let ready = match unknown_module(plan, known) {
        Some(error) => condition(
            READY,
            ConditionStatus::False,
            Reason::ModuleNotFound,
            format!("no tenant is on it, and none could have it: {error}"),
            generation,
            now,
        ),
        None => {
            let message = "no tenant is on it".to_owned();
            condition(READY, ConditionStatus::True, Reason::Unused, message, generation, now)
        }
    };
    set_condition(&mut conditions, ready);
    remove_condition(&mut conditions, RECONCILING);
    set_condition(&mut conditions, limits_known(plan, known.metered_limits, now));
    TenantPlanStatus {
        observed_generation: generation,
        used_by: Some(0),
        conditions,
        ..TenantPlanStatus::default()
    }
}

/// The unknown module that the plan names, if it does.
fn unknown_module(plan: &TenantPlan, known: &PlanInputs<'_>) -> Option<ModuleError> {
    unknown_of_plan(&plan.name_any(), &plan.spec.modules, known.modules)
}

/// Whether every limit of the plan is enforced, or published for others to enforce.
fn limits_known(plan: &TenantPlan, metered_limits: &[String], now: Timestamp) -> Condition {
    let described =
        |found: &[UnknownLimit]| found.iter().map(UnknownLimit::describe).collect::<Vec<_>>().join(", ");
    let (unknown, unset) = (unknown_limits(&plan.spec, metered_limits), published_without_limit(&plan.spec));
    let mut faults = Vec::new();
    if !unknown.is_empty() {
        faults.push(format!(
            "spec.limits: Tenantry does not enforce {}: correct the name, or list it in spec.published if the application enforces it",
            described(&unknown)
        ));
    }
    if !unset.is_empty() {
        faults.push(format!(
            "spec.published: spec.limits does not set {}: correct the name, or leave it out",
            described(&unset)
        ));
    }
    let (reason, message) = match faults.is_empty() {
        true => (
            Reason::Verified,
            "every limit is enforced by Tenantry, or published for the application".to_owned(),
        ),
        false => (Reason::UnknownLimit, faults.join("; ")),
    };
    condition(LIMITS_KNOWN, faults.is_empty().into(), reason, message, plan.metadata.generation, now)
}

fn next_status(
    plan: &TenantPlan,
    before: &TenantPlanStatus,
    adoption: &PlanAdoption,
    known: &PlanInputs<'_>,
    now: Timestamp,
) -> TenantPlanStatus {
    let generation = plan.metadata.generation;
    let (users, pending) = (adoption.users.count, adoption.pending.count);
    let (stalled, waiting) = (adoption.stalled.count, pending - adoption.stalled.count);
    let (tenants, are, have) = if users == 1 { ("tenant", "is", "has") } else { ("tenants", "are", "have") };
    let deleting = plan.metadata.deletion_timestamp.is_some();
    let (status, reason, message) = if deleting {
        let names = adoption.users.names();
        let message = format!(
            "being deleted, and {users} {tenants} {are} on it ({names}): it stays until none is; set another plan in their spec.plan, or delete them"
        );
        (ConditionStatus::False, Reason::InUse, message)
    } else if let Some(error) = unknown_module(plan, known) {
        let message =
            format!("{} of {users} {tenants} {have} it, and no other can: {error}", users - pending);
        (ConditionStatus::False, Reason::ModuleNotFound, message)
    } else if waiting > 0 {
        let names = adoption.pending.names();
        let message = format!("{} of {users} {tenants} {have} it; not yet: {names}", users - pending);
        (ConditionStatus::False, Reason::Enforcing, message)
    } else if stalled > 0 {
        // One broken tenant is no fault of the plan.
        let names = adoption.stalled.names();
        let message = format!(
            "{} of {users} {tenants} {have} it; {stalled} cannot get it before something else is corrected, as their own conditions say: {names}",
            users - stalled
        );
        (ConditionStatus::True, Reason::Verified, message)
    } else {
        let message = format!(
            "the {users} {tenants} on it {have} it, except for those that are paused or being deprovisioned"
        );
        (ConditionStatus::True, Reason::Verified, message)
    };
    let mut conditions = before.conditions.clone();
    set_condition(&mut conditions, condition(READY, status, reason, message.clone(), generation, now));
    remove_condition(&mut conditions, RECONCILING);
    if waiting > 0 && !deleting {
        let working = condition(RECONCILING, ConditionStatus::True, reason, message, generation, now);
        set_condition(&mut conditions, working);
    }
    set_condition(&mut conditions, limits_known(plan, known.metered_limits, now));
    let count = |count: usize| Some(i64::try_from(count).unwrap_or(i64::MAX));
    TenantPlanStatus {
        observed_generation: generation,
        used_by: count(users),
        pending: count(pending),
        conditions,
    }
}

fn same(a: &TenantPlanStatus, b: &TenantPlanStatus) -> bool {
    (a.observed_generation, a.used_by, a.pending) == (b.observed_generation, b.used_by, b.pending)
        && same_ignoring_times(&a.conditions, &b.conditions)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{api::tenant::Tenant, domain::plan_adoption::adoption_by_plan};
    use serde_json::{Value, json};

    const OURS: &str = "family/ours";

    fn plan(metadata: Value) -> TenantPlan {
        let mut all = json!({"name": "free", "uid": "u", "generation": 2});
        all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan",
            "metadata": all, "spec": {"limits": {"users": 5}}}))
        .unwrap()
    }

    /// The plan with the finalizer of these managers.
    fn guarded(managers: &[&str], metadata: Value) -> TenantPlan {
        let entries: Vec<Value> =
            managers.iter().map(|manager| json!({"manager": manager, "operation": "Apply"})).collect();
        let mut all = json!({"finalizers": [FINALIZER], "managedFields": entries});
        all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        plan(all)
    }

    fn deleting() -> Value {
        json!({"deletionTimestamp": "2026-11-21T00:00:00Z"})
    }

    /// `count` tenants on it, of which the first `have` have it.
    fn tenants(count: usize, have: usize) -> PlanAdoption {
        let tenant = |n| -> Tenant {
            let limits = json!({"users": 5, "connections": 50, "tempFileBytes": 1 << 30});
            let status = if n < have { json!({"plan": "free", "limits": limits}) } else { json!({}) };
            serde_json::from_value(json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
                "metadata": {"name": format!("t{n}"), "namespace": "customers"},
                "spec": {"slug": "abc", "displayName": "A", "plan": "free"}, "status": status}))
            .unwrap()
        };
        let all: Vec<Tenant> = (0..count).map(tenant).collect();
        let free = plan(json!({})).spec;
        adoption_by_plan(&all, &BTreeMap::from([("free".to_owned(), &free)]), &[], |_| false)
            .remove("free")
            .unwrap()
    }

    fn changes_to(plan: &TenantPlan, adoption: Option<&PlanAdoption>) -> Changes {
        changes_by(false, plan, adoption)
    }

    fn changes_by(sees_all_tenants: bool, plan: &TenantPlan, adoption: Option<&PlanAdoption>) -> Changes {
        let metered_limits = ["users".to_owned()];
        let modules = ["core".to_owned(), "projects".to_owned()];
        let known =
            PlanInputs { adoption, sees_all_tenants, metered_limits: &metered_limits, modules: &modules };
        changes(plan, &known, OURS, "family/", Timestamp::UNIX_EPOCH)
    }

    /// Status, reason and message of a condition.
    fn shown(changes: &Changes, type_: &str) -> Option<(String, String, String)> {
        let found = find_condition(&changes.status.as_ref()?.conditions, type_)?.clone();
        Some((found.status, found.reason, found.message))
    }

    #[test]
    fn used_plan_has_finalizer_and_reports_progress() {
        let changes = changes_to(&plan(json!({})), Some(&tenants(10, 6)));
        assert_eq!(changes.guard, Some(true));
        let status = changes.status.clone().unwrap();
        assert_eq!(
            (status.observed_generation, status.used_by, status.pending),
            (Some(2), Some(10), Some(4))
        );
        let (ready, reason, message) = shown(&changes, READY).unwrap();
        assert_eq!((&*ready, &*reason), ("False", "Enforcing"));
        assert!(message.starts_with("6 of 10 tenants have it; not yet: customers/t6, "), "{message}");
        assert_eq!(shown(&changes, RECONCILING).unwrap().0, "True");

        let mut shown_plan = guarded(&[OURS], json!({}));
        shown_plan.status = Some(status);
        assert_eq!(changes_to(&shown_plan, Some(&tenants(10, 6))), Changes::default());
        let changes = changes_to(&shown_plan, Some(&tenants(10, 10)));
        assert_eq!((changes.guard, shown(&changes, RECONCILING)), (None, None));
        assert_eq!(shown(&changes, READY).unwrap().0, "True");
    }

    #[test]
    fn plan_is_ready_and_names_a_broken_tenant() {
        let mut adoption = tenants(10, 9);
        adoption.stalled = adoption.pending.clone();
        let changes = changes_to(&plan(json!({})), Some(&adoption));
        let (ready, reason, message) = shown(&changes, READY).unwrap();
        assert_eq!((&*ready, &*reason), ("True", "Verified"));
        assert!(message.starts_with("9 of 10 tenants have it; 1 cannot get it"), "{message}");
        assert!(message.ends_with(": customers/t9"), "{message}");
        assert_eq!((changes.status.as_ref().unwrap().pending, shown(&changes, RECONCILING)), (Some(1), None));
    }

    #[test]
    fn deleted_plan_reports_its_tenants() {
        let changes = changes_to(&guarded(&[OURS], deleting()), Some(&tenants(1, 0)));
        let (ready, reason, message) = shown(&changes, READY).unwrap();
        assert_eq!((&*ready, &*reason, changes.guard), ("False", "InUse", None));
        assert!(message.contains("customers/t0") && message.contains("spec.plan"), "{message}");
        // Another operator's finalizer is shared; without one, it is too late to add one.
        assert_eq!(
            changes_to(&guarded(&["family/other"], deleting()), Some(&tenants(1, 0))).guard,
            Some(true)
        );
        assert_eq!(changes_to(&plan(deleting()), Some(&tenants(1, 0))).guard, None);
    }

    #[test]
    fn unused_plan_is_released() {
        let changes = changes_to(&guarded(&[OURS], json!({})), None);
        assert_eq!(changes.guard, Some(false));
        let status = changes.status.clone().unwrap();
        assert_eq!((status.used_by, status.pending, status.observed_generation), (Some(0), None, Some(2)));
        let (ready, reason, _) = shown(&changes, READY).unwrap();
        assert_eq!((&*ready, &*reason), ("True", "Unused"));
        let only_guard = Changes { guard: Some(false), ..Changes::default() };
        assert_eq!(changes_to(&guarded(&[OURS], deleting()), None), only_guard);
        // The status of another operator stays.
        assert_eq!(changes_to(&guarded(&[OURS, "family/other"], json!({})), None), only_guard);
    }

    #[test]
    fn plan_without_tenants_is_written_once() {
        let mut plan = plan(json!({}));
        let changes = changes_to(&plan, None);
        assert_eq!((changes.guard, shown(&changes, READY).unwrap().0.as_str()), (None, "True"));
        plan.status = changes.status;
        assert_eq!(changes_to(&plan, None), Changes::default());
        // An operator that knows fewer limits does not write it again: both would, in turn.
        plan.spec.published = vec!["seats".into()];
        assert_eq!(changes_to(&plan, None), Changes::default());
        plan.metadata.generation = Some(3);
        assert!(changes_to(&plan, None).status.is_some());
    }

    #[test]
    fn misspelt_limit_is_reported_with_and_without_tenants() {
        let mut plan = plan(json!({}));
        plan.spec = serde_json::from_value(json!({"limits": {"usres": 5}})).unwrap();
        for adoption in [None, Some(&tenants(2, 0))] {
            let (known, reason, message) = shown(&changes_to(&plan, adoption), LIMITS_KNOWN).unwrap();
            assert_eq!((&*known, &*reason), ("False", "UnknownLimit"));
            assert!(message.contains("usres (do you mean users?)"), "{message}");
        }
        plan.spec.published = vec!["usres".into()];
        assert_eq!(shown(&changes_to(&plan, None), LIMITS_KNOWN).unwrap().0, "True");
        plan.spec.published.push("seats".into());
        let (known, _, message) = shown(&changes_to(&plan, None), LIMITS_KNOWN).unwrap();
        assert!(known == "False" && message.contains("spec.limits does not set seats"), "{message}");
    }

    #[test]
    fn unknown_module_is_reported_with_and_without_tenants() {
        let mut plan = plan(json!({}));
        plan.spec.modules = vec!["projcts".into()];
        for adoption in [None, Some(&tenants(2, 0))] {
            let (ready, reason, message) = shown(&changes_to(&plan, adoption), READY).unwrap();
            assert_eq!((&*ready, &*reason), ("False", "ModuleNotFound"));
            assert!(message.contains("\"projcts\": name some of core, projects"), "{message}");
        }
        // An operator that knows the module corrects the status once.
        plan.status = changes_to(&plan, None).status;
        assert_eq!(changes_to(&plan, None), Changes::default());
        plan.spec.modules = vec!["projects".into()];
        let status = changes_to(&plan, None).status;
        assert!(status.is_some());
        (plan.status, plan.spec.modules) = (status, vec!["projcts".into()]);
        assert_eq!(changes_to(&plan, None), Changes::default());
    }

    #[test]
    fn plan_of_other_operators_is_not_written() {
        assert_eq!(changes_to(&plan(deleting()), None), Changes::default());
        assert_eq!(changes_to(&guarded(&["family/other"], json!({})), None), Changes::default());
        assert_eq!(changes_to(&guarded(&["kubectl", "family/other"], deleting()), None), Changes::default());
    }

    #[test]
    fn finalizer_of_a_former_installation_is_abandoned_once_no_tenant_at_all_is_on_the_plan() {
        let former = |metadata: Value| guarded(&[OURS, "family/lost", "kubectl"], metadata);
        for metadata in [deleting(), json!({})] {
            let released = changes_by(true, &former(metadata.clone()), None);
            assert_eq!(
                (released.guard, &*released.abandoned),
                (Some(false), &["family/lost".to_owned()][..])
            );
            assert_eq!(changes_by(false, &former(metadata.clone()), None).abandoned, [""; 0]);
            assert_eq!(changes_by(true, &former(metadata), Some(&tenants(1, 0))).abandoned, [""; 0]);
        }
        let mut unused = guarded(&["family/lost"], json!({}));
        unused.status = changes_to(&unused, Some(&tenants(2, 2))).status;
        assert_eq!(changes_by(true, &unused, None).status.unwrap().used_by, Some(0));
    }

    #[test]
    fn deleted_plan_with_the_finalizer_of_a_manifest_is_released() {
        let released = Changes { guard: Some(false), ..Changes::default() };
        assert_eq!(changes_to(&guarded(&["velero"], deleting()), None), released);
        assert_eq!(changes_to(&guarded(&["velero"], json!({})), None).guard, None);
    }
}
