//! Which modules a tenant has: those that it names, else those of its plan, else those that are on by default; those that
//! they depend on; and those that it has already, since their tables hold the customer's data.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::record::ModuleVersion;
use crate::api::tenant::ModuleChoice;

/// The module with Tenantry's own tables, and its schema. Every tenant has it, whatever it or its plan names, and no
/// TenantModule has its name.
pub const INTERNAL: &str = "tenantry";

/// How a module's versions come into a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModuleKind {
    /// The operator applies its SQL files.
    #[default]
    Files,
    /// The application's own tool does, as a Job: once in the template, and once in each tenant that has an older version.
    Job,
    /// The team's own pipeline does, in each tenant, and reports it.
    External,
}

/// A module, as far as the choice needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownModule {
    /// Its name.
    pub name: String,
    /// The modules that are applied before it.
    pub depends_on: Vec<String>,
    /// The least versions of those that it needs.
    pub minimum_versions: BTreeMap<String, i32>,
    /// Whether tenants have it unless they or their plan name others.
    pub is_default: bool,
    /// How its versions come into a database.
    pub kind: ModuleKind,
    /// Whether it can be applied.
    pub offer: Offer,
}

/// Whether a module can be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Its content is accepted, up to this version.
    Ready {
        /// The version that tenants are brought to.
        target: i32,
    },
    /// Its content is not accepted.
    NotReady {
        /// Whether earlier content was.
        was_accepted: bool,
    },
}

/// What a tenant and its plan name.
#[derive(Clone, Copy, Debug)]
pub struct ModuleWishes<'a> {
    /// The tenant's own list.
    pub tenant: &'a [ModuleChoice],
    /// The plan's name, for messages.
    pub plan: &'a str,
    /// The plan's list.
    pub of_plan: &'a [String],
}

/// A module that is applied to a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenModule {
    /// Its name.
    pub name: String,
    /// The version that the tenant is brought to.
    pub version: i32,
}

/// The modules of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleSelection {
    /// Those that can be applied, in the order in which they are.
    pub modules: Vec<ChosenModule>,
    /// The first one that the tenant should have and cannot.
    pub error: Option<ModuleError>,
}

/// A module that a tenant should have and cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// No module has this name.
    #[error(
        "{place} names the unknown module {module:?}: name some of {}, apply a TenantModule of that name, or leave modules out for the default modules{}",
        known.join(", "),
        kept(*has)
    )]
    NotFound {
        /// Which list names it.
        place: String,
        /// The module.
        module: String,
        /// The modules that exist.
        known: Vec<String>,
        /// The version that the tenant has of it.
        has: Option<i32>,
    },
    /// The module's content is not accepted, and the tenant does not have it yet.
    #[error(
        "{place} names module {module:?}, which is not Ready: `kubectl describe tmod {module}` says what to correct; the tenant gets it once it is Ready"
    )]
    NotReady {
        /// Which list names it.
        place: String,
        /// The module.
        module: String,
    },
    /// The tenant's pin is a version that does not exist.
    #[error(
        "spec.modules keeps module {module:?} at version {version}, which does not exist: name one from 1 to {target}, or leave version out"
    )]
    VersionNotFound {
        /// The module.
        module: String,
        /// The version.
        version: i32,
        /// The newest version.
        target: i32,
    },
    /// A module needs a newer version of another than the tenant is kept at.
    #[error(
        "module {module:?} needs version {minimum} of module {dependency:?}, which the tenant is kept at version {version} of: raise or remove its version in spec.modules; until then, nothing new of {module:?} is applied"
    )]
    DependencyTooOld {
        /// The module.
        module: String,
        /// The other.
        dependency: String,
        /// What it needs.
        minimum: i32,
        /// What the tenant has, or is brought to.
        version: i32,
    },
    /// A name in `spec.purgeModules` that dropped nothing.
    #[error("spec.purgeModules: module {module:?} stays: {why}")]
    PurgeRefused {
        /// The module.
        module: String,
        /// Why, and what to do.
        why: String,
    },
}

fn kept(has: Option<i32>) -> String {
    has.map(|version| format!("; what the tenant has of it, version {version}, stays")).unwrap_or_default()
}

/// A module that a list names, and its pin.
struct Named<'a> {
    module: &'a str,
    place: String,
    pin: Option<i32>,
}

/// The modules that a tenant which `has` these versions should have. `known` is sorted: a module comes after those that it
/// depends on.
pub fn choose(wishes: ModuleWishes<'_>, has: &[ModuleVersion], known: &[KnownModule]) -> ModuleSelection {
    let by_name = by_name(known);
    let version_of = |name: &str| has.iter().find(|module| module.name == name).map(|module| module.version);
    let named = named(wishes, known);
    let pins: HashMap<&str, i32> =
        named.iter().filter_map(|named| Some((named.module, named.pin?))).collect();
    let wanted = wanted(wishes, has, known);
    let chosen = |module: &KnownModule| {
        let Offer::Ready { target } = module.offer else { return None };
        // A version that does not exist is reported, and changes nothing.
        let pin = pins.get(module.name.as_str()).filter(|_| module.kind == ModuleKind::Files);
        let wished = match pin {
            Some(pin) if *pin > target => 0,
            Some(pin) => *pin,
            None => target,
        };
        // No file is undone.
        let version = wished.max(version_of(&module.name).unwrap_or(0).min(target));
        let is_chosen = wanted.contains(module.name.as_str()) && version > 0;
        is_chosen.then(|| ChosenModule { name: module.name.clone(), version })
    };
    // The versions of a tool have names, and no earlier one can be had.
    let is_pinned = |name: &str| by_name.get(name).is_some_and(|module| module.kind == ModuleKind::Files);
    let error = named.iter().find_map(|named| {
        let (module, place, has) = (named.module.to_owned(), named.place.clone(), version_of(named.module));
        match by_name.get(named.module).map(|module| module.offer) {
            None => {
                let known = known.iter().map(|module| module.name.clone());
                let known = known.filter(|name| name != INTERNAL).collect();
                Some(ModuleError::NotFound { place, module, known, has })
            }
            Some(Offer::NotReady { .. }) if has.is_none() => Some(ModuleError::NotReady { place, module }),
            Some(Offer::Ready { target }) => named
                .pin
                .filter(|version| *version > target && is_pinned(&module))
                .map(|version| ModuleError::VersionNotFound { module, version, target }),
            Some(Offer::NotReady { .. }) => None,
        }
    });
    let mut modules = known.iter().filter_map(chosen).collect();
    let too_old = hold_back_too_new(&mut modules, has, known);
    ModuleSelection { modules, error: error.or(too_old) }
}

/// Keeps modules that need newer versions of others than a tenant gets, and those that depend on them, at the versions that
/// it has. Returns the first of them.
fn hold_back_too_new(
    modules: &mut Vec<ChosenModule>,
    has: &[ModuleVersion],
    known: &[KnownModule],
) -> Option<ModuleError> {
    let mut first = None;
    let mut held: BTreeSet<&str> = BTreeSet::new();
    for module in known {
        let Some(at) = modules.iter().position(|chosen| chosen.name == module.name) else { continue };
        let version = |name: &str| {
            let chosen = modules.iter().find(|chosen| chosen.name == name);
            chosen.map_or(version_of(has, name), |chosen| chosen.version)
        };
        let lacks = module.minimum_versions.iter().find(|(name, minimum)| version(name) < **minimum);
        let is_held = module.depends_on.iter().any(|name| held.contains(name.as_str()));
        if (lacks.is_none() && !is_held) || !is_module_behind(has, &modules[at]) {
            continue;
        }
        held.insert(&module.name);
        if let Some((dependency, minimum)) = lacks {
            let version = version(dependency);
            let (module, dependency, minimum) = (module.name.clone(), dependency.clone(), *minimum);
            first.get_or_insert(ModuleError::DependencyTooOld { module, dependency, minimum, version });
        }
        match version_of(has, &module.name) {
            0 => drop(modules.remove(at)),
            version => modules[at].version = version,
        }
    }
    first
}

fn by_name(known: &[KnownModule]) -> HashMap<&str, &KnownModule> {
    known.iter().map(|module| (module.name.as_str(), module)).collect()
}

/// The known modules that a tenant which `has` these should have, whether or not they can be applied.
pub fn wanted<'a>(
    wishes: ModuleWishes<'_>,
    has: &[ModuleVersion],
    known: &'a [KnownModule],
) -> BTreeSet<&'a str> {
    let by_name = by_name(known);
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    let named = named(wishes, known);
    let mut open: Vec<&str> = named.iter().map(|named| named.module).collect();
    open.push(INTERNAL);
    open.extend(has.iter().map(|module| module.name.as_str()));
    while let Some(name) = open.pop() {
        if let Some(module) = by_name.get(name)
            && wanted.insert(&module.name)
        {
            open.extend(module.depends_on.iter().map(String::as_str));
        }
    }
    wanted
}

/// The modules that the list in force names, each with that list.
pub fn places(wishes: ModuleWishes<'_>, known: &[KnownModule]) -> HashMap<String, String> {
    named(wishes, known).into_iter().map(|named| (named.module.to_owned(), named.place)).collect()
}

fn named<'a>(wishes: ModuleWishes<'a>, known: &'a [KnownModule]) -> Vec<Named<'a>> {
    if !wishes.tenant.is_empty() {
        let named = wishes.tenant.iter().map(|choice| Named {
            module: &choice.name,
            place: "spec.modules".to_owned(),
            pin: choice.version.as_ref().and_then(|version| version.parse().ok()).filter(|pin| *pin > 0),
        });
        return named.collect();
    }
    if !wishes.of_plan.is_empty() {
        let place = place_in_plan(wishes.plan);
        let named = wishes.of_plan.iter().map(|name| Named { module: name, place: place.clone(), pin: None });
        return named.collect();
    }
    // A new module is on by default once its content was accepted first: until then it delays no tenant.
    let is_on = |module: &&KnownModule| {
        module.is_default && !matches!(module.offer, Offer::NotReady { was_accepted: false })
    };
    let named = |module: &'a KnownModule| Named {
        module: &module.name,
        place: "the list of default modules".to_owned(),
        pin: None,
    };
    known.iter().filter(is_on).map(named).collect()
}

/// The first module in a plan's list that is not known.
pub fn unknown_of_plan(plan: &str, named: &[String], known: &[String]) -> Option<ModuleError> {
    let module = named.iter().find(|name| !known.contains(name))?.clone();
    Some(ModuleError::NotFound { place: place_in_plan(plan), module, known: known.to_vec(), has: None })
}

fn place_in_plan(plan: &str) -> String {
    format!("spec.modules of TenantPlan {plan:?}")
}

/// These modules, and those that they depend on, at their newest versions.
pub fn with_dependencies(names: &[String], known: &[KnownModule]) -> Vec<ChosenModule> {
    let names: Vec<ModuleVersion> =
        names.iter().map(|name| ModuleVersion { name: name.clone(), version: 0 }).collect();
    let none = [ModuleChoice { name: INTERNAL.to_owned(), version: None }];
    choose(ModuleWishes { tenant: &none, plan: "", of_plan: &[] }, &names, known).modules
}

/// Whether a tenant with these recorded versions lacks a file of a module that it should have.
pub fn is_behind(recorded: &[ModuleVersion], modules: &[ChosenModule]) -> bool {
    modules.iter().any(|module| is_module_behind(recorded, module))
}

/// Whether a tenant with these recorded versions lacks a file of this module. A module without files is applied with its
/// first one.
pub fn is_module_behind(recorded: &[ModuleVersion], module: &ChosenModule) -> bool {
    version_of(recorded, &module.name) < module.version
}

/// The recorded version of a module; 0 if it was never applied.
pub fn version_of(recorded: &[ModuleVersion], name: &str) -> i32 {
    recorded.iter().find(|module| module.name == name).map_or(0, |module| module.version)
}

/// Keeps modules whose rollout stopped, and those that depend on them, at the versions that a tenant has. `is_stopped` is
/// asked for modules of which the tenant lacks something.
pub fn hold_back(
    selection: &mut ModuleSelection,
    has: &[ModuleVersion],
    known: &[KnownModule],
    is_stopped: impl Fn(&str) -> bool,
) {
    let mut held: BTreeSet<&str> = BTreeSet::new();
    for module in known {
        let Some(at) = selection.modules.iter().position(|chosen| chosen.name == module.name) else {
            continue;
        };
        let is_held = module.depends_on.iter().any(|name| held.contains(name.as_str()));
        if is_module_behind(has, &selection.modules[at]) && (is_held || is_stopped(&module.name)) {
            held.insert(&module.name);
            match version_of(has, &module.name) {
                0 => drop(selection.modules.remove(at)),
                version => selection.modules[at].version = version,
            }
        }
    }
}

/// The recorded versions after some modules were applied: the others stay as they are.
pub fn with_applied(recorded: &[ModuleVersion], applied: &[ModuleVersion]) -> Vec<ModuleVersion> {
    let others = recorded.iter().filter(|module| !applied.iter().any(|new| new.name == module.name));
    applied.iter().chain(others).cloned().collect()
}

#[cfg(test)]
mod tests;
