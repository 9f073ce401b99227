//! Whether a module's content may follow what was accepted before. Pure.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::module::{Module, hexadecimal};
use crate::domain::{
    accepted_module::{AcceptedFile, AcceptedModule},
    module_refusal::ModuleRefusal,
};

impl Module {
    /// The module with its files up to a version.
    pub fn up_to(&self, version: i32) -> Self {
        if version >= self.target() {
            return self.clone();
        }
        let files = self.migrations.iter().filter(|migration| migration.version <= version);
        Self { migrations: files.cloned().collect(), ..self.clone() }
    }

    /// The digest of the content: 24 hexadecimal digits.
    pub fn digest(&self) -> String {
        Sha256::digest(self.fingerprint())[..12].iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// What is recorded once the content is accepted.
    pub fn accepted(&self) -> AcceptedModule {
        let file = |migration: &super::Migration| AcceptedFile {
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
    use crate::modules::Migration;

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
    fn correction_is_rehearsed_with_what_follows() {
        let accepted = module(&["a", "b", "c"]).accepted();
        let corrected = format!("-- replaces: {}\nB", hexadecimal(&accepted.files[1].checksum));
        assert_eq!(follows(&module(&["a", &corrected, "c"]), 3, &accepted), Ok(1));
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
