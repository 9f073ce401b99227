//! Where modules come from. The embedded ones are written in `migrations/tenant/<module>/NNNN_name.sql`.

use std::borrow::Cow;

use super::module::{Migration, Module};
use crate::domain::{
    module_schemas::{ModuleSchemas, OPTIONAL, PUBLIC},
    modules::INTERNAL,
};

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

/// An optional module that ships with Tenantry.
struct BuiltIn {
    name: &'static str,
    depends_on: &'static [&'static str],
    /// The tables of other modules that its files name, each with its module.
    foreign_tables: &'static [(&'static str, &'static str)],
    files: &'static [Migration],
}

/// The optional modules that ship with Tenantry; their files are written for the schema `public`.
const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "core",
        depends_on: &[],
        foreign_tables: &[],
        files: migrations!(
            "core": "0001_settings.sql", "0002_activity_log.sql", "0003_limits.sql", "0004_seeded_settings.sql",
        ),
    },
    BuiltIn {
        name: "identity",
        depends_on: &["core"],
        foreign_tables: &[],
        files: migrations!(
            "identity": "0001_users.sql", "0002_roles.sql", "0003_credentials.sql", "0004_meter.sql", "0005_admins.sql",
            "0006_secrets.sql",
        ),
    },
    BuiltIn {
        name: "projects",
        depends_on: &["identity"],
        foreign_tables: &[("users", "identity")],
        files: migrations!("projects": "0001_projects.sql"),
    },
];

/// The internal module, which every set begins with: what the operator itself reads and writes in a tenant's database. It
/// is in the ledger, in the registry and in a tenant's status like the others, so that it is migrated and verified like
/// them; but it is no choice: no plan names it, and there is no TenantModule of it.
pub(super) fn internal() -> Module {
    Module { schema: Cow::Borrowed(INTERNAL), ..Module::new(INTERNAL, INTERNAL_FILES) }
}

/// The modules that ship with Tenantry, in the order in which they are applied: the internal one, then the optional ones, in
/// the schemas that the installation has for them.
pub fn embedded(schemas: &ModuleSchemas) -> Vec<Module> {
    let module = |built_in: &BuiltIn| Module {
        schema: Cow::Owned(schemas.of(built_in.name).to_owned()),
        depends_on: built_in.depends_on.iter().map(|&name| name.to_owned()).collect(),
        ..Module::new(built_in.name, built_in.rendered(schemas))
    };
    std::iter::once(internal()).chain(BUILT_IN.iter().map(module)).collect()
}

impl BuiltIn {
    /// Its files, with the schemas that the installation has in the place of `public`, which they are written with: the
    /// checksums of an installation that changes none stay.
    fn rendered(&self, schemas: &ModuleSchemas) -> Cow<'static, [Migration]> {
        let module_of = |table: &str| {
            let foreign = self.foreign_tables.iter().find(|(name, _)| *name == table);
            foreign.map_or(self.name, |(_, module)| module)
        };
        let render = |file: &Migration| Migration {
            sql: Cow::Owned(in_schemas(&file.sql, |name| schemas.of(module_of(name)))),
            ..file.clone()
        };
        Cow::Owned(self.files.iter().map(render).collect())
    }
}

/// A file's text, in which each name after `public.` has the schema that is given for it. (The name of a schema is a
/// lower-case identifier, so that it can stand in quotes, and these within a string.)
fn in_schemas<'a>(sql: &str, schema_of: impl Fn(&str) -> &'a str) -> String {
    let mut parts = sql.split("public.");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name = part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        match schema_of(name) {
            PUBLIC => text.push_str(PUBLIC),
            schema => text.extend(["\"", schema, "\""]),
        }
        text.push('.');
        text.push_str(part);
    }
    text
}

/// Whether a module ships with Tenantry.
pub(super) fn is_built_in(name: &str) -> bool {
    name == INTERNAL || OPTIONAL.contains(&name)
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
    use std::{collections::BTreeSet, fs, path::Path};

    fn schemas(text: &str) -> ModuleSchemas {
        text.parse().unwrap()
    }

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
        let modules = embedded(&ModuleSchemas::default());
        let embedded: Vec<&str> = modules.iter().map(|module| module.name.as_ref()).collect();
        assert_eq!(embedded, [&[INTERNAL], &OPTIONAL[..]].concat());
        assert_eq!(names(&folder).len(), embedded.len());
        for module in &modules {
            let files: Vec<&str> =
                module.migrations.iter().map(|migration| migration.file.as_ref()).collect();
            assert_eq!(names(&folder.join(module.name.as_ref())), files);
            let versions: Vec<i32> = module.migrations.iter().map(|migration| migration.version).collect();
            assert_eq!(versions, (1..=module.target()).collect::<Vec<_>>(), "{}", module.name);
        }
    }

    /// Other checksums would have every database refused, and every template built again.
    #[test]
    fn files_in_public_are_those_of_the_folder_byte_for_byte() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/tenant");
        for schemas in [ModuleSchemas::default(), schemas("identity=public,projects=public,core=public")] {
            for module in embedded(&schemas) {
                for file in module.migrations.iter() {
                    let path = folder.join(module.name.as_ref()).join(file.file.as_ref());
                    assert_eq!(fs::read(path).unwrap(), file.sql.as_bytes(), "{}", file.file);
                }
            }
        }
    }

    #[test]
    fn files_have_the_schema_of_their_module_and_of_the_tables_that_they_refer_to() {
        let of = |schemas: &ModuleSchemas, module: usize| embedded(schemas).swap_remove(module);
        let all = schemas("core=app_core,identity=app_identity,projects=app_projects");
        for (module, schema) in [(1, "app_core"), (2, "app_identity"), (3, "app_projects")] {
            let module = of(&all, module);
            assert_eq!(module.schema, schema);
            for file in module.migrations.iter() {
                assert!(!file.sql.contains("public."), "{}", file.file);
            }
        }
        assert!(of(&all, 1).migrations[3].sql.contains("tenantry.on_demo('\"app_core\".core_demo')"));
        let projects = |schemas: &ModuleSchemas| of(schemas, 3).migrations[0].sql.clone();
        let text = projects(&all);
        assert!(text.contains("CREATE TABLE \"app_projects\".projects ("), "{text}");
        assert!(text.contains("REFERENCES \"app_identity\".users ON"), "{text}");
        // One that stays is another content beside identity elsewhere, and another template.
        let beside = schemas("identity=app_identity");
        let text = projects(&beside);
        assert!(text.contains("CREATE TABLE public.projects (") && text.contains("\"app_identity\".users"));
        assert_ne!(of(&beside, 3).digest(), of(&ModuleSchemas::default(), 3).digest());
        let text = projects(&schemas("projects=app"));
        assert!(text.contains("CREATE TABLE \"app\".projects (") && text.contains("public.users"), "{text}");
        assert_eq!(of(&all, 0), internal());
    }

    #[test]
    fn every_table_of_another_module_is_known_as_such() {
        let after = |sql: &str, words: &str| -> BTreeSet<String> {
            let names = sql.split(words).skip(1);
            names.filter_map(|rest| Some(rest.split([' ', '(', ';', '\'']).next()?.to_owned())).collect()
        };
        let of = |module: &BuiltIn, words: &str| -> BTreeSet<String> {
            module.files.iter().flat_map(|file| after(&file.sql, words)).collect()
        };
        for module in BUILT_IN {
            for other in BUILT_IN.iter().filter(|other| other.name != module.name) {
                let tables = of(other, "CREATE TABLE public.");
                assert!(!tables.is_empty());
                let named = of(module, "public.").intersection(&tables).cloned().collect::<Vec<_>>();
                let known = module.foreign_tables.iter().filter(|(_, of)| *of == other.name);
                let known: Vec<&str> = known.map(|(table, _)| *table).collect();
                assert_eq!(named, known, "{} names tables of {}", module.name, other.name);
            }
        }
    }
}
