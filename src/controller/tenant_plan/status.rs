//! What a TenantPlan is told of itself, and whether it may go. Pure: the plan, its tenants, and the time.
//!
//! Several operators may share a cluster, with a registry each, and a plan may have tenants of more than one of them. Each
//! puts the finalizer under a field manager of its own, so that it stays until the last of them has taken it back. The
//! status is that of the operator that wrote last.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    api::{
        FINALIZER,
        conditions::{
            ConditionStatus, READY, RECONCILING, condition, reason, remove_condition, same_ignoring_times,
            set_condition,
        },
        plan::{TenantPlan, TenantPlanStatus},
    },
    domain::uptake::Uptake,
};

/// What is to be written to a plan.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// Whether the finalizer is to be put, or taken back.
    pub guard: Option<bool>,
    /// The status.
    pub status: Option<TenantPlanStatus>,
}

/// What is to be written to a plan with these tenants by an operator that puts finalizers as `manager`; `family` is what
/// the managers of all operators begin with. A plan that has none of its tenants, and had none, is left alone.
pub fn changes(
    plan: &TenantPlan,
    uptake: Option<&Uptake>,
    manager: &str,
    family: &str,
    now: Timestamp,
) -> Changes {
    let before = plan.status.clone().unwrap_or_default();
    let guards = guards(plan, |name| name == manager);
    let Some(uptake) = uptake else {
        if !guards {
            return Changes::default();
        }
        let others = self::guards(plan, |name| name != manager && name.starts_with(family));
        // No condition is left behind that nobody would keep up to date.
        let unused = TenantPlanStatus { used_by: Some(0), ..TenantPlanStatus::default() };
        let told = plan.metadata.deletion_timestamp.is_some() || others || same(&before, &unused);
        return Changes { guard: Some(false), status: (!told).then_some(unused) };
    };
    // A finalizer that is not there cannot be put on an object that is being deleted.
    let possible = plan.metadata.deletion_timestamp.is_none() || has_finalizer(plan);
    let status = next_status(plan, &before, uptake, now);
    Changes {
        guard: (!guards && possible).then_some(true),
        status: (!same(&before, &status)).then_some(status),
    }
}

fn has_finalizer(plan: &TenantPlan) -> bool {
    plan.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Whether the finalizer is there, and one of these managers has put it.
fn guards(plan: &TenantPlan, of: impl Fn(&str) -> bool) -> bool {
    has_finalizer(plan) && plan.managed_fields().iter().any(|entry| entry.manager.as_deref().is_some_and(&of))
}

fn next_status(
    plan: &TenantPlan,
    before: &TenantPlanStatus,
    uptake: &Uptake,
    now: Timestamp,
) -> TenantPlanStatus {
    let generation = plan.metadata.generation;
    let (users, pending) = (uptake.users.count, uptake.pending.count);
    let (tenants, are, have) = if users == 1 { ("tenant", "is", "has") } else { ("tenants", "are", "have") };
    let in_use = plan.metadata.deletion_timestamp.is_some();
    let (status, reason, message) = if in_use {
        let names = uptake.users.names();
        let message = format!(
            "being deleted, and {users} {tenants} {are} on it ({names}): it stays until none is; name another plan in their spec.plan, or delete them"
        );
        (ConditionStatus::False, reason::IN_USE, message)
    } else if pending > 0 {
        let names = uptake.pending.names();
        let message = format!("{} of {users} {tenants} {have} it; not yet: {names}", users - pending);
        (ConditionStatus::False, reason::ENFORCING, message)
    } else {
        let message =
            format!("the {users} {tenants} on it {have} it, apart from those that are paused or leave");
        (ConditionStatus::True, reason::VERIFIED, message)
    };
    let mut conditions = before.conditions.clone();
    set_condition(&mut conditions, condition(READY, status, reason, message.clone(), generation, now));
    remove_condition(&mut conditions, RECONCILING);
    if pending > 0 && !in_use {
        let working = condition(RECONCILING, ConditionStatus::True, reason, message, generation, now);
        set_condition(&mut conditions, working);
    }
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
    use crate::{
        api::{conditions::find_condition, tenant::Tenant},
        domain::uptake::uptake,
    };
    use serde_json::{Value, json};

    const OURS: &str = "family/ours";

    fn plan(metadata: Value) -> TenantPlan {
        let mut all = json!({"name": "free", "uid": "u", "generation": 2});
        all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan",
            "metadata": all, "spec": {"limits": {"users": 5}}}))
        .unwrap()
    }

    /// As it is while these managers guard it.
    fn guarded(managers: &[&str], metadata: Value) -> TenantPlan {
        let entries: Vec<Value> =
            managers.iter().map(|manager| json!({"manager": manager, "operation": "Apply"})).collect();
        let mut all = json!({"finalizers": [FINALIZER], "managedFields": entries});
        all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        plan(all)
    }

    fn going() -> Value {
        json!({"deletionTimestamp": "2026-11-21T00:00:00Z"})
    }

    /// So many tenants on it, of which the first so many have it.
    fn tenants(count: usize, have: usize) -> Uptake {
        let tenant = |n| -> Tenant {
            let status = if n < have { json!({"plan": "free", "limits": {"users": 5}}) } else { json!({}) };
            serde_json::from_value(json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
                "metadata": {"name": format!("t{n}"), "namespace": "customers"},
                "spec": {"slug": "abc", "displayName": "A", "plan": "free"}, "status": status}))
            .unwrap()
        };
        let all: Vec<Tenant> = (0..count).map(tenant).collect();
        let free = plan(json!({})).spec;
        uptake(&all, &BTreeMap::from([("free".to_owned(), &free)]), &[], |_| false).remove("free").unwrap()
    }

    fn asked(plan: &TenantPlan, uptake: Option<&Uptake>) -> Changes {
        changes(plan, uptake, OURS, "family/", Timestamp::UNIX_EPOCH)
    }

    /// Status, reason and message of a condition.
    fn said(changes: &Changes, type_: &str) -> Option<(String, String, String)> {
        let found = find_condition(&changes.status.as_ref()?.conditions, type_)?.clone();
        Some((found.status, found.reason, found.message))
    }

    #[test]
    fn a_plan_that_is_used_is_guarded_and_says_how_far_it_has_come() {
        let changes = asked(&plan(json!({})), Some(&tenants(10, 6)));
        assert_eq!(changes.guard, Some(true));
        let status = changes.status.clone().unwrap();
        assert_eq!(
            (status.observed_generation, status.used_by, status.pending),
            (Some(2), Some(10), Some(4))
        );
        let (ready, reason, message) = said(&changes, READY).unwrap();
        assert_eq!((&*ready, &*reason), ("False", reason::ENFORCING));
        assert!(message.starts_with("6 of 10 tenants have it; not yet: customers/t6, "), "{message}");
        assert_eq!(said(&changes, RECONCILING).unwrap().0, "True");

        let mut told = guarded(&[OURS], json!({}));
        told.status = Some(status);
        assert_eq!(asked(&told, Some(&tenants(10, 6))), Changes::default());
        let changes = asked(&told, Some(&tenants(10, 10)));
        assert_eq!((changes.guard, said(&changes, RECONCILING)), (None, None));
        assert_eq!(said(&changes, READY).unwrap().0, "True");
    }

    #[test]
    fn a_plan_that_is_to_go_says_who_is_on_it() {
        let changes = asked(&guarded(&[OURS], going()), Some(&tenants(1, 0)));
        let (ready, reason, message) = said(&changes, READY).unwrap();
        assert_eq!((&*ready, &*reason, changes.guard), ("False", reason::IN_USE, None));
        assert!(message.contains("customers/t0") && message.contains("spec.plan"), "{message}");
        // Another's finalizer is shared; where there is none, it is too late for one.
        assert_eq!(asked(&guarded(&["family/other"], going()), Some(&tenants(1, 0))).guard, Some(true));
        assert_eq!(asked(&plan(going()), Some(&tenants(1, 0))).guard, None);
    }

    #[test]
    fn a_plan_that_nobody_uses_any_more_is_let_go() {
        let unused = TenantPlanStatus { used_by: Some(0), ..TenantPlanStatus::default() };
        let changes = asked(&guarded(&[OURS], json!({})), None);
        assert_eq!(changes, Changes { guard: Some(false), status: Some(unused) });
        let only_guard = Changes { guard: Some(false), status: None };
        assert_eq!(asked(&guarded(&[OURS], going()), None), only_guard);
        // What another operator says of its tenants stays.
        assert_eq!(asked(&guarded(&[OURS, "family/other"], json!({})), None), only_guard);
    }

    #[test]
    fn a_plan_of_others_is_left_alone() {
        assert_eq!(asked(&plan(json!({})), None), Changes::default());
        assert_eq!(asked(&plan(going()), None), Changes::default());
        assert_eq!(asked(&guarded(&["family/other"], json!({})), None), Changes::default());
        assert_eq!(asked(&guarded(&["kubectl", "family/other"], going()), None), Changes::default());
    }
}
