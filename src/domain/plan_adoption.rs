//! Plan adoption: how many tenants use each plan, and how many do not have its current content in force.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    modules::{KnownModule, ModuleSelection, ModuleWishes, choose},
    record::ModuleVersion,
    usage::entitlements::entitlements_of_plan,
};
use crate::api::{
    conditions::{STALLED, find_condition},
    plan::TenantPlanSpec,
    tenant::{DesiredState, Tenant},
    tenant_status::{TenantState, TenantStatus},
};

/// The number of tenants whose names are kept for a message.
const NAMED: usize = 3;

/// A number of tenants, and some of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantNames {
    /// How many tenants.
    pub count: usize,
    /// The first of them, by namespace and name.
    first: BTreeSet<String>,
}

impl TenantNames {
    /// Adds a tenant.
    pub fn add(&mut self, tenant: &Tenant) {
        self.count += 1;
        let namespace = tenant.metadata.namespace.as_deref().unwrap_or_default();
        self.first.insert(format!("{namespace}/{}", tenant.metadata.name.as_deref().unwrap_or_default()));
        if self.first.len() > NAMED {
            self.first.pop_last();
        }
    }

    /// Their names; of many, some names and how many more.
    pub fn names(&self) -> String {
        let names = self.first.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.count - self.first.len() {
            0 => names,
            more => format!("{names} and {more} more"),
        }
    }
}

/// The tenants of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanAdoption {
    /// Tenants that name the plan in their spec, were granted it, or have it in force.
    pub users: TenantNames,
    /// Tenants that should have its current content in force, and do not.
    pub pending: TenantNames,
    /// Those of them that cannot get it before a person corrects something of their own: no fault of the plan.
    pub stalled: TenantNames,
}

/// Counts the tenants of every plan that has any, including plans that do not exist. `modules` are the known modules. A
/// tenant that `waits` for a reconcile since its plan changed may lack what its status does not show.
pub fn adoption_by_plan<'a>(
    tenants: impl IntoIterator<Item = &'a Tenant>,
    plans: &BTreeMap<String, &TenantPlanSpec>,
    modules: &[KnownModule],
    waits: impl Fn(&Tenant) -> bool,
) -> BTreeMap<String, PlanAdoption> {
    let mut by_plan: BTreeMap<String, PlanAdoption> = BTreeMap::new();
    let none = TenantStatus::default();
    for tenant in tenants {
        let status = tenant.status.as_ref().unwrap_or(&none);
        let wanted = wanted(tenant, status, plans);
        let named = [Some(&tenant.spec.plan), status.plan.as_ref(), status.granted_plan.as_ref()];
        for plan in BTreeSet::from_iter(named).into_iter().flatten() {
            let adoption = by_plan.entry(plan.clone()).or_default();
            adoption.users.add(tenant);
            let has = || {
                plans.get(plan).is_none_or(|spec| has(tenant, status, plan, spec, modules) && !waits(tenant))
            };
            if plan == wanted && !rests(tenant, status) && !has() {
                adoption.pending.add(tenant);
                if !waits(tenant) && is_stalled(tenant, status, plan, plans, modules) {
                    adoption.stalled.add(tenant);
                }
            }
        }
    }
    by_plan
}

/// The plan that a tenant should have: the one in its spec, the one that was granted instead, or the one that follows its trial.
fn wanted<'a>(
    tenant: &'a Tenant,
    status: &'a TenantStatus,
    plans: &BTreeMap<String, &TenantPlanSpec>,
) -> &'a str {
    let named = status.granted_plan.as_ref().unwrap_or(&tenant.spec.plan);
    let follows = plans.get(named).and_then(|plan| plan.trial_end.as_ref()?.plan.as_ref());
    match &status.plan {
        Some(in_force) if status.trial_ends_at.is_some() && Some(in_force) == follows => in_force,
        _ => named,
    }
}

/// Whether the current content of a plan is in force for a tenant.
fn has(
    tenant: &Tenant,
    status: &TenantStatus,
    name: &str,
    plan: &TenantPlanSpec,
    modules: &[KnownModule],
) -> bool {
    let selection = selection(tenant, status, name, plan, modules);
    let is_applied = |name: &str| {
        status.modules.iter().any(|module| module.name == name && module.version >= module.target)
    };
    status.plan.as_deref() == Some(name)
        && entitlements_of_plan(name, plan, &tenant.spec.limits).is_ok_and(|resolved| {
            resolved.features == status.features && resolved.limit_values() == status.limits
        })
        // An unknown module prevents the plan from being applied; the conditions of each tenant report it.
        && selection.error.is_none()
        && selection.modules.iter().all(|module| is_applied(&module.name))
}

/// The modules that a tenant on a plan should have.
fn selection(
    tenant: &Tenant,
    status: &TenantStatus,
    name: &str,
    plan: &TenantPlanSpec,
    modules: &[KnownModule],
) -> ModuleSelection {
    let has = status.modules.iter().filter(|module| module.version > 0).map(|module| ModuleVersion {
        name: module.name.clone(),
        version: i32::try_from(module.version).unwrap_or(i32::MAX),
    });
    let wishes = ModuleWishes { tenant: &tenant.spec.modules, plan: name, of_plan: &plan.modules };
    choose(wishes, &has.collect::<Vec<_>>(), modules)
}

/// Whether a tenant is stalled although the plan could be applied to it.
fn is_stalled(
    tenant: &Tenant,
    status: &TenantStatus,
    name: &str,
    plans: &BTreeMap<String, &TenantPlanSpec>,
    modules: &[KnownModule],
) -> bool {
    let applies = plans.get(name).is_some_and(|plan| {
        entitlements_of_plan(name, plan, &tenant.spec.limits).is_ok()
            && selection(tenant, status, name, plan, modules).error.is_none()
    });
    applies
        && status.observed_generation == tenant.metadata.generation
        && find_condition(&status.conditions, STALLED).is_some()
}

/// Whether changes of its plan or its server are not applied to a tenant: it is paused, or being deprovisioned.
pub fn rests(tenant: &Tenant, status: &TenantStatus) -> bool {
    tenant.spec.paused == Some(true)
        || tenant.metadata.deletion_timestamp.is_some()
        || tenant.spec.state == Some(DesiredState::Deprovisioned)
        || matches!(status.state, Some(TenantState::Deprovisioning | TenantState::Deprovisioned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::modules::{ModuleKind, Offer};
    use serde_json::{Value, json};

    fn plans() -> BTreeMap<String, TenantPlanSpec> {
        let plan = |spec| serde_json::from_value(spec).unwrap();
        [
            ("free", plan(json!({"limits": {"users": 5}}))),
            ("gold", plan(json!({"limits": {"users": "unlimited", "storageBytes": "custom"}, "features": ["sso", "scim"]}))),
            ("trial", plan(json!({"trialDays": 14, "trialEnd": {"action": "ChangePlan", "plan": "free"}}))),
        ]
        .map(|(name, spec)| (name.to_owned(), spec))
        .into()
    }

    /// A tenant on a plan also has the limits that no plan here names.
    fn tenant(name: &str, spec: Value, mut status: Value) -> Tenant {
        if status["plan"].is_string() {
            status["limits"]["connections"] = json!(50);
            status["limits"]["tempFileBytes"] = json!(1 << 30);
        }
        let mut all = json!({"slug": name, "displayName": name, "plan": "free"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": name, "namespace": "customers"}, "spec": all, "status": status,
        }))
        .unwrap()
    }

    /// The number of tenants of each plan, and of pending ones.
    fn counts(tenants: &[Tenant]) -> Vec<(String, usize, usize)> {
        counts_of(tenants, &plans(), &[])
    }

    fn counts_of(
        tenants: &[Tenant],
        plans: &BTreeMap<String, TenantPlanSpec>,
        modules: &[KnownModule],
    ) -> Vec<(String, usize, usize)> {
        let specs = plans.iter().map(|(name, spec)| (name.clone(), spec)).collect();
        let by_plan =
            adoption_by_plan(tenants, &specs, modules, |tenant| tenant.spec.display_name == "waits")
                .into_iter();
        by_plan.map(|(plan, adoption)| (plan, adoption.users.count, adoption.pending.count)).collect()
    }

    #[track_caller]
    fn assert_counts(tenants: &[Tenant], wanted: &[(&str, usize, usize)]) {
        let wanted: Vec<_> =
            wanted.iter().map(|(plan, users, pending)| ((*plan).to_owned(), *users, *pending)).collect();
        assert_eq!(counts(tenants), wanted);
    }

    fn with_free() -> Value {
        json!({"plan": "free", "limits": {"users": 5}})
    }

    #[test]
    fn plan_is_in_force_with_its_limits_and_features() {
        let new = tenant("new", json!({}), json!({}));
        let has = tenant("has", json!({}), with_free());
        let older = tenant("older", json!({}), json!({"plan": "free", "limits": {"users": 4}}));
        let more =
            tenant("more", json!({}), json!({"plan": "free", "limits": {"users": 5}, "features": ["sso"]}));
        assert_counts(&[new, has, older, more], &[("free", 4, 3)]);
    }

    #[test]
    fn own_limits_apply_where_plan_has_custom() {
        let status = json!({"plan": "gold", "limits": {"users": "unlimited", "storageBytes": 7},
            "features": ["scim", "sso"]});
        let given = json!({"plan": "gold", "limits": {"storageBytes": 7, "users": 1}});
        assert_counts(&[tenant("given", given, status.clone())], &[("gold", 1, 0)]);
        let other = json!({"plan": "gold", "limits": {"storageBytes": 8}});
        assert_counts(&[tenant("other", other, status.clone())], &[("gold", 1, 1)]);
        // A limit that is not set prevents the plan from being applied.
        assert_counts(&[tenant("missing", json!({"plan": "gold"}), status)], &[("gold", 1, 1)]);
    }

    #[test]
    fn granted_plan_is_wanted_instead_of_the_one_in_the_spec() {
        let mut status = with_free();
        status["grantedPlan"] = json!("free");
        let granted = tenant("granted", json!({"plan": "gold"}), status);
        assert_counts(&[granted], &[("free", 1, 0), ("gold", 1, 0)]);
        // Suspended, paused, or behind an error, it does not have it yet: it uses it nevertheless.
        let mut status = with_free();
        status["grantedPlan"] = json!("gold");
        let waits = tenant("waits", json!({"paused": true}), status);
        assert_counts(&[waits], &[("free", 1, 0), ("gold", 1, 0)]);
    }

    #[test]
    fn tenant_not_reconciled_since_plan_change_is_pending() {
        let waits = tenant("waits", json!({"displayName": "waits"}), with_free());
        assert_counts(&[waits, tenant("has", json!({}), with_free())], &[("free", 2, 1)]);
    }

    #[test]
    fn plan_is_in_force_once_its_modules_are_applied() {
        let modules = ["core", "wiki"].map(|name| KnownModule {
            minimum_versions: BTreeMap::new(),
            name: name.to_owned(),
            depends_on: vec![],
            is_default: true,
            kind: ModuleKind::Files,
            offer: Offer::Ready { target: 1 },
        });
        let status = |modules: &[(&str, i64)]| {
            let modules: Vec<Value> = modules
                .iter()
                .map(|(name, version)| json!({"name": name, "version": version, "target": 1}))
                .collect();
            json!({"plan": "free", "modules": modules})
        };
        let tenants = [
            tenant("has", json!({}), status(&[("core", 1), ("wiki", 1)])),
            tenant("behind", json!({}), status(&[("core", 1), ("wiki", 0)])),
            tenant("without", json!({}), status(&[("core", 1)])),
        ];
        let pending = |named: Value| {
            let plan = serde_json::from_value(json!({"modules": named})).unwrap();
            counts_of(&tenants, &BTreeMap::from([("free".to_owned(), plan)]), &modules)[0].2
        };
        assert_eq!([pending(json!([])), pending(json!(["core"])), pending(json!(["wiki"]))], [2, 0, 2]);
        // No tenant has an unknown module.
        assert_eq!(pending(json!(["core", "wikis"])), 3);
    }

    #[test]
    fn tenant_changing_plan_uses_both_and_is_pending_for_new() {
        let moving = tenant("moving", json!({"plan": "gold", "limits": {"storageBytes": 1}}), with_free());
        assert_counts(&[moving], &[("free", 1, 0), ("gold", 1, 1)]);
        // The content of a plan that does not exist is unknown; its tenants report that themselves.
        let lost = tenant("lost", json!({"plan": "none"}), with_free());
        assert_counts(&[lost], &[("free", 1, 0), ("none", 1, 0)]);
    }

    #[test]
    fn ended_trial_leaves_tenant_on_following_plan() {
        let mut status = with_free();
        status["trialEndsAt"] = json!("2026-11-21T00:00:00Z");
        let ended = |status| tenant("ended", json!({"plan": "trial"}), status);
        assert_counts(&[ended(status.clone())], &[("free", 1, 0), ("trial", 1, 0)]);
        status["limits"]["users"] = json!(4);
        assert_counts(&[ended(status)], &[("free", 1, 1), ("trial", 1, 0)]);
    }

    #[test]
    fn paused_and_deprovisioning_tenants_are_not_pending() {
        let paused = tenant("paused", json!({"paused": true}), json!({}));
        let leaves = tenant("leaves", json!({"state": "Deprovisioned"}), json!({}));
        let left = tenant("left", json!({}), json!({"state": "Deprovisioned"}));
        let mut deleted = tenant("deleted", json!({}), json!({}));
        deleted.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-11-21T00:00:00Z")).unwrap());
        assert_counts(&[paused, leaves, left, deleted], &[("free", 4, 0)]);
    }

    #[test]
    fn stalled_tenant_is_counted_apart_unless_the_plan_is_the_cause() {
        let stalled = |plan: &str| {
            let condition = json!({"type": "Stalled", "status": "True", "reason": "DatabaseMissing", "message": "",
                "lastTransitionTime": "2026-11-21T00:00:00Z"});
            tenant("broken", json!({"plan": plan}), json!({"conditions": [condition]}))
        };
        let of = |tenant: Tenant, plan: &str, waits: bool| {
            let specs = plans();
            let plans: BTreeMap<_, _> = specs.iter().map(|(name, spec)| (name.clone(), spec)).collect();
            let found = adoption_by_plan(&[tenant], &plans, &[], |_| waits).remove(plan).unwrap();
            (found.pending.count, found.stalled.count)
        };
        assert_eq!(of(stalled("free"), "free", false), (1, 1));
        assert_eq!(of(stalled("free"), "free", true), (1, 0));
        assert_eq!(of(tenant("new", json!({}), json!({})), "free", false), (1, 0));
        // Its plan leaves a limit to the tenant: all its tenants lack that.
        assert_eq!(of(stalled("gold"), "gold", false), (1, 0));
    }

    #[test]
    fn some_tenants_are_named_and_the_others_counted() {
        let mut tenants = TenantNames::default();
        for name in ["d", "b", "c"] {
            tenants.add(&tenant(name, json!({}), json!({})));
        }
        assert_eq!(tenants.names(), "customers/b, customers/c, customers/d");
        tenants.add(&tenant("a", json!({}), json!({})));
        assert_eq!(tenants.names(), "customers/a, customers/b, customers/c and 1 more");
    }
}
