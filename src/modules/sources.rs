//! Where modules come from. The embedded ones are written in `migrations/tenant/<module>/NNNN_name.sql`.

use std::borrow::Cow;

use super::module::{Migration, Module};
use crate::domain::modules::INTERNAL;

macro_rules! migrations {
    ($module:literal: $($file:literal),+ $(,)?) => {
        &[$(Migration {
            version: version_of($file),
            file: Cow::Borrowed($file),
            sql: Cow::Borrowed(include_str!(concat!("../../migrations/tenant/", $module, "/", $file))),
        }),+]
    };
}

/// The internal module's files. (A test compares these lists with the folder.)
const INTERNAL_FILES: &[Migration] = migrations!(
    "tenantry": "0001_settings.sql", "0002_limits.sql", "0003_admins.sql", "0004_reported_versions.sql",
);

/// The optional modules that ship with Tenantry, each with those that it depends on.
const BUILT_IN: &[(&str, &[&str], &[Migration])] = &[
    (
        "core",
        &[],
        migrations!(
            "core": "0001_settings.sql", "0002_activity_log.sql", "0003_limits.sql", "0004_seeded_settings.sql",
        ),
    ),
    (
        "identity",
        &["core"],
        migrations!(
            "identity": "0001_users.sql", "0002_roles.sql", "0003_credentials.sql", "0004_meter.sql", "0005_admins.sql",
        ),
    ),
    ("projects", &["identity"], migrations!("projects": "0001_projects.sql")),
];

/// The internal module, which every set begins with: what the operator itself reads and writes in a tenant's database. It
/// is in the ledger, in the registry and in a tenant's status like the others, so that it is migrated and verified like
/// them; but it is no choice: no plan names it, and there is no TenantModule of it.
pub(super) fn internal() -> Module {
    Module { schema: Cow::Borrowed(INTERNAL), ..Module::new(INTERNAL, INTERNAL_FILES) }
}

/// The modules that ship with Tenantry, in the order in which they are applied: the internal one, then the optional ones.
pub fn embedded() -> Vec<Module> {
    let module = |&(name, depends_on, migrations): &(&'static str, &[&str], &'static [Migration])| Module {
        depends_on: depends_on.iter().map(|&name| name.to_owned()).collect(),
        ..Module::new(name, migrations)
    };
    std::iter::once(internal()).chain(BUILT_IN.iter().map(module)).collect()
}

/// Whether a module ships with Tenantry.
pub(super) fn is_built_in(name: &str) -> bool {
    name == INTERNAL || BUILT_IN.iter().any(|(built_in, ..)| *built_in == name)
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
    fn every_migration_file_is_embedded_in_order() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/tenant");
        let names = |path: &Path| {
            let mut names: Vec<String> = fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let modules = embedded();
        let embedded: Vec<&str> = modules.iter().map(|module| module.name.as_ref()).collect();
        assert_eq!(embedded, ["tenantry", "core", "identity", "projects"]);
        assert_eq!(names(&folder).len(), embedded.len());
        for module in &modules {
            let files: Vec<&str> =
                module.migrations.iter().map(|migration| migration.file.as_ref()).collect();
            assert_eq!(names(&folder.join(module.name.as_ref())), files);
            let versions: Vec<i32> = module.migrations.iter().map(|migration| migration.version).collect();
            assert_eq!(versions, (1..=module.target()).collect::<Vec<_>>(), "{}", module.name);
        }
    }
}
