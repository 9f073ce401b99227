//! The modules that are known, and the sets that tenants have of them. Modules come and change while the process runs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::{
    module::Module,
    set::{self, ModuleSet},
};
use crate::domain::modules::{ChosenModule, INTERNAL, KnownModule, ModuleKind, ModuleWishes, Offer, choose};

/// The known modules. A set is looked up by the digest of its whole content, never by names: a module whose content
/// changed is in another set.
#[derive(Debug)]
pub struct ModuleCatalog {
    built_in: Vec<Module>,
    /// The names of the built-in modules that are on by default.
    defaults: Vec<String>,
    current: RwLock<Arc<KnownModules>>,
    sets: Mutex<HashMap<String, Arc<ModuleSet>>>,
}

/// What is said of a built-in module, apart from its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuiltInState {
    /// Whether it is on by default, if its TenantModule says so.
    pub is_default: Option<bool>,
    /// Whether it is in another schema than tenants have it in, or depends on such a module: it is not applied then.
    pub is_refused: bool,
}

/// A module from a TenantModule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedModule {
    /// Its name.
    pub name: String,
    /// The modules that are applied before it.
    pub depends_on: Vec<String>,
    /// The least versions of those that it needs.
    pub minimum_versions: BTreeMap<String, i32>,
    /// Whether it is on by default.
    pub is_default: bool,
    /// How its versions come into a database.
    pub kind: ModuleKind,
    /// Its accepted content, or whether earlier content was accepted.
    pub content: Result<Arc<Module>, bool>,
}

/// The known modules at one time, sorted: a module comes after those that it depends on.
#[derive(Debug, Default)]
pub struct KnownModules {
    list: Vec<KnownModule>,
    content: HashMap<String, Arc<Module>>,
    names: Vec<String>,
    metered_limits: Vec<String>,
    /// Modules up to a version, with their content, which is read once.
    entries: Mutex<HashMap<(String, i32), Arc<CatalogEntry>>>,
}

/// A module and its fingerprint.
#[derive(Debug)]
struct CatalogEntry {
    module: Module,
    /// Of the whole content: two versions that a pipeline brings have one template, and are two sets.
    content: Vec<u8>,
}

impl KnownModules {
    /// The modules, sorted.
    pub fn list(&self) -> &[KnownModule] {
        &self.list
    }

    /// The names of all modules, in order, without the internal one, which is no choice.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The names of the limits that a module meters.
    pub fn metered_limits(&self) -> &[String] {
        &self.metered_limits
    }

    /// The accepted content of a module.
    pub fn module(&self, name: &str) -> Option<&Arc<Module>> {
        self.content.get(name)
    }

    /// A module up to a version.
    fn entry(&self, chosen: &ChosenModule) -> Option<Arc<CatalogEntry>> {
        let module = self.content.get(&chosen.name)?;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (chosen.name.clone(), chosen.version.min(module.target()));
        let new = || {
            let module = module.up_to(chosen.version);
            let content = module.content();
            Arc::new(CatalogEntry { module, content })
        };
        Some(entries.entry(key).or_insert_with(new).clone())
    }
}

impl ModuleCatalog {
    /// A catalog of the built-in modules, in the order in which they are applied, of which some are on by default.
    pub fn new(built_in: Vec<Module>, defaults: Vec<String>) -> Self {
        let catalog = Self { built_in, defaults, current: RwLock::default(), sets: Mutex::default() };
        catalog.replace(&BTreeMap::new(), Vec::new());
        catalog
    }

    /// The modules that are known now.
    pub fn known(&self) -> Arc<KnownModules> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The built-in modules for which there is a TenantModule.
    pub fn built_in_modules(&self) -> impl Iterator<Item = &Module> {
        self.built_in.iter().filter(|module| module.name != INTERNAL)
    }

    /// Their names.
    pub fn built_in_names(&self) -> impl Iterator<Item = &str> {
        self.built_in_modules().map(|module| module.name.as_ref())
    }

    /// A built-in module.
    pub fn built_in(&self, name: &str) -> Option<&Module> {
        self.built_in.iter().find(|module| module.name == name)
    }

    /// Whether a built-in module is on by default.
    pub fn is_default(&self, name: &str) -> bool {
        self.defaults.iter().any(|default| default == name)
    }

    /// Replaces the modules from TenantModules, and what is said of built-in ones. `offered` is sorted by dependencies. A
    /// name of a built-in module is ignored there. Returns the names of the modules that are other ones than before.
    pub fn replace(
        &self,
        states: &BTreeMap<String, BuiltInState>,
        offered: Vec<OfferedModule>,
    ) -> Vec<String> {
        let mut known = KnownModules::default();
        let is_built_in = |name: &str| self.built_in(name).is_some();
        for module in &self.built_in {
            let state = states.get(module.name.as_ref()).copied().unwrap_or_default();
            let offer = match state.is_refused {
                false => Offer::Ready { target: module.target() },
                true => Offer::NotReady { was_accepted: true },
            };
            known.list.push(KnownModule {
                name: module.name.to_string(),
                depends_on: module.depends_on.clone(),
                minimum_versions: BTreeMap::new(),
                is_default: state.is_default.unwrap_or_else(|| self.is_default(&module.name)),
                kind: ModuleKind::Files,
                offer,
            });
            if !state.is_refused {
                known.content.insert(module.name.to_string(), Arc::new(module.clone()));
            }
        }
        for OfferedModule { name, depends_on, minimum_versions, is_default, kind, content } in offered {
            if is_built_in(&name) {
                continue;
            }
            let offer = match &content {
                Ok(module) => Offer::Ready { target: module.target() },
                Err(was_accepted) => Offer::NotReady { was_accepted: *was_accepted },
            };
            known.list.push(KnownModule {
                name: name.clone(),
                depends_on,
                minimum_versions,
                is_default,
                kind,
                offer,
            });
            if let Ok(module) = content {
                known.content.insert(name, module);
            }
        }
        let names = known.list.iter().map(|module| module.name.clone());
        known.names = names.filter(|name| name != INTERNAL).collect();
        known.metered_limits = known
            .names
            .iter()
            .filter_map(|name| known.content.get(name))
            .flat_map(|module| module.metered_limits())
            .collect();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = changed(&current, &known);
        if !changed.is_empty() {
            *current = Arc::new(known);
        }
        changed
    }

    /// The set of a tenant whose plan names no modules.
    pub fn default_set(&self) -> Arc<ModuleSet> {
        let wishes = ModuleWishes { tenant: &[], plan: "", of_plan: &[] };
        self.set_of(&choose(wishes, &[], self.known().list()).modules)
    }

    /// The set of these modules.
    pub fn set_of(&self, chosen: &[ChosenModule]) -> Arc<ModuleSet> {
        let known = self.known();
        let entries: Vec<Arc<CatalogEntry>> =
            chosen.iter().filter_map(|module| known.entry(module)).collect();
        let content = set::digest(entries.iter().map(|entry| &entry.content));
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || ModuleSet::new(entries.iter().map(|entry| entry.module.clone()).collect());
        sets.entry(content).or_insert_with(|| Arc::new(new())).clone()
    }
}

/// The names of the modules that differ.
fn changed(before: &KnownModules, after: &KnownModules) -> Vec<String> {
    let find = |known: &KnownModules, name: &str| {
        let found = known.list.iter().find(|module| module.name == name).cloned();
        (found, known.content.get(name).cloned())
    };
    let mut names: Vec<&String> = before.names.iter().chain(&after.names).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter(|name| find(before, name) != find(after, name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{module_schemas::ModuleSchemas, record::ModuleVersion};
    use crate::modules::{module::Migration, sources};

    fn embedded() -> Vec<Module> {
        sources::embedded(&ModuleSchemas::default())
    }

    fn catalog() -> ModuleCatalog {
        ModuleCatalog::new(embedded(), vec!["core".into(), "projects".into()])
    }

    fn all(catalog: &ModuleCatalog) -> Vec<ChosenModule> {
        let target = |offer| match offer {
            Offer::Ready { target } => target,
            Offer::NotReady { .. } => 0,
        };
        let chosen =
            |module: &KnownModule| ChosenModule { name: module.name.clone(), version: target(module.offer) };
        catalog.known().list().iter().map(chosen).collect()
    }

    fn wiki(files: &[&'static str], is_default: bool) -> OfferedModule {
        let file = |(index, sql): (usize, &&'static str)| Migration {
            version: i32::try_from(index + 1).unwrap(),
            file: format!("000{}_wiki.sql", index + 1).into(),
            sql: (*sql).into(),
        };
        let migrations: Vec<Migration> = files.iter().enumerate().map(file).collect();
        OfferedModule {
            name: "wiki".into(),
            depends_on: vec![],
            minimum_versions: BTreeMap::new(),
            is_default,
            kind: ModuleKind::Files,
            content: Ok(Arc::new(Module::new("wiki", migrations))),
        }
    }

    #[test]
    fn built_in_modules_are_known_in_order() {
        let catalog = catalog();
        assert_eq!(catalog.known().names(), ["core", "identity", "projects"]);
        assert_eq!(catalog.known().metered_limits(), ["users", "projects"]);
        let set = catalog.set_of(&all(&catalog));
        assert_eq!((set.digest(), set.modules()), (ModuleSet::built_in().digest(), &*embedded()));
        assert!(Arc::ptr_eq(&set, &catalog.set_of(&all(&catalog))));
        let on = |catalog: &ModuleCatalog| -> Vec<bool> {
            let known = catalog.known();
            known
                .list()
                .iter()
                .filter(|module| module.name != INTERNAL)
                .map(|module| module.is_default)
                .collect()
        };
        assert_eq!(on(&catalog), [true, false, true]);
        let state = BuiltInState { is_default: Some(true), is_refused: false };
        let changed = catalog.replace(&BTreeMap::from([("identity".to_owned(), state)]), vec![]);
        assert_eq!((changed, on(&catalog)), (vec!["identity".to_owned()], vec![true; 3]));
    }

    #[test]
    fn refused_built_in_module_is_not_applied() {
        let catalog = catalog();
        let refused = BuiltInState { is_default: None, is_refused: true };
        let states = ["identity", "projects"].map(|name| (name.to_owned(), refused));
        assert_eq!(catalog.replace(&states.into(), vec![]), ["identity", "projects"]);
        let known = catalog.known();
        assert_eq!(known.names(), ["core", "identity", "projects"]);
        assert!(known.module("core").is_some() && known.module("projects").is_none());
        // A new tenant waits for it, since it is on by default; one that has it keeps what it has.
        let chosen = |has: &[&str]| {
            let version = |name: &&str| ModuleVersion { name: (*name).to_owned(), version: 1 };
            let wishes = ModuleWishes { tenant: &[], plan: "", of_plan: &[] };
            let has: Vec<ModuleVersion> = has.iter().map(version).collect();
            let selection = choose(wishes, &has, known.list());
            let names = selection.modules.into_iter().map(|module| module.name).collect::<Vec<_>>();
            (names, selection.error.map(|error| error.to_string()).unwrap_or_default())
        };
        let (names, error) = chosen(&[]);
        assert_eq!(names, ["tenantry", "core"]);
        assert!(error.contains("module \"projects\", which is not Ready"), "{error}");
        assert_eq!(chosen(&["core", "identity", "projects"]), (names, String::new()));
    }

    #[test]
    fn modules_come_change_and_go() {
        let catalog = catalog();
        let none = BTreeMap::new();
        assert_eq!(catalog.replace(&none, vec![wiki(&["SELECT 1"], false)]), ["wiki"]);
        assert!(catalog.replace(&none, vec![wiki(&["SELECT 1"], false)]).is_empty());
        let before = catalog.set_of(&all(&catalog));
        assert_eq!(catalog.replace(&none, vec![wiki(&["SELECT 1", "SELECT 2"], false)]), ["wiki"]);
        let after = catalog.set_of(&all(&catalog));
        assert_ne!(before.digest(), after.digest());
        // A tenant that is kept at the first version has the set of before.
        let mut pinned = all(&catalog);
        pinned.last_mut().unwrap().version = 1;
        assert!(Arc::ptr_eq(&before, &catalog.set_of(&pinned)));
        let refused = OfferedModule { content: Err(true), ..wiki(&[], false) };
        assert_eq!(catalog.replace(&none, vec![refused]), ["wiki"]);
        assert_eq!(catalog.set_of(&all(&catalog)).modules(), embedded());
        assert_eq!(catalog.replace(&none, vec![]), ["wiki"]);
        assert_eq!(catalog.known().names(), ["core", "identity", "projects"]);
    }

    #[test]
    fn versions_of_a_pipeline_are_sets_with_one_template() {
        let (catalog, none) = (catalog(), BTreeMap::new());
        let external = |names: &[&str]| {
            let versions = (1..).zip(names).map(|(version, name)| Migration::named(version, name));
            let module =
                Module { kind: ModuleKind::External, ..Module::new("wiki", versions.collect::<Vec<_>>()) };
            OfferedModule { kind: ModuleKind::External, content: Ok(Arc::new(module)), ..wiki(&[], false) }
        };
        catalog.replace(&none, vec![external(&["a"])]);
        let first = catalog.set_of(&all(&catalog));
        catalog.replace(&none, vec![external(&["a", "b"])]);
        let second = catalog.set_of(&all(&catalog));
        assert_eq!(first.digest(), second.digest());
        assert_eq!(second.targets().last().unwrap().version, 2);
    }

    #[test]
    fn name_of_a_built_in_module_is_its_own() {
        let catalog = catalog();
        let taken = OfferedModule { name: "core".into(), ..wiki(&["SELECT 1"], true) };
        assert!(catalog.replace(&BTreeMap::new(), vec![taken]).is_empty());
    }
}
