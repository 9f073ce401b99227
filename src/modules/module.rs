//! A module and its files.

use std::{borrow::Cow, fmt::Write};

use sha2::{Digest, Sha256};

use super::headers::{HeaderError, Headers};
use crate::domain::{
    module_schemas::{PUBLIC, forbidden_schema},
    modules::ModuleKind,
};

/// One file of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number. Versions are applied in order, and a version that was applied never changes.
    pub version: i32,
    /// The file's name, for messages.
    pub file: Cow<'static, str>,
    /// The SQL.
    pub sql: Cow<'static, str>,
}

/// An extension that a module needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extension {
    /// Its name, as in `pg_available_extensions`.
    pub name: String,
    /// The version to install; none: the server's default.
    pub version: Option<String>,
    /// The schema of its objects; none: the module's.
    pub schema: Option<String>,
}

/// A module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: Cow<'static, str>,
    /// How its versions come into a database.
    pub kind: ModuleKind,
    /// The schema that its objects are in.
    pub schema: Cow<'static, str>,
    /// The modules that are applied before it: it cannot be without them.
    pub depends_on: Vec<String>,
    /// The extensions that are installed before its files are applied.
    pub extensions: Vec<Extension>,
    /// Its files, by version.
    pub migrations: Cow<'static, [Migration]>,
}

impl Module {
    /// A module in the schema `public`, which depends on no other and needs no extension.
    pub fn new(name: impl Into<Cow<'static, str>>, migrations: impl Into<Cow<'static, [Migration]>>) -> Self {
        Self {
            name: name.into(),
            kind: ModuleKind::Files,
            schema: PUBLIC.into(),
            depends_on: Vec::new(),
            extensions: Vec::new(),
            migrations: migrations.into(),
        }
    }

    /// Whether a module may have its objects in this schema.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_schema(schema: &str) -> Result<(), String> {
        match forbidden_schema(schema) {
            None => Ok(()),
            Some(why) => Err(format!(
                "a module cannot have its objects in schema {schema:?}: {why}. Name another one in spec.schema"
            )),
        }
    }

    /// The version of a tenant to which all files are applied.
    pub fn target(&self) -> i32 {
        self.migrations.last().map_or(0, |migration| migration.version)
    }

    /// The names of the limits that its migrations declare a meter for.
    pub fn metered_limits(&self) -> Vec<String> {
        let name = |rest: &str| Some(rest.trim_start().strip_prefix('\'')?.split_once('\'')?.0.to_owned());
        let of_file = |migration: &Migration| {
            migration.sql.split("tenantry.meter(").skip(1).filter_map(name).collect::<Vec<_>>()
        };
        self.migrations.iter().flat_map(of_file).collect()
    }

    /// The bytes that identify what is in a template: the name, the schema and the extensions, and the version and checksum of
    /// each file. Of a tool's versions, the last counts, however a database came there; what a pipeline brings is in none.
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        let versions = match self.kind {
            ModuleKind::Files => &self.migrations[..],
            ModuleKind::Job => &self.migrations[self.migrations.len().saturating_sub(1)..],
            ModuleKind::External => &[],
        };
        self.bytes(versions)
    }

    /// The bytes that identify the whole content.
    pub(super) fn content(&self) -> Vec<u8> {
        self.bytes(&self.migrations)
    }

    fn bytes(&self, versions: &[Migration]) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(self.name.as_bytes());
        if self.schema != PUBLIC {
            bytes.push(2);
            bytes.extend(self.schema.as_bytes());
        }
        for extension in &self.extensions {
            let parts = [Some(&extension.name), extension.version.as_ref(), extension.schema.as_ref()];
            bytes.push(3);
            for part in parts {
                bytes.push(4);
                bytes.extend(part.into_iter().flat_map(|part| part.as_bytes()));
            }
        }
        match self.kind {
            ModuleKind::Files => {}
            ModuleKind::Job => bytes.push(5),
            ModuleKind::External => bytes.push(6),
        }
        for migration in versions {
            bytes.push(1);
            bytes.extend(migration.version.to_be_bytes());
            bytes.extend(migration.checksum());
        }
        bytes
    }
}

impl Migration {
    /// A version of a module whose migrations a tool applies. It has a name, as the team calls it, and no SQL.
    pub fn named(version: i32, name: &str) -> Self {
        Self { version, file: Cow::Owned(name.to_owned()), sql: Cow::Owned(marker(name)) }
    }

    /// The checksum in the ledger, by which a change after the file was applied is detected.
    pub fn checksum(&self) -> Vec<u8> {
        Sha256::digest(self.sql.as_bytes()).to_vec()
    }

    /// Its headers.
    ///
    /// # Errors
    /// The first header that is wrong.
    pub fn headers(&self) -> Result<Headers, HeaderError> {
        Headers::of(&self.sql)
    }

    /// Whether a database to which a file with this checksum was applied has this version: this file, or one that it
    /// corrects. Its headers name those, one in a line: `-- tenantry: replaces <checksum in hexadecimal>`.
    pub fn is_applied_by(&self, checksum: &[u8]) -> bool {
        checksum == self.checksum()
            || self.headers().is_ok_and(|headers| headers.replaces.contains(&hexadecimal(checksum)))
    }
}

/// What stands in the place of the SQL of a tool's version.
fn marker(name: &str) -> String {
    format!("-- version {name} of a tool\n")
}

/// The checksum of a tool's version, by which it differs from a file.
pub fn checksum_of_named(name: &str) -> Vec<u8> {
    Sha256::digest(marker(name).as_bytes()).to_vec()
}

/// A checksum as a correction names it.
pub fn hexadecimal(checksum: &[u8]) -> String {
    checksum.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(sql: String) -> Migration {
        Migration { version: 1, file: "0001_wiki.sql".into(), sql: sql.into() }
    }

    #[test]
    fn schema_of_postgresql_or_of_tenantry_is_refused() {
        for schema in ["public", "app", "Pg", "pgx", "tenantry_app"] {
            assert_eq!(Module::check_schema(schema), Ok(()), "{schema}");
        }
        for schema in ["", "tenantry", "pg_catalog", "pg_temp", "information_schema", &"a".repeat(64)] {
            assert!(Module::check_schema(schema).unwrap_err().contains("spec.schema"), "{schema}");
        }
    }

    #[test]
    fn correction_names_the_files_that_it_replaces() {
        let (wrong, other) = (file("SELECT 1/0".into()), file("SELECT 2/0".into()));
        let [first, second] = [&wrong, &other].map(|file| hexadecimal(&file.checksum()));
        let corrected = file(format!(
            "-- Divides by one.\n-- replaces: {first}\n-- tenantry: replaces {second}\nSELECT 1"
        ));
        for applied in [&wrong, &other, &corrected] {
            assert!(corrected.is_applied_by(&applied.checksum()));
        }
        assert!(!wrong.is_applied_by(&corrected.checksum()));
        // Only at the top.
        assert!(!file(format!("SELECT 1;\n-- replaces: {first}")).is_applied_by(&wrong.checksum()));
        assert!(!file("-- replaces: ".into()).is_applied_by(&wrong.checksum()));
    }
}
