//! A module and its files.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

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

/// A module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its files, by version.
    pub migrations: Cow<'static, [Migration]>,
}

impl Module {
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

    /// The bytes that identify the whole content: the name, and the version and checksum of each file.
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(self.name.as_bytes());
        for migration in self.migrations.iter() {
            bytes.push(1);
            bytes.extend(migration.version.to_be_bytes());
            bytes.extend(migration.checksum());
        }
        bytes
    }
}

impl Migration {
    /// The checksum in the ledger, by which a change after the file was applied is detected.
    pub fn checksum(&self) -> Vec<u8> {
        Sha256::digest(self.sql.as_bytes()).to_vec()
    }
}
