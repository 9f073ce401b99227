//! The order in which modules are applied: each after those that it depends on.

use std::collections::BTreeMap;

use super::module_refusal::ModuleRefusal;

/// A module and its dependencies that exist.
pub type Dependencies = BTreeMap<String, Vec<String>>;

/// The modules in the order in which they are applied, by name where dependencies leave it open, and those that have no
/// place in it because they depend on a module that does not exist, or on themselves. `built_in` modules come first.
pub fn sort(modules: &Dependencies, built_in: &[String]) -> (Vec<String>, BTreeMap<String, ModuleRefusal>) {
    let mut refused = BTreeMap::new();
    for (name, dependencies) in modules {
        let missing =
            dependencies.iter().find(|name| !modules.contains_key(*name) && !built_in.contains(name));
        if let Some(dependency) = missing {
            let known =
                built_in.iter().chain(modules.keys()).filter(|other| *other != name).cloned().collect();
            let refusal = ModuleRefusal::DependencyNotFound { dependency: dependency.clone(), known };
            refused.insert(name.clone(), refusal);
        } else if let Some(path) = cycle(name, modules) {
            refused.insert(name.clone(), ModuleRefusal::Cycle { path });
        }
    }
    let mut sorted: Vec<String> = Vec::new();
    let mut open: Vec<&String> = modules.keys().filter(|name| !refused.contains_key(*name)).collect();
    loop {
        let is_next = |name: &&String| {
            // One that is refused is not waited for: what depends on it is not Ready.
            let waits = |dependency: &String| open.contains(&dependency) && *dependency != **name;
            !modules[*name].iter().any(waits)
        };
        let Some(at) = open.iter().position(is_next) else { break };
        sorted.push(open.remove(at).clone());
    }
    (sorted, refused)
}

/// The way from a module to itself, if it depends on itself.
fn cycle(start: &String, modules: &Dependencies) -> Option<Vec<String>> {
    let mut open = vec![vec![start.clone()]];
    let mut seen: Vec<&String> = Vec::new();
    while let Some(path) = open.pop() {
        let last = path.last()?;
        for dependency in modules.get(last).into_iter().flatten() {
            let longer: Vec<String> = path.iter().chain([dependency]).cloned().collect();
            if dependency == start {
                return Some(longer);
            }
            if !seen.contains(&dependency) {
                seen.push(dependency);
                open.push(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(modules: &[(&str, &[&str])]) -> (Vec<String>, BTreeMap<String, ModuleRefusal>) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let modules = modules.iter().map(|(name, on)| ((*name).to_owned(), list(on))).collect();
        sort(&modules, &["core".to_owned()])
    }

    #[test]
    fn modules_come_after_their_dependencies() {
        let (order, refused) = sorted(&[("a", &["z", "core"]), ("b", &[]), ("z", &["b"])]);
        assert_eq!((order, refused.len()), (vec!["b".to_owned(), "z".into(), "a".into()], 0));
    }

    #[test]
    fn cycles_and_missing_dependencies_are_refused() {
        let (order, refused) =
            sorted(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &["x"]), ("e", &["e"])]);
        assert_eq!(order, ["a"], "it waits for b, which is refused");
        assert_eq!(refused.keys().collect::<Vec<_>>(), ["b", "c", "d", "e"]);
        assert!(refused["b"].to_string().contains("b depends on c depends on b: remove"), "{}", refused["b"]);
        assert!(refused["d"].to_string().contains("no module \"x\""));
        assert!(refused["d"].to_string().ends_with("core, a, b, c, e"), "{}", refused["d"]);
        assert!(refused["e"].to_string().contains("e depends on e"));
    }
}
