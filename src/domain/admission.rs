//! What a request to the API server is answered, by what the registry and the cluster know: refused, allowed, or allowed with a
//! warning. What cannot be known now is allowed: the reconcile decides, and reports it.

use super::{
    record::TenantRecord,
    slug::Slug,
    slug_owner::describe_owner,
    usage::limit_names::{UnknownLimit, unknown_limits},
};
use crate::api::plan::TenantPlanSpec;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmissionDecision {
    /// Allowed.
    Allowed,
    /// Allowed, with a warning that kubectl shows.
    Warned(String),
    /// Refused, with an HTTP status and a reason in the words of the API server.
    Refused {
        /// The status.
        code: u16,
        /// The reason.
        reason: &'static str,
        /// Why, and what to do.
        message: String,
    },
}

/// A module, as far as its TenantModule shows what it meters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeteringModule {
    /// Its name.
    pub name: String,
    /// The limits that it meters; none: not known, because its content is not accepted yet or a tool applies it.
    pub limits: Option<Vec<String>>,
}

/// A Tenant of this namespace and name that wants a slug, which this row has. The former tenant of the same name is taken up
/// again by it.
pub fn of_slug(
    wanted: &Slug,
    owner: Option<&TenantRecord>,
    namespace: &str,
    name: &str,
) -> AdmissionDecision {
    let other = owner.filter(|row| (&*row.resource_namespace, &*row.resource_name) != (namespace, name));
    other.map_or(AdmissionDecision::Allowed, |row| AdmissionDecision::Refused {
        code: 409,
        reason: "AlreadyExists",
        message: describe_owner(row, wanted),
    })
}

/// A TenantHold on a Tenant of its namespace.
pub fn of_hold(tenant: &str, exists: bool) -> AdmissionDecision {
    match exists {
        true => AdmissionDecision::Allowed,
        false => AdmissionDecision::Warned(format!(
            "there is no Tenant {tenant:?} in this namespace: the hold restricts nothing until there is one"
        )),
    }
}

/// A plan with limits, and as it was. Only what is new is refused: a name that was there before does not keep other changes
/// from being made. So is a name only where it is certain that no module of the plan meters it: in Git, the plan may be
/// applied before its module.
pub fn of_plan(
    plan: &TenantPlanSpec,
    before: Option<&TenantPlanSpec>,
    modules: &[MeteringModule],
) -> AdmissionDecision {
    let is_named = |module: &&MeteringModule| plan.modules.is_empty() || plan.modules.contains(&module.name);
    let missing = plan.modules.iter().any(|name| modules.iter().all(|module| module.name != *name));
    let is_uncertain = modules.iter().filter(is_named).any(|module| module.limits.is_none());
    if modules.is_empty() || missing || is_uncertain {
        return AdmissionDecision::Allowed;
    }
    let mut metered: Vec<String> =
        modules.iter().flat_map(|module| module.limits.clone().unwrap_or_default()).collect();
    metered.sort_unstable();
    let was_there = |limit: &UnknownLimit| {
        before.is_some_and(|before| {
            before.limits.contains_key(&limit.name) && !before.published.contains(&limit.name)
        })
    };
    let mut unknown = unknown_limits(plan, &metered);
    unknown.retain(|limit| !was_there(limit));
    if unknown.is_empty() {
        return AdmissionDecision::Allowed;
    }
    let described: Vec<String> = unknown.iter().map(UnknownLimit::describe).collect();
    AdmissionDecision::Refused {
        code: 422,
        reason: "Invalid",
        message: format!(
            "spec.limits: nothing enforces {}: correct the name, list it in spec.published if the application enforces it, or apply the module that meters it first. The modules meter {}; Tenantry enforces connections, storageBytes and tempFileBytes",
            described.join(", "),
            if metered.is_empty() { "none".to_owned() } else { metered.join(", ") },
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::observed::RegistryStatus;

    #[test]
    fn slug_of_another_tenant_is_refused_and_of_the_same_name_is_not() {
        let row = TenantRecord::example(RegistryStatus::Active);
        let acme = Slug::parse("acme").unwrap();
        assert_eq!(of_slug(&acme, None, "customers", "acme"), AdmissionDecision::Allowed);
        assert_eq!(of_slug(&acme, Some(&row), "customers", "acme"), AdmissionDecision::Allowed);
        for (namespace, name) in [("customers", "other"), ("others", "acme")] {
            let AdmissionDecision::Refused { code, reason, message } =
                of_slug(&acme, Some(&row), namespace, name)
            else {
                panic!("{namespace}/{name}")
            };
            assert_eq!((code, reason), (409, "AlreadyExists"));
            assert!(message.contains("slug \"acme\" is taken by Tenant customers/acme"), "{message}");
        }
    }

    #[test]
    fn hold_for_no_tenant_is_warned_of() {
        assert_eq!(of_hold("acme", true), AdmissionDecision::Allowed);
        assert!(
            matches!(of_hold("acme", false), AdmissionDecision::Warned(text) if text.contains("no Tenant \"acme\""))
        );
    }

    fn plan(spec: serde_json::Value) -> TenantPlanSpec {
        serde_json::from_value(spec).unwrap()
    }

    fn module(name: &str, limits: Option<&[&str]>) -> MeteringModule {
        let limits = limits.map(|limits| limits.iter().map(|limit| (*limit).to_owned()).collect());
        MeteringModule { name: name.to_owned(), limits }
    }

    #[test]
    fn limit_that_nothing_meters_is_refused_with_a_hint() {
        let modules = [module("core", Some(&["users"])), module("projects", Some(&["projects"]))];
        let wrong = plan(json!({"limits": {"usres": 5, "connections": 3, "projects": 1}}));
        let AdmissionDecision::Refused { code: 422, reason: "Invalid", message } =
            of_plan(&wrong, None, &modules)
        else {
            panic!("allowed")
        };
        for part in ["usres (do you mean users?)", "The modules meter projects, users;", "spec.published"] {
            assert!(message.contains(part), "{message}");
        }
        let published = plan(json!({"limits": {"usres": 5}, "published": ["usres"]}));
        assert_eq!(of_plan(&published, None, &modules), AdmissionDecision::Allowed);
    }

    #[test]
    fn what_was_there_before_keeps_no_other_change_back() {
        let modules = [module("core", Some(&["users"]))];
        let before = plan(json!({"limits": {"usres": 5}}));
        let after = plan(json!({"limits": {"usres": 6, "users": 3}}));
        assert_eq!(of_plan(&after, Some(&before), &modules), AdmissionDecision::Allowed);
        let worse = plan(json!({"limits": {"usres": 6, "seats": 3}}));
        assert!(matches!(of_plan(&worse, Some(&before), &modules),
            AdmissionDecision::Refused { message, .. } if message.contains("seats") && !message.contains("usres")));
        // It is not published any more.
        let before = plan(json!({"limits": {"usres": 5}, "published": ["usres"]}));
        assert!(matches!(of_plan(&after, Some(&before), &modules), AdmissionDecision::Refused { .. }));
    }

    #[test]
    fn plan_whose_modules_are_not_all_known_is_allowed() {
        let wrong = json!({"limits": {"seats": 5}});
        let known = module("core", Some(&["users"]));
        assert_eq!(of_plan(&plan(wrong.clone()), None, &[]), AdmissionDecision::Allowed);
        let pending = [known.clone(), module("shop", None)];
        assert_eq!(of_plan(&plan(wrong), None, &pending), AdmissionDecision::Allowed);
        // A module that the plan does not name may be in any state.
        let named = |modules: &[&str]| plan(json!({"limits": {"seats": 5}, "modules": modules}));
        assert!(matches!(of_plan(&named(&["core"]), None, &pending), AdmissionDecision::Refused { .. }));
        assert_eq!(of_plan(&named(&["core", "later"]), None, &[known]), AdmissionDecision::Allowed);
    }
}
