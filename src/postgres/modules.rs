//! Modules: ordered sets of SQL migrations, applied to every tenant that enables them. The built-in ones are
//! embedded; `migrations/tenant/<module>/NNNN_name.sql` is where they are written.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::migrate::BOOTSTRAP;

/// One file of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number: versions are applied in order, and never change once applied.
    pub version: i32,
    /// The file's name, for messages.
    pub file: Cow<'static, str>,
    /// The SQL.
    pub sql: Cow<'static, str>,
}

/// A module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its files, by version.
    pub migrations: Cow<'static, [Migration]>,
}

/// A module's version in a tenant's database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModuleVersion {
    /// The module.
    pub name: String,
    /// The last version that was applied.
    pub version: i32,
}

/// The modules of a tenant, in the order in which they are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSet {
    modules: Vec<Module>,
    digest: String,
}

macro_rules! migrations {
    ($module:literal: $($file:literal),+ $(,)?) => {
        &[$(Migration {
            version: version_of($file),
            file: Cow::Borrowed($file),
            sql: Cow::Borrowed(include_str!(concat!("../../migrations/tenant/", $module, "/", $file))),
        }),+]
    };
}

/// The modules that ship with Tenantry. (A test compares this list with the folder.)
const BUILT_IN: &[(&str, &[Migration])] = &[
    ("core", migrations!("core": "0001_settings.sql", "0002_activity_log.sql", "0003_limits.sql")),
    (
        "identity",
        migrations!("identity": "0001_users.sql", "0002_roles.sql", "0003_credentials.sql", "0004_meter.sql"),
    ),
    ("projects", migrations!("projects": "0001_projects.sql")),
];

impl Module {
    /// The version that a tenant has when all files are applied.
    pub fn target(&self) -> i32 {
        self.migrations.last().map_or(0, |migration| migration.version)
    }
}

impl Migration {
    /// What the ledger remembers of the file, to see that it was not changed afterwards.
    pub fn checksum(&self) -> Vec<u8> {
        Sha256::digest(self.sql.as_bytes()).to_vec()
    }
}

impl ModuleSet {
    /// A set of the given modules, in that order.
    pub fn new(modules: Vec<Module>) -> Self {
        let mut hash = Sha256::new();
        // What a template holds besides the modules: it is another template when that changes.
        hash.update(BOOTSTRAP.as_bytes());
        for module in &modules {
            hash.update([0]);
            hash.update(module.name.as_bytes());
            for migration in module.migrations.iter() {
                hash.update([1]);
                hash.update(migration.version.to_be_bytes());
                hash.update(migration.checksum());
            }
        }
        let digest = hash.finalize()[..12].iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Self { modules, digest }
    }

    /// Every module that ships with Tenantry: all are on by default.
    pub fn built_in() -> Self {
        let module = |&(name, migrations): &(&'static str, &'static [Migration])| Module {
            name: Cow::Borrowed(name),
            migrations: Cow::Borrowed(migrations),
        };
        Self::new(BUILT_IN.iter().map(module).collect())
    }

    /// The modules, in order.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// What the set comes to: the same set has the same digest, and so the same template.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The versions that a tenant is to have.
    pub fn targets(&self) -> Vec<ModuleVersion> {
        let target =
            |module: &Module| ModuleVersion { name: module.name.to_string(), version: module.target() };
        self.modules.iter().map(target).collect()
    }
}

/// The modules that there are, and the sets of some of them that tenants have. A set is put together once: its digest
/// is over all its SQL.
#[derive(Debug)]
pub struct Modules {
    all: Arc<ModuleSet>,
    names: Vec<String>,
    parts: Mutex<HashMap<Vec<String>, Arc<ModuleSet>>>,
}

impl Modules {
    /// These modules.
    pub fn new(all: ModuleSet) -> Self {
        let names = all.modules.iter().map(|module| module.name.to_string()).collect();
        Self { all: Arc::new(all), names, parts: Mutex::default() }
    }

    /// All of them.
    pub fn all(&self) -> &ModuleSet {
        &self.all
    }

    /// Their names, in the order in which they are applied.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Those that are wanted, in that order.
    pub fn of(&self, wanted: impl Fn(&str) -> bool) -> Arc<ModuleSet> {
        let names: Vec<String> = self.names.iter().filter(|name| wanted(name)).cloned().collect();
        if names.len() == self.names.len() {
            return self.all.clone();
        }
        let chosen = |module: &&Module| names.iter().any(|name| *name == module.name);
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let part = || Arc::new(ModuleSet::new(self.all.modules.iter().filter(chosen).cloned().collect()));
        parts.entry(names.clone()).or_insert_with(part).clone()
    }
}

/// The number at the start of a file's name.
const fn version_of(file: &str) -> i32 {
    let bytes = file.as_bytes();
    let mut version = 0;
    let mut index = 0;
    while index < 4 {
        assert!(bytes[index].is_ascii_digit(), "a migration's name starts with four digits");
        version = version * 10 + (bytes[index] - b'0') as i32;
        index += 1;
    }
    assert!(version > 0 && bytes[4] == b'_', "a migration is NNNN_name.sql, from 0001");
    version
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn every_file_of_the_folder_is_embedded_in_order() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/tenant");
        let names = |path: &Path| {
            let mut names: Vec<String> = fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let set = ModuleSet::built_in();
        let embedded: Vec<&str> = set.modules().iter().map(|module| module.name.as_ref()).collect();
        assert_eq!(names(&folder), embedded);
        for module in set.modules() {
            let files: Vec<&str> =
                module.migrations.iter().map(|migration| migration.file.as_ref()).collect();
            assert_eq!(names(&folder.join(module.name.as_ref())), files);
            let versions: Vec<i32> = module.migrations.iter().map(|migration| migration.version).collect();
            assert_eq!(versions, (1..=module.target()).collect::<Vec<_>>(), "{}", module.name);
        }
    }

    #[test]
    fn the_digest_follows_names_order_versions_and_text() {
        let module = |name: &'static str, version, sql: &'static str| Module {
            name: name.into(),
            migrations: vec![Migration { version, file: "f".into(), sql: sql.into() }].into(),
        };
        let (a, b) = (module("a", 1, "x"), module("b", 1, "y"));
        let digest = |modules: &[&Module]| {
            ModuleSet::new(modules.iter().map(|module| (*module).clone()).collect()).digest().to_owned()
        };
        let one = digest(&[&a, &b]);
        assert_eq!(one, digest(&[&a, &b]));
        assert_eq!(one.len(), 24);
        for other in [&[&b, &a][..], &[&a], &[&a, &module("b", 2, "y")], &[&a, &module("b", 1, "z")]] {
            assert_ne!(one, digest(other));
        }
    }
}
