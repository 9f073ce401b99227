//! Which modules a tenant has.

/// The modules that every tenant has, whatever its plan names: the other modules depend on them.
pub const ALWAYS: [&str; 2] = ["core", "identity"];

/// A plan names an unknown module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.modules of TenantPlan {plan:?} names the unknown module {module:?}: name some of {}, or leave modules out for the default modules",
    known.join(", ")
)]
pub struct ModuleNotFound {
    /// The plan.
    pub plan: String,
    /// The module.
    pub module: String,
    /// The modules that exist.
    pub known: Vec<String>,
}

/// Checks that every module that a plan names is known.
///
/// # Errors
/// The first unknown module.
pub fn check(plan: &str, named: &[String], known: &[String]) -> Result<(), ModuleNotFound> {
    match named.iter().find(|module| !known.contains(module)) {
        None => Ok(()),
        Some(module) => {
            Err(ModuleNotFound { plan: plan.to_owned(), module: module.clone(), known: known.to_vec() })
        }
    }
}

/// Whether a module belongs to a plan that names these modules. A plan that names none has all.
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
    fn plan_without_modules_has_all_and_every_plan_has_core() {
        let all = ["core", "identity", "projects", "wiki"];
        let of = |named: &[&str]| -> Vec<&str> {
            all.into_iter().filter(|module| belongs(module, &names(named))).collect()
        };
        assert_eq!(of(&[]), all);
        assert_eq!(of(&["wiki"]), ["core", "identity", "wiki"]);
        assert_eq!(of(&["identity"]), ["core", "identity"]);
    }

    #[test]
    fn unknown_module_is_reported_with_the_known_ones() {
        let known = names(&["core", "projects"]);
        assert_eq!(check("gold", &[], &known), Ok(()));
        assert_eq!(check("gold", &names(&["projects"]), &known), Ok(()));
        let error = check("gold", &names(&["projects", "wikis"]), &known).unwrap_err();
        assert_eq!(error.module, "wikis");
        assert!(error.to_string().contains("name some of core, projects, or leave"), "{error}");
    }
}
