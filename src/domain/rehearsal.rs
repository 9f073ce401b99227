//! What the rehearsal of a module found: its new files were applied to a scratch database, and the catalogs were compared.

pub mod catalog;
pub mod compare;
mod narrowing;

use serde::{Deserialize, Serialize};

/// The report of a rehearsal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// The files that were applied, in order. The last one may have failed.
    pub files: Vec<RehearsedFile>,
    /// What was found, in the order of the files.
    pub findings: Vec<RehearsalFinding>,
}

/// One file of a rehearsal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RehearsedFile {
    /// Its number.
    pub version: i32,
    /// Its name.
    pub file: String,
    /// How many statements the server executed.
    pub statements: u32,
    /// How long it took on an empty database.
    pub duration_millis: u64,
    /// The strongest locks that it held on relations that existed before it.
    pub locks: Vec<RelationLock>,
    /// The relations that existed before it, and were written again as a whole.
    pub rewritten: Vec<RewrittenRelation>,
}

/// A lock on a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationLock {
    /// The relation, with its schema.
    pub relation: String,
    /// The mode, as in `pg_locks`.
    pub mode: String,
}

/// A relation that was written again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewrittenRelation {
    /// The relation, with its schema.
    pub relation: String,
    /// Its size in the scratch database, which has hardly any rows.
    pub bytes: i64,
}

/// Something that a person should know of a file, or that keeps it from the tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsalFinding {
    /// The file.
    pub file: String,
    /// The line in the file, from 1, if it is known.
    pub line: Option<usize>,
    /// The column, from 1.
    pub column: Option<usize>,
    /// What kind of finding it is.
    pub class: FindingClass,
    /// The object, as PostgreSQL names it; empty for SQL that failed.
    pub object: String,
    /// What is wrong, and what to do.
    pub message: String,
    /// Whether the module is refused for it.
    pub refused: bool,
    /// Of a right: what a statement must have done to it.
    pub right: Option<RightsChange>,
}

/// What a statement did to the rights on an object, or to its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RightsChange {
    /// It gave rights to this role.
    Granted(String),
    /// It took rights from this role.
    Revoked(String),
    /// It made this role the owner.
    Owned(String),
    /// It changed default privileges.
    Defaults,
}

/// What kind of finding it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FindingClass {
    /// SQL that cannot be applied.
    SqlFailed,
    /// An object outside the module's schema, or a change of one that is not the module's.
    OutsideSchema,
    /// Roles, grants, default privileges or owners were changed.
    Rights,
    /// Data or objects are lost, or have another name than the application knows.
    Destructive,
    /// A line of the report, which refuses nothing.
    Note,
}

impl Rehearsal {
    /// What the module is refused for.
    pub fn refusals(&self) -> impl Iterator<Item = &RehearsalFinding> {
        self.findings.iter().filter(|finding| finding.refused)
    }

    /// Whether tenants may get the files.
    pub fn is_accepted(&self) -> bool {
        self.refusals().next().is_none()
    }

    /// How many statements were executed.
    pub fn statements(&self) -> u32 {
        self.files.iter().map(|file| file.statements).sum()
    }

    /// How long all files took.
    pub fn duration_millis(&self) -> u64 {
        self.files.iter().map(|file| file.duration_millis).sum()
    }

    /// The bytes that were written again.
    pub fn rewritten_bytes(&self) -> i64 {
        self.files.iter().flat_map(|file| &file.rewritten).map(|relation| relation.bytes).sum()
    }

    /// What is destructive, whether it was allowed or not.
    pub fn destructive(&self) -> impl Iterator<Item = &RehearsalFinding> {
        self.findings.iter().filter(|finding| finding.class == FindingClass::Destructive)
    }
}

impl std::fmt::Display for RehearsalFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, " line {line} column {column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refused_findings_keep_a_module_from_the_tenants() {
        let finding = |class, refused| RehearsalFinding {
            file: "0002_wiki.sql".into(),
            line: Some(3),
            column: Some(7),
            class,
            object: "public.pages".into(),
            message: "drops table public.pages".into(),
            refused,
            right: None,
        };
        let allowed = Rehearsal {
            findings: vec![finding(FindingClass::Note, false), finding(FindingClass::Destructive, false)],
            ..Rehearsal::default()
        };
        assert!(allowed.is_accepted() && allowed.destructive().count() == 1);
        let refused =
            Rehearsal { findings: vec![finding(FindingClass::Destructive, true)], ..Rehearsal::default() };
        assert!(!refused.is_accepted());
        let text = refused.findings[0].to_string();
        assert_eq!(text, "0002_wiki.sql line 3 column 7: drops table public.pages");
    }
}
