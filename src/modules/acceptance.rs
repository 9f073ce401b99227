//! Whether a module's content may follow what was accepted before. Pure.

use std::{collections::BTreeMap, fmt::Write};

use sha2::{Digest, Sha256};

use super::{
    files::{SourceFile, number},
    module::{Migration, Module, checksum_of_named, hexadecimal},
};
use crate::domain::{
    accepted_module::{AcceptedFile, AcceptedModule},
    module_refusal::ModuleRefusal,
};

impl AcceptedModule {
    /// The names of the versions of a module whose migrations a tool applies, by number; none for one with files.
    pub fn version_names(&self) -> impl Iterator<Item = (i32, &str)> {
        let is_named = |file: &&AcceptedFile| file.checksum == checksum_of_named(&file.file);
        self.files.iter().filter(is_named).map(|file| (file.version, file.file.as_str()))
    }
}

/// The versions of a tool's module that has the version `wanted` now, after those that were accepted.
///
/// # Errors
/// An earlier version is wanted again, or files were accepted under this name.
pub fn named_versions(
    wanted: &str,
    accepted: Option<&AcceptedModule>,
) -> Result<Vec<Migration>, ModuleRefusal> {
    let before: Vec<(i32, &str)> = accepted.iter().flat_map(|accepted| accepted.version_names()).collect();
    if accepted.is_some_and(|accepted| accepted.files.len() > before.len()) {
        return Err(ModuleRefusal::SourceChanged);
    }
    let mut versions: Vec<Migration> =
        before.iter().map(|(version, name)| Migration::named(*version, name)).collect();
    match before.iter().find(|(_, name)| *name == wanted) {
        None => {
            let next = before.last().map_or(0, |(version, _)| *version) + 1;
            versions.push(Migration::named(next, wanted));
        }
        Some((version, _)) if before.last().is_some_and(|(last, _)| last > version) => {
            let accepted = before.last().map_or("", |(_, name)| name).to_owned();
            return Err(ModuleRefusal::NameWentBack { version: wanted.to_owned(), accepted });
        }
        Some(_) => {}
    }
    Ok(versions)
}

impl Module {
    /// The module with its files up to a version.
    pub fn up_to(&self, version: i32) -> Self {
        if version >= self.target() {
            return self.clone();
        }
        let files = self.migrations.iter().filter(|migration| migration.version <= version);
        Self { migrations: files.cloned().collect(), ..self.clone() }
    }

    /// The accepted content, if a source still has all its files as they were accepted, and the spec (`self`, whose files do
    /// not count) still has its schema and extensions. What else is in the source does not matter.
    pub fn as_accepted(&self, files: &[SourceFile], accepted: &AcceptedModule) -> Option<Self> {
        let migration = |before: &AcceptedFile| {
            let is_it = |file: &&SourceFile| {
                number(&file.name) == Some(before.version)
                    && Sha256::digest(&file.bytes)[..] == before.checksum[..]
            };
            let file = files.iter().find(is_it)?;
            let sql = String::from_utf8(file.bytes.clone()).ok()?;
            Some(Migration { version: before.version, file: file.name.clone().into(), sql: sql.into() })
        };
        let migrations: Option<Vec<Migration>> = accepted.files.iter().map(migration).collect();
        let module = Self { migrations: migrations?.into(), ..self.clone() };
        (module.digest() == accepted.digest).then_some(module)
    }

    /// The digest of the content: 24 hexadecimal digits.
    pub fn digest(&self) -> String {
        Sha256::digest(self.content())[..12].iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// What is recorded once the content is accepted.
    pub fn accepted(&self) -> AcceptedModule {
        let file = |migration: &Migration| AcceptedFile {
            version: migration.version,
            file: migration.file.to_string(),
            checksum: migration.checksum(),
        };
        AcceptedModule {
            name: self.name.to_string(),
            schema: self.schema.to_string(),
            version: self.target(),
            digest: self.digest(),
            files: self.migrations.iter().map(file).collect(),
            rehearsal: None,
        }
    }

    /// The module up to the version that tenants are brought to; `version` is as written in the spec.
    ///
    /// # Errors
    /// The version does not exist.
    pub fn at_target(self, version: Option<&str>) -> Result<Self, ModuleRefusal> {
        let newest = self.target();
        let Some(version) = version.filter(|version| !version.is_empty()) else { return Ok(self) };
        match version.parse() {
            Ok(number) if (1..=newest).contains(&number) => Ok(self.up_to(number)),
            Ok(_) | Err(_) => Err(ModuleRefusal::VersionNotFound { version: version.to_owned(), newest }),
        }
    }
}

/// Why modules that ship with Tenantry are not applied: tenants have one in another schema than the installation has for it
/// now, or it depends on such a module, whose tables its files name. `modules` are sorted; `accepted` has the schema on record.
pub fn refused_built_in<'a>(
    modules: impl IntoIterator<Item = &'a Module>,
    accepted: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, ModuleRefusal> {
    let mut refused = BTreeMap::new();
    for module in modules {
        let name = module.name.to_string();
        let (is_changed, schema) = match accepted(&name) {
            Some(accepted) => (accepted != module.schema, accepted),
            None => (false, String::new()),
        };
        let dependency = module.depends_on.iter().find(|name| refused.contains_key(*name)).cloned();
        let refusal = match dependency {
            _ if is_changed => ModuleRefusal::BuiltInSchemaChanged {
                module: name.clone(),
                schema: module.schema.to_string(),
                accepted: schema,
            },
            Some(dependency) => ModuleRefusal::BuiltInDependency { dependency },
            None => continue,
        };
        refused.insert(name, refusal);
    }
    refused
}

/// Checks content against what was accepted before. `newest` is the last file of the source, which may be beyond the target.
/// Returns the number of the last file that an earlier rehearsal has seen as it is.
///
/// # Errors
/// The first difference that is not allowed.
pub fn follows(module: &Module, newest: i32, accepted: &AcceptedModule) -> Result<i32, ModuleRefusal> {
    if module.schema != accepted.schema {
        let (schema, accepted) = (module.schema.to_string(), accepted.schema.clone());
        return Err(ModuleRefusal::SchemaChanged { schema, accepted });
    }
    if let Some(last) = accepted.files.last().filter(|last| newest < last.version) {
        let (accepted, file) = (last.version, last.file.clone());
        return Err(ModuleRefusal::FilesMissing { newest, accepted, file });
    }
    if module.target() < accepted.version {
        let (version, accepted) = (module.target(), accepted.version);
        return Err(ModuleRefusal::VersionWentBack { version, accepted });
    }
    let mut rehearsed = 0;
    let mut is_unchanged = true;
    for (migration, before) in module.migrations.iter().zip(&accepted.files) {
        if !migration.is_applied_by(&before.checksum) {
            let (file, accepted) = (migration.file.to_string(), hexadecimal(&before.checksum));
            return Err(ModuleRefusal::ChecksumChanged { file, accepted });
        }
        is_unchanged &= migration.checksum() == before.checksum;
        if is_unchanged {
            rehearsed = migration.version;
        }
    }
    Ok(rehearsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::modules::ModuleKind;

    fn module(files: &[&str]) -> Module {
        let file = |(index, sql): (usize, &&str)| Migration {
            version: i32::try_from(index + 1).unwrap(),
            file: format!("000{}_a.sql", index + 1).into(),
            sql: (*sql).to_owned().into(),
        };
        Module::new("wiki", files.iter().enumerate().map(file).collect::<Vec<_>>())
    }

    fn reason(module: &Module, newest: i32, accepted: &AcceptedModule) -> &'static str {
        follows(module, newest, accepted).unwrap_err().reason().as_str()
    }

    #[test]
    fn new_files_follow_and_others_do_not_change() {
        let accepted = module(&["a", "b"]).accepted();
        assert_eq!(follows(&module(&["a", "b"]), 2, &accepted), Ok(2));
        assert_eq!(follows(&module(&["a", "b", "c"]), 3, &accepted), Ok(2));
        assert_eq!(reason(&module(&["a", "B", "c"]), 3, &accepted), "ChecksumChanged");
        assert_eq!(reason(&module(&["a"]), 1, &accepted), "VersionWentBack");
        assert_eq!(reason(&module(&["a"]), 2, &accepted), "VersionWentBack", "spec.version is lower");
        let elsewhere = Module { schema: "app".into(), ..module(&["a", "b"]) };
        assert_eq!(reason(&elsewhere, 2, &accepted), "SchemaChanged");
    }

    #[test]
    fn accepted_files_are_found_beside_whatever_is_new() {
        let accepted = module(&["a", "b"]).accepted();
        let file = |name: &str, sql: &str| SourceFile {
            origin: "x".into(),
            name: name.into(),
            bytes: sql.as_bytes().to_vec(),
        };
        let kept = [file("0001_a.sql", "a"), file("0002_a.sql", "b")];
        let of = |module: &Module, new: &[SourceFile]| {
            let files: Vec<SourceFile> = kept.iter().chain(new).cloned().collect();
            module.as_accepted(&files, &accepted)
        };
        let spec = module(&[]);
        for new in [&[][..], &[file("0003_bad.sql", "x")], &[file("3.sql", "")], &[file("0002_b.sql", "y")]] {
            assert_eq!(of(&spec, new), Some(module(&["a", "b"])), "{new:?}");
        }
        assert_eq!(spec.as_accepted(&kept[..1], &accepted), None);
        let changed = [file("0001_a.sql", "A"), kept[1].clone(), file("0003_a.sql", "c")];
        assert_eq!(spec.as_accepted(&changed, &accepted), None);
        assert_eq!(of(&Module { schema: "app".into(), ..spec.clone() }, &[]), None);
        assert_eq!(of(&Module { kind: ModuleKind::Job, ..spec.clone() }, &[]), None);
    }

    #[test]
    fn built_in_module_stays_in_the_schema_that_tenants_have_it_in() {
        let refused = |schemas: &str, recorded: &[(&str, &str)]| -> Vec<String> {
            let modules = crate::modules::embedded(&schemas.parse().unwrap());
            let accepted = |name: &str| {
                recorded.iter().find(|(module, _)| *module == name).map(|(_, schema)| (*schema).to_owned())
            };
            refused_built_in(&modules, accepted)
                .into_iter()
                .map(|(name, refusal)| format!("{name} {}: {refusal}", refusal.reason().as_str()))
                .collect()
        };
        let (none, public) = ([], [("core", "public"), ("identity", "public"), ("projects", "public")]);
        assert!(refused("core=app", &none).is_empty() && refused("", &public).is_empty());
        assert!(refused("core=app", &[("core", "app"), ("identity", "public")]).is_empty());
        let [identity, projects] = &refused("identity=app", &public)[..] else { panic!() };
        assert_eq!(
            identity,
            "identity SchemaChanged: --module-schemas (moduleSchemas of the chart) has schema \"app\" for module \"identity\", \
             and tenants have it in \"public\": objects are not moved; set it back to identity=public"
        );
        assert!(
            projects.starts_with("projects DependencyNotReady: module \"identity\", which"),
            "{projects}"
        );
        let [core, ..] = &refused("", &[("core", "app")])[..] else { panic!() };
        assert!(core.ends_with("set it back to core=app"), "{core}");
        assert_eq!(refused("", &[("core", "app")]).len(), 3);
        assert_eq!(refused("projects=app", &public).len(), 1);
    }

    #[test]
    fn correction_is_rehearsed_with_what_follows() {
        let accepted = module(&["a", "b", "c"]).accepted();
        let corrected = format!("-- replaces: {}\nB", hexadecimal(&accepted.files[1].checksum));
        assert_eq!(follows(&module(&["a", &corrected, "c"]), 3, &accepted), Ok(1));
    }

    #[test]
    fn versions_of_a_tool_are_counted_and_do_not_go_back() {
        let tool = |wanted: &str, accepted: Option<&AcceptedModule>| {
            let versions = named_versions(wanted, accepted)?;
            Ok::<_, ModuleRefusal>(Module { kind: ModuleKind::Job, ..Module::new("shop", versions) })
        };
        let first = tool("2026.1", None).unwrap();
        let accepted = first.accepted();
        assert_eq!(tool("2026.1", Some(&accepted)).unwrap(), first);
        let second = tool("2026.2", Some(&accepted)).unwrap();
        assert_eq!((second.target(), follows(&second, 2, &accepted)), (2, Ok(1)));
        let accepted = second.accepted();
        assert_eq!(accepted.version_names().collect::<Vec<_>>(), [(1, "2026.1"), (2, "2026.2")]);
        assert_eq!(tool("2026.1", Some(&accepted)).unwrap_err().reason().as_str(), "VersionWentBack");
        assert_eq!(
            tool("1", Some(&module(&["a"]).accepted())).unwrap_err().reason().as_str(),
            "ChecksumChanged"
        );
        assert_eq!(module(&["a"]).accepted().version_names().count(), 0);
        // A template is the same, by whatever versions it came there; that of a pipeline has none of them.
        let skipped = Module { migrations: vec![Migration::named(2, "2026.2")].into(), ..second.clone() };
        let digest = |module: &Module, kind| {
            crate::modules::ModuleSet::new(vec![Module { kind, ..module.clone() }]).digest().to_owned()
        };
        assert_eq!(digest(&skipped, ModuleKind::Job), digest(&second, ModuleKind::Job));
        assert_ne!(digest(&first, ModuleKind::Job), digest(&second, ModuleKind::Job));
        assert_eq!(digest(&first, ModuleKind::External), digest(&second, ModuleKind::External));
        assert_ne!(first.digest(), second.digest());
    }

    #[test]
    fn target_is_a_file() {
        let all = module(&["a", "b", "c"]);
        let target = |version| all.clone().at_target(version).map(|module| module.target());
        assert_eq!((target(None), target(Some("")), target(Some("2"))), (Ok(3), Ok(3), Ok(2)));
        for version in ["0", "4", "x"] {
            assert_eq!(target(Some(version)).unwrap_err().reason().as_str(), "VersionNotFound", "{version}");
        }
        assert_ne!(all.digest(), all.up_to(2).digest());
    }
}
