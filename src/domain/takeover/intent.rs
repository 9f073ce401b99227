//! What a takeover is asked to do: the consent of the server, and the versions of modules that the database has already.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::{
    record::ModuleVersion,
    structure::{PartKind, SchemaPart, schema_mismatches},
};

/// A login that should be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptLogin {
    /// Its name.
    pub name: String,
    /// When it ends.
    pub until: Timestamp,
    /// Now. The time passes, and is no part of the digest.
    #[serde(skip)]
    pub now: Timestamp,
}

/// What the tenant gets with the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Intent {
    /// The tenant's login.
    pub login: String,
    /// The modules at their target versions.
    pub modules: Vec<ModuleVersion>,
    /// The versions that are recorded as applied.
    pub baseline: Vec<ModuleVersion>,
    /// The modules whose migrations a tool or a pipeline applies, which knows by itself what the database has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub of_tools: Vec<String>,
    /// What those versions create and the database does not have.
    pub missing: Vec<String>,
    /// What the other files of the modules create and the database has already.
    pub collisions: Vec<String>,
    /// The application's login that stays usable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptLogin>,
}

/// A baseline that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// The tenant has no such module.
    #[error("spec.adopt.baseline names module {0:?}, which is none of the tenant's: add it to spec.modules")]
    NoModule(String),
    /// Its tool knows the versions.
    #[error(
        "spec.adopt.baseline names module {0:?}, whose migrations its own tool or pipeline applies: leave it out; the tool finds in the database what it has applied there, and brings the rest once the tenant is active"
    )]
    OfTool(String),
    /// It has no such version.
    #[error("spec.adopt.baseline names version {version:?} of module {module:?}, which has 1 to {target}")]
    NoVersion {
        /// The module.
        module: String,
        /// As written.
        version: String,
        /// Its newest version.
        target: i32,
    },
}

/// Whether a server's `allowAdoption` lists a database: by its name, or by a pattern in which `*` matches any text.
pub fn allows(patterns: &[String], database: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, database))
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(left) = name.strip_prefix(start) else { return false };
    // The shortest match of each part but the last, which is at the end, leaves the most for the rest.
    let mut left = left;
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    true
}

/// The versions in `spec.adopt.baseline`, in the order of the tenant's modules. `of_tools` are those among these whose
/// migrations a tool or a pipeline applies.
///
/// # Errors
/// The first that cannot be.
pub fn baseline_versions(
    wanted: &BTreeMap<String, String>,
    modules: &[ModuleVersion],
    of_tools: &[String],
) -> Result<Vec<ModuleVersion>, BaselineError> {
    for (module, version) in wanted {
        if of_tools.contains(module) {
            return Err(BaselineError::OfTool(module.clone()));
        }
        let Some(known) = modules.iter().find(|known| known.name == *module) else {
            return Err(BaselineError::NoModule(module.clone()));
        };
        if !version.parse().is_ok_and(|version: i32| (1..=known.version).contains(&version)) {
            return Err(BaselineError::NoVersion {
                module: module.clone(),
                version: version.clone(),
                target: known.version,
            });
        }
    }
    let listed = modules.iter().filter_map(|module| {
        let version = wanted.get(&module.name)?.parse().ok()?;
        Some(ModuleVersion { name: module.name.clone(), version })
    });
    Ok(listed.collect())
}

impl Intent {
    /// Compares the database with what its modules create: `recorded` of the versions in the baseline, `all` of every
    /// version.
    pub fn compare(&mut self, recorded: &[SchemaPart], all: &[SchemaPart], found: &[SchemaPart]) {
        let expected: Vec<SchemaPart> =
            recorded.iter().filter(|part| !is_internal(part)).map(without_owner).collect();
        let found: Vec<SchemaPart> = found.iter().map(without_owner).collect();
        let missing = schema_mismatches(&expected, &found);
        self.missing =
            missing.iter().filter(|found| !found.is_repairable()).map(ToString::to_string).collect();
        let is_new = |part: &&SchemaPart| {
            !is_internal(part)
                && !expected.iter().any(|known| (known.kind, &known.name) == (part.kind, &part.name))
        };
        let is_there = |part: &&SchemaPart| {
            found.iter().any(|other| other.name == part.name && space(other.kind) == space(part.kind))
        };
        let new = all.iter().filter(|part| space(part.kind).is_some()).filter(is_new).filter(is_there);
        self.collisions =
            new.map(|part| format!("{} {}", format!("{:?}", part.kind).to_lowercase(), part.name)).collect();
    }
}

/// Objects of one space of names cannot have the same name.
fn space(kind: PartKind) -> Option<u8> {
    match kind {
        PartKind::Table | PartKind::View | PartKind::Sequence | PartKind::Index => Some(0),
        PartKind::Function => Some(1),
        PartKind::Column | PartKind::Constraint | PartKind::Trigger | PartKind::Meter => None,
    }
}

/// Whether a part is of the internal module, or enforces limits: those are made with the takeover.
fn is_internal(part: &SchemaPart) -> bool {
    let is_of = |name: &str| name.starts_with("tenantry.");
    part.kind == PartKind::Meter
        || is_of(&part.name)
        || part.table.as_deref().is_some_and(is_of)
        || part.kind == PartKind::Trigger && part.definition.is_some()
}

/// Owners change with the takeover.
fn without_owner(part: &SchemaPart) -> SchemaPart {
    SchemaPart { owner: None, ..part.clone() }
}
