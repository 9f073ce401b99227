//! Which modules a tenant has.

/// What every tenant has, whatever its plan names: the admins, and what the other modules rely on.
pub const ALWAYS: [&str; 2] = ["core", "identity"];

/// A plan names a module that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.modules of TenantPlan {plan:?}: there is no module {module:?}; name some of {}, or leave modules out for those that are on by default",
    known.join(", ")
)]
pub struct ModuleNotFound {
    /// The plan.
    pub plan: String,
    /// The module.
    pub module: String,
    /// Those that there are.
    pub known: Vec<String>,
}

/// Checks that there is each module that a plan names.
///
/// # Errors
/// The first that is not there.
pub fn check(plan: &str, named: &[String], known: &[String]) -> Result<(), ModuleNotFound> {
    match named.iter().find(|module| !known.contains(module)) {
        None => Ok(()),
        Some(module) => {
            Err(ModuleNotFound { plan: plan.to_owned(), module: module.clone(), known: known.to_vec() })
        }
    }
}

/// Whether a module belongs to a plan that names these: all do to one that names none.
pub fn belongs(module: &str, named: &[String]) -> bool {
    named.is_empty() || ALWAYS.contains(&module) || named.iter().any(|name| name == module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_plan_that_names_none_has_all_and_no_plan_is_without_what_the_others_rely_on() {
        let all = ["core", "identity", "projects", "wiki"];
        let of = |named: &[&str]| -> Vec<&str> {
            all.into_iter().filter(|module| belongs(module, &names(named))).collect()
        };
        assert_eq!(of(&[]), all);
        assert_eq!(of(&["wiki"]), ["core", "identity", "wiki"]);
        assert_eq!(of(&["identity"]), ["core", "identity"]);
    }

    #[test]
    fn a_module_that_is_not_there_is_told_with_those_that_are() {
        let known = names(&["core", "projects"]);
        assert_eq!(check("gold", &[], &known), Ok(()));
        assert_eq!(check("gold", &names(&["projects"]), &known), Ok(()));
        let error = check("gold", &names(&["projects", "wikis"]), &known).unwrap_err();
        assert_eq!(error.module, "wikis");
        assert!(error.to_string().contains("name some of core, projects, or leave"), "{error}");
    }
}
