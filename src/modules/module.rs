//! A module and its files.

use std::{borrow::Cow, fmt::Write};

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

    /// Whether a database to which a file with this checksum was applied has this version: this file, or one that it
    /// corrects. Its first comments name those, one in a line: `-- replaces: <checksum in hexadecimal>`.
    pub fn is_applied_by(&self, checksum: &[u8]) -> bool {
        checksum == self.checksum() || self.replaced().any(|replaced| replaced == hexadecimal(checksum))
    }

    fn replaced(&self) -> impl Iterator<Item = &str> {
        let comments = self.sql.lines().map_while(|line| line.strip_prefix("--"));
        comments.filter_map(|comment| comment.trim().strip_prefix("replaces:")).map(str::trim)
    }
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
    fn correction_names_the_files_that_it_replaces() {
        let (wrong, other) = (file("SELECT 1/0".into()), file("SELECT 2/0".into()));
        let [first, second] = [&wrong, &other].map(|file| hexadecimal(&file.checksum()));
        let corrected =
            file(format!("-- Divides by one.\n-- replaces: {first}\n--replaces:{second}\nSELECT 1"));
        for applied in [&wrong, &other, &corrected] {
            assert!(corrected.is_applied_by(&applied.checksum()));
        }
        assert!(!wrong.is_applied_by(&corrected.checksum()));
        // Only at the top.
        assert!(!file(format!("SELECT 1;\n-- replaces: {first}")).is_applied_by(&wrong.checksum()));
        assert!(!file("-- replaces: ".into()).is_applied_by(&wrong.checksum()));
    }
}
