//! Which of a tenant's modules are applied now: those of a tool wait for it.

use std::collections::BTreeSet;

use super::{
    modules::{ChosenModule, KnownModule, ModuleKind, is_module_behind},
    record::ModuleVersion,
};

/// The modules of which the tenant lacks something that can be applied now: not those whose tool runs, or whose report is
/// awaited (`is_due` is asked for modules of a tool), nor those that depend on them. `modules` are in order.
pub fn due_modules(
    modules: &[ChosenModule],
    recorded: &[ModuleVersion],
    known: &[KnownModule],
    is_due: impl Fn(&KnownModule, &ChosenModule) -> bool,
) -> Vec<ChosenModule> {
    let mut awaited: BTreeSet<&str> = BTreeSet::new();
    let mut due = Vec::new();
    for module in modules.iter().filter(|module| is_module_behind(recorded, module)) {
        let found = known.iter().find(|known| known.name == module.name);
        let is_awaited = found.is_some_and(|known| {
            known.depends_on.iter().any(|name| awaited.contains(name.as_str()))
                || known.kind != ModuleKind::Files && !is_due(known, module)
        });
        if is_awaited {
            awaited.insert(&module.name);
        } else {
            due.push(module.clone());
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        api::tenant::ModuleChoice,
        domain::modules::{INTERNAL, ModuleWishes, Offer, choose},
    };

    fn module(name: &str, target: i32, kind: ModuleKind, depends_on: &[&str]) -> KnownModule {
        KnownModule {
            name: name.into(),
            depends_on: depends_on.iter().map(|name| (*name).to_owned()).collect(),
            is_default: false,
            minimum_versions: BTreeMap::new(),
            kind,
            offer: Offer::Ready { target },
        }
    }

    fn has(versions: &[(&str, i32)]) -> Vec<ModuleVersion> {
        versions
            .iter()
            .map(|(name, version)| ModuleVersion { name: (*name).into(), version: *version })
            .collect()
    }

    #[test]
    fn versions_of_a_tool_are_not_pinned_and_wait_for_it() {
        let (files, job) = (ModuleKind::Files, ModuleKind::Job);
        let known = [
            module(INTERNAL, 3, files, &[]),
            module("shop", 2, job, &[]),
            module("reports", 4, files, &["shop"]),
            module("wiki", 1, files, &[]),
        ];
        for version in ["1", "9"] {
            let named = [("shop", Some(version)), ("reports", None), ("wiki", None)]
                .map(|(name, version)| ModuleChoice { name: name.into(), version: version.map(Into::into) });
            let wishes = ModuleWishes { tenant: &named, plan: "gold", of_plan: &[] };
            let recorded = has(&[(INTERNAL, 3), ("shop", 1), ("reports", 3)]);
            let chosen = choose(wishes, &recorded, &known);
            assert_eq!((chosen.modules[1].version, &chosen.error), (2, &None));
            let due = |is_due: bool| {
                let due = due_modules(&chosen.modules, &recorded, &known, |module, _| {
                    assert_eq!(module.name, "shop", "only a tool is asked for");
                    is_due
                });
                due.into_iter().map(|module| module.name).collect::<Vec<_>>()
            };
            assert_eq!(due(true), ["shop", "reports", "wiki"]);
            assert_eq!(due(false), ["wiki"], "what depends on it waits too");
        }
    }
}
