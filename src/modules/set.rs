//! The modules of one tenant.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::{
    bootstrap::BOOTSTRAP,
    module::{Migration, Module},
    sources::{embedded, internal, is_built_in},
};
use crate::domain::{
    module_schemas::ModuleSchemas,
    modules::{INTERNAL, ModuleKind},
    record::ModuleVersion,
};

/// The modules of a tenant, in the order in which they are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSet {
    modules: Vec<Module>,
    digest: String,
}

impl ModuleSet {
    /// A set of the given modules, in that order. The internal module is always the first.
    pub fn new(mut modules: Vec<Module>) -> Self {
        if modules.first().is_none_or(|module| module.name != INTERNAL) {
            modules.insert(0, internal());
        }
        let digest = digest(modules.iter().map(Module::fingerprint));
        Self { modules, digest }
    }

    /// Every module that ships with Tenantry, in `public`: all are on by default.
    pub fn built_in() -> Self {
        Self::new(embedded(&ModuleSchemas::default()))
    }

    /// The modules, in order.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The digest of the whole content: 24 hexadecimal digits. The template database is named by it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The set that was applied to a database, by its ledger of module, version and checksum. None if a file was corrected after
    /// it had been applied there: what the database has is not what the files create now. (That of a built-in module is the
    /// same once all its files are applied.) None also for a database of a release without the internal module.
    pub fn applied(&self, ledger: &[(String, i32, Vec<u8>)]) -> Option<Self> {
        ledger.iter().find(|(name, ..)| name == INTERNAL)?;
        let mut modules = Vec::new();
        for module in &self.modules {
            let of_module = |migration: &&Migration| {
                ledger.iter().any(|(name, version, _)| *name == module.name && *version == migration.version)
            };
            let applied: Vec<Migration> = module.migrations.iter().filter(of_module).cloned().collect();
            let is_corrected = is_built_in(&module.name) && applied.len() == module.migrations.len();
            let is_same = |migration: &Migration| {
                ledger.iter().any(|(name, version, checksum)| {
                    *name == module.name
                        && *version == migration.version
                        && (*checksum == migration.checksum()
                            || is_corrected && migration.is_applied_by(checksum))
                })
            };
            if !applied.iter().all(is_same) {
                return None;
            }
            if !applied.is_empty() || module.kind == ModuleKind::External {
                modules.push(Module { migrations: applied.into(), ..module.clone() });
            }
        }
        Some(Self::new(modules))
    }

    /// The first module whose migrations a tool applies, in the template too.
    pub fn job(&self) -> Option<&Module> {
        self.modules.iter().find(|module| module.kind == ModuleKind::Job)
    }

    /// The modules that need no tool: those of files that depend on no other kind, directly or through others.
    pub fn of_files(&self) -> Self {
        let mut modules: Vec<Module> = Vec::new();
        for module in &self.modules {
            let is_there = |name: &String| modules.iter().any(|module| module.name == *name);
            if module.kind == ModuleKind::Files && module.depends_on.iter().all(is_there) {
                modules.push(module.clone());
            }
        }
        Self::new(modules)
    }

    /// The names of the modules whose migrations a tool or a pipeline applies.
    pub fn of_tools(&self) -> Vec<String> {
        let is_of_tool = |module: &&Module| module.kind != ModuleKind::Files;
        self.modules.iter().filter(is_of_tool).map(|module| module.name.to_string()).collect()
    }

    /// A module of the set.
    pub fn module(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.name == name)
    }

    /// The versions that a clone of the template has: no pipeline has seen a template.
    pub fn cloned(&self) -> Vec<ModuleVersion> {
        let is_cloned = |module: &ModuleVersion| {
            self.module(&module.name).is_some_and(|module| module.kind != ModuleKind::External)
        };
        self.targets().into_iter().filter(is_cloned).collect()
    }

    /// The versions that a tenant should have.
    pub fn targets(&self) -> Vec<ModuleVersion> {
        let target =
            |module: &Module| ModuleVersion { name: module.name.to_string(), version: module.target() };
        self.modules.iter().map(target).collect()
    }
}

/// The digest of a set, from the fingerprints of its modules.
pub(super) fn digest(fingerprints: impl IntoIterator<Item: AsRef<[u8]>>) -> String {
    let mut hash = Sha256::new();
    // A template also contains the bootstrap SQL: when that changes, it is another template.
    hash.update(BOOTSTRAP.as_bytes());
    for fingerprint in fingerprints {
        hash.update(fingerprint.as_ref());
    }
    hash.finalize()[..12].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::module::{Extension, Migration};

    fn module(name: &'static str, version: i32, sql: &'static str) -> Module {
        Module::new(name, vec![Migration { version, file: "f".into(), sql: sql.into() }])
    }

    fn digest_of(modules: &[&Module]) -> String {
        ModuleSet::new(modules.iter().map(|module| (*module).clone()).collect()).digest().to_owned()
    }

    #[test]
    fn digest_follows_names_order_versions_and_text() {
        let (a, b) = (module("a", 1, "x"), module("b", 1, "y"));
        let one = digest_of(&[&a, &b]);
        assert_eq!(one, digest_of(&[&a, &b]));
        assert_eq!(one.len(), 24);
        for other in [&[&b, &a][..], &[&a], &[&a, &module("b", 2, "y")], &[&a, &module("b", 1, "z")]] {
            assert_ne!(one, digest_of(other));
        }
        let elsewhere = Module { schema: "app".into(), ..b.clone() };
        let extension = |version: Option<&str>, schema: Option<&str>| Module {
            extensions: vec![Extension {
                name: "citext".into(),
                version: version.map(Into::into),
                schema: schema.map(Into::into),
            }],
            ..b.clone()
        };
        let (any, version, schema) =
            (extension(None, None), extension(Some("1"), None), extension(None, Some("1")));
        let digests: Vec<String> =
            [&b, &elsewhere, &any, &version, &schema].map(|other| digest_of(&[&a, other])).into();
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
    }

    #[test]
    fn internal_module_is_first_and_there_once() {
        let set = ModuleSet::new(vec![module("a", 1, "x")]);
        let names: Vec<&str> = set.modules().iter().map(|module| module.name.as_ref()).collect();
        assert_eq!(names, [INTERNAL, "a"]);
        assert_eq!(ModuleSet::new(set.modules().to_vec()), set);
        assert_eq!(ModuleSet::new(vec![]).modules(), [internal()]);
    }

    #[test]
    fn modules_of_files_depend_on_no_tool() {
        let of = |name: &'static str, depends_on: &[&str], kind: ModuleKind| Module {
            depends_on: depends_on.iter().map(|name| (*name).to_owned()).collect(),
            kind,
            ..module(name, 1, "SELECT 1")
        };
        let files = ModuleKind::Files;
        let modules = vec![
            of("a", &[], files),
            of("app", &["a"], ModuleKind::Job),
            of("b", &["a"], files),
            of("c", &["app"], files),
            of("d", &["c", "a"], files),
        ];
        let set = ModuleSet::new(modules);
        assert_eq!(set.of_tools(), ["app"]);
        let left = set.of_files();
        let names: Vec<_> = left.modules().iter().map(|module| &*module.name).collect();
        assert_eq!(names, [INTERNAL, "a", "b"]);
    }

    #[test]
    fn applied_set_is_that_of_the_ledger() {
        let built_in = ModuleSet::built_in();
        let of = |module: &Module| {
            module
                .migrations
                .iter()
                .map(|file| (module.name.to_string(), file.version, file.checksum()))
                .collect::<Vec<_>>()
        };
        let wiki = module("wiki", 1, "-- replaces: 00\nSELECT 1");
        let set = ModuleSet::new([built_in.modules(), std::slice::from_ref(&wiki)].concat());
        let all: Vec<_> = set.modules().iter().flat_map(of).collect();
        assert_eq!(set.applied(&all).unwrap(), set);
        let without = |left: &str| all.iter().filter(|(name, ..)| name != left).cloned().collect::<Vec<_>>();
        assert_eq!(set.applied(&without("wiki")).unwrap(), built_in);
        assert_eq!(set.applied(&without(INTERNAL)), None);

        let core = &built_in.modules()[1];
        let corrected = |name: &str, checksum: Vec<u8>| {
            let mut ledger = all.clone();
            ledger.iter_mut().find(|(of, ..)| of == name).unwrap().2 = checksum;
            ledger
        };
        let earlier =
            core.migrations[0].sql.lines().find_map(|line| line.strip_prefix("-- replaces: ")).unwrap();
        let earlier: Vec<u8> = (0..earlier.len())
            .step_by(2)
            .map(|index| u8::from_str_radix(&earlier[index..index + 2], 16).unwrap())
            .collect();
        let ledger = corrected("core", earlier);
        assert_eq!(set.applied(&ledger).unwrap(), set);
        let behind: Vec<_> =
            ledger.into_iter().filter(|(name, version, _)| name != "core" || *version != 4).collect();
        assert_eq!(set.applied(&behind), None);
        assert_eq!(set.applied(&corrected("wiki", vec![0])), None);
    }

    /// Templates on servers are named by it: another digest would have every template built again.
    #[test]
    fn digest_of_a_known_set_is_stable() {
        let fingerprints = [module("a", 1, "x"), module("b", 1, "y")].map(|module| module.fingerprint());
        assert_eq!(digest(fingerprints), "c8e28c9b8aeb51a1801af5da");
    }
}
