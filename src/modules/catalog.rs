//! The modules that are known, and the sets that tenants have of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    module::Module,
    set::{self, ModuleSet},
    sources::INTERNAL,
};

/// The known modules. A set is looked up by the digest of its whole content, never by names: a module whose content
/// changed is in another set.
#[derive(Debug)]
pub struct ModuleCatalog {
    all: Arc<ModuleSet>,
    entries: Vec<CatalogEntry>,
    names: Vec<String>,
    metered_limits: Vec<String>,
    sets: Mutex<HashMap<String, Arc<ModuleSet>>>,
}

/// A module and its fingerprint, which is computed once.
#[derive(Debug)]
struct CatalogEntry {
    module: Module,
    fingerprint: Vec<u8>,
}

impl CatalogEntry {
    fn new(module: Module) -> Self {
        let fingerprint = module.fingerprint();
        Self { module, fingerprint }
    }
}

impl ModuleCatalog {
    /// A catalog of the given modules, in the order in which they are applied.
    pub fn new(modules: Vec<Module>) -> Self {
        let names = modules.iter().map(|module| module.name.to_string());
        let names = names.filter(|name| name != INTERNAL).collect();
        let metered_limits = modules.iter().flat_map(Module::metered_limits).collect();
        let all = Arc::new(ModuleSet::new(modules.clone()));
        Self {
            all,
            entries: modules.into_iter().map(CatalogEntry::new).collect(),
            names,
            metered_limits,
            sets: Mutex::default(),
        }
    }

    /// The set of all modules.
    pub fn all(&self) -> &ModuleSet {
        &self.all
    }

    /// The names of all modules, in order, without the internal one, which is no choice.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The names of the limits that a module meters.
    pub fn metered_limits(&self) -> &[String] {
        &self.metered_limits
    }

    /// The set of the modules that are wanted, in order. The internal one always is.
    pub fn select(&self, is_wanted: impl Fn(&str) -> bool) -> Arc<ModuleSet> {
        self.set_of(
            self.entries
                .iter()
                .filter(|entry| entry.module.name == INTERNAL || is_wanted(&entry.module.name))
                .collect(),
        )
    }

    fn set_of(&self, entries: Vec<&CatalogEntry>) -> Arc<ModuleSet> {
        let digest = set::digest(entries.iter().map(|entry| &entry.fingerprint));
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || ModuleSet::new(entries.iter().map(|entry| entry.module.clone()).collect());
        sets.entry(digest).or_insert_with(|| Arc::new(new())).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::{module::Migration, sources::embedded};

    #[test]
    fn select_keeps_the_order_and_returns_one_set_per_content() {
        let catalog = ModuleCatalog::new(embedded());
        assert_eq!(catalog.names(), ["core", "identity", "projects"]);
        assert_eq!(catalog.metered_limits(), ["users", "projects"]);
        let all = catalog.select(|_| true);
        assert_eq!((&*all, all.digest()), (catalog.all(), ModuleSet::built_in().digest()));
        let part = catalog.select(|name| name != "identity");
        let names: Vec<&str> = part.modules().iter().map(|module| module.name.as_ref()).collect();
        assert_eq!(names, ["tenantry", "core", "projects"]);
        assert!(Arc::ptr_eq(&part, &catalog.select(|name| name != "identity")));
    }

    #[test]
    fn changed_content_under_the_same_name_is_another_set() {
        let module = |sql: &'static str| {
            let file = Migration { version: 1, file: "0001_wiki.sql".into(), sql: sql.into() };
            CatalogEntry::new(Module::new("wiki", vec![file]))
        };
        let catalog = ModuleCatalog::new(vec![]);
        let (before, after) = (module("SELECT 1"), module("SELECT 2"));
        let first = catalog.set_of(vec![&before]);
        let second = catalog.set_of(vec![&after]);
        assert_ne!(first.digest(), second.digest());
        assert_eq!(second.modules()[1..], *std::slice::from_ref(&after.module));
        assert!(Arc::ptr_eq(&first, &catalog.set_of(vec![&before])));
    }
}
