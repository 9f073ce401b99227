//! Why the content of a TenantModule is refused, before any tenant sees it. Each message says what is wrong, where, and
//! what to do.

use std::collections::BTreeMap;

use super::modules::INTERNAL;
use crate::api::{
    module_job::{JobVariable, ModuleJob},
    reason::Reason,
};

/// Why a module's content is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleRefusal {
    /// The name belongs to a module that ships with Tenantry.
    #[error(
        "metadata.name: {0:?} is the name of a module that ships with Tenantry: give your module another name; to have the built-in module listed again, delete this TenantModule"
    )]
    NameTaken(String),
    /// `builtIn` on a module that does not ship with Tenantry.
    #[error(
        "spec.source.builtIn: no module {0:?} ships with this release of Tenantry: use configMaps, directory or image, or delete this TenantModule"
    )]
    NotBuiltIn(String),
    /// The name of a module is not one.
    #[error(
        "metadata.name: {0:?} must start with a letter and consist of a-z, 0-9 and '-': choose another name"
    )]
    InvalidName(String),
    /// A ConfigMap does not exist.
    #[error(
        "spec.source.configMaps: there is no ConfigMap {name:?} in namespace {namespace:?}, the operator's: create it there"
    )]
    ConfigMapNotFound {
        /// The ConfigMap.
        name: String,
        /// The operator's namespace.
        namespace: String,
    },
    /// The directory does not exist, or cannot be read.
    #[error(
        "spec.source.directory: {path:?} in the operator's container cannot be read: {why}; put the files into the operator's image, or mount a volume there"
    )]
    DirectoryUnreadable {
        /// The directory.
        path: String,
        /// The error.
        why: String,
    },
    /// No file at all.
    #[error("{origin} has no file: add one, named 0001_name.sql")]
    NoFiles {
        /// The source.
        origin: String,
    },
    /// A file's name does not have the form.
    #[error(
        "{origin}: {file:?} is not the name of a file: name it NNNN_name.sql, four digits from 0001 on, '_', and a-z, 0-9, '_', '-' or '.', as in 0002_invoices.sql"
    )]
    FileName {
        /// Where it is.
        origin: String,
        /// The name.
        file: String,
    },
    /// A file is not text.
    #[error("{origin}: {file}: {why}: write SQL in UTF-8, at most 1 MiB a file")]
    FileUnreadable {
        /// Where it is.
        origin: String,
        /// The file.
        file: String,
        /// The error.
        why: String,
    },
    /// A file has a header that does not exist.
    #[error("{file} line {line} column {column}: {why}")]
    Header {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
        /// The error and the remedy.
        why: String,
    },
    /// Two files have one number.
    #[error("{first} and {second} have the same number: give the newer one the next free number, {free:04}")]
    DuplicateVersion {
        /// One, with its origin.
        first: String,
        /// The other.
        second: String,
        /// The next free number.
        free: i32,
    },
    /// A number is missing.
    #[error("{file} follows {}: there is no file with number {missing:04}; numbers have no gaps: add it, or rename what follows", if *missing == 1 { "nothing".to_owned() } else { format!("number {:04}", missing - 1) })]
    Gap {
        /// The first missing number.
        missing: i32,
        /// The file after the gap.
        file: String,
    },
    /// The target is no file.
    #[error(
        "spec.version {version:?} does not exist in the source: name a number from 1 to {newest}, or leave version out for the newest"
    )]
    VersionNotFound {
        /// As written.
        version: String,
        /// The newest number.
        newest: i32,
    },
    /// Fewer files than accepted.
    #[error(
        "the newest file is number {newest:04}, and {accepted:04} ({file}) was accepted: a version never goes back; add the files again, and undo what they did in a new file"
    )]
    FilesMissing {
        /// The newest file in the source.
        newest: i32,
        /// The newest accepted number.
        accepted: i32,
        /// The accepted file of that number.
        file: String,
    },
    /// A lower target than accepted.
    #[error(
        "spec.version {version} is lower than {accepted}, which was accepted: a version never goes back; undo what a file did in a new file"
    )]
    VersionWentBack {
        /// The target.
        version: i32,
        /// The accepted target.
        accepted: i32,
    },
    /// A file was changed.
    #[error(
        "{file} was changed after it had been accepted: put it back, and write the change into a new file; if it corrects a file that fails on some tenants, begin it with `-- tenantry: replaces {accepted}`; if no tenant has the module, delete the TenantModule and apply it again"
    )]
    ChecksumChanged {
        /// The file.
        file: String,
        /// The accepted checksum, in hexadecimal.
        accepted: String,
    },
    /// An earlier version of a tool.
    #[error(
        "spec.version {version:?} was the version before {accepted:?}: a version never goes back; give the corrected migrations a new version"
    )]
    NameWentBack {
        /// As written.
        version: String,
        /// The newest accepted version.
        accepted: String,
    },
    /// The module had files, and a tool applies its migrations now.
    #[error(
        "spec.source: SQL files were accepted under this name, and tenants may have them: a tool's migrations need a TenantModule of another name, which has this one in dependsOn if it builds on those tables"
    )]
    SourceChanged,
    /// A dependency is in no template.
    #[error(
        "spec.dependsOn: what a pipeline of your own brings ({dependency:?} has source.external) is in no template, so that nothing that needs it can be checked or cloned: let the pipeline apply this too, or give {dependency:?} a source.job"
    )]
    DependsOnExternal {
        /// The dependency.
        dependency: String,
    },
    /// The schema was changed.
    #[error(
        "spec.schema is {schema:?} and was {accepted:?} when content was accepted: objects are not moved; set it back, or give the module of the other schema another name"
    )]
    SchemaChanged {
        /// As written.
        schema: String,
        /// As accepted.
        accepted: String,
    },
    /// The schema of a module that ships with Tenantry was changed.
    #[error(
        "--module-schemas (moduleSchemas of the chart) has schema {schema:?} for module {module:?}, and tenants have it in {accepted:?}: objects are not moved; set it back to {module}={accepted}"
    )]
    BuiltInSchemaChanged {
        /// The module.
        module: String,
        /// As the flag says.
        schema: String,
        /// The schema that tenants have it in.
        accepted: String,
    },
    /// A module that ships with Tenantry depends on one that is refused.
    #[error(
        "module {dependency:?}, which it depends on, is not Ready: `kubectl describe tmod {dependency}` says what to correct"
    )]
    BuiltInDependency {
        /// The dependency.
        dependency: String,
    },
    /// A module depends on itself.
    #[error("spec.dependsOn: {}: remove one of these dependencies", path.join(" depends on "))]
    Cycle {
        /// The modules, the first one again at the end.
        path: Vec<String>,
    },
    /// A dependency does not exist.
    #[error("spec.dependsOn: there is no module {dependency:?}: apply a TenantModule of that name, or name one of {}", known.join(", "))]
    DependencyNotFound {
        /// The dependency.
        dependency: String,
        /// The modules that exist.
        known: Vec<String>,
    },
    /// A dependency is not accepted.
    #[error(
        "spec.dependsOn: module {dependency:?} is not Ready: `kubectl describe tmod {dependency}` says what to correct"
    )]
    DependencyNotReady {
        /// The dependency.
        dependency: String,
    },
    /// A dependency has not the version that is needed.
    #[error(
        "spec.minimumVersions: version {minimum} of module {dependency:?} is needed, and the newest that tenants get is {version}: bring a newer version of {dependency:?} first (its source, or its spec.version), or lower the minimum"
    )]
    DependencyTooOld {
        /// The dependency.
        dependency: String,
        /// What is needed.
        minimum: i32,
        /// What tenants get.
        version: i32,
    },
    /// A Job beside the operator would read what only the operator may.
    #[error(
        "{field}: the Jobs are in namespace {namespace:?}, the operator's, where its own Secrets and service accounts are: leave it out, or give the Jobs a namespace of their own (--migration-namespace; chart: migrations.namespace)"
    )]
    BesideOperator {
        /// The field.
        field: String,
        /// The operator's namespace.
        namespace: String,
    },
    /// What the rehearsal, or a server, found.
    #[error("{message}")]
    Found {
        /// The reason.
        reason: Reason,
        /// What, where, and what to do.
        message: String,
    },
}

impl ModuleRefusal {
    /// The condition reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NameTaken(_) | Self::NotBuiltIn(_) => Reason::Conflict,
            Self::InvalidName(_) | Self::BesideOperator { .. } => Reason::InvalidSpec,
            Self::ConfigMapNotFound { .. } | Self::DirectoryUnreadable { .. } => Reason::SourceNotFound,
            Self::NoFiles { .. } => Reason::NoFiles,
            Self::FileName { .. } | Self::FileUnreadable { .. } | Self::Header { .. } => Reason::InvalidFile,
            Self::DuplicateVersion { .. } => Reason::DuplicateVersion,
            Self::Gap { .. } => Reason::VersionGap,
            Self::VersionNotFound { .. } => Reason::VersionNotFound,
            Self::FilesMissing { .. } | Self::VersionWentBack { .. } | Self::NameWentBack { .. } => {
                Reason::VersionWentBack
            }
            Self::ChecksumChanged { .. } | Self::SourceChanged => Reason::ChecksumChanged,
            Self::SchemaChanged { .. } | Self::BuiltInSchemaChanged { .. } => Reason::SchemaChanged,
            Self::Cycle { .. } => Reason::DependencyCycle,
            Self::DependencyNotFound { .. } => Reason::DependencyNotFound,
            Self::DependencyNotReady { .. }
            | Self::DependsOnExternal { .. }
            | Self::BuiltInDependency { .. } => Reason::DependencyNotReady,
            Self::DependencyTooOld { .. } => Reason::DependencyTooOld,
            Self::Found { reason, .. } => *reason,
        }
    }

    /// Whether only what is new in the source, or in a module that it depends on, is refused: new tenants get what was accepted
    /// before.
    pub fn is_of_new_content(&self) -> bool {
        matches!(
            self,
            Self::FileName { .. }
                | Self::FileUnreadable { .. }
                | Self::Header { .. }
                | Self::DuplicateVersion { .. }
                | Self::Gap { .. }
                | Self::VersionNotFound { .. }
                | Self::DependencyNotReady { .. }
                | Self::Found { .. }
        )
    }
}

/// The least versions that a module needs of others, as its spec has them. (The API server checks that they are numbers.)
pub fn minimum_versions(spec: &BTreeMap<String, String>) -> BTreeMap<String, i32> {
    spec.iter().filter_map(|(name, version)| Some((name.clone(), version.parse().ok()?))).collect()
}

/// Checks the versions that tenants get of the dependencies, `None` for one that is not known.
///
/// # Errors
/// The first one that is too old.
pub fn check_minimums(
    minimums: &BTreeMap<String, i32>,
    version_of: impl Fn(&str) -> Option<i32>,
) -> Result<(), ModuleRefusal> {
    for (dependency, minimum) in minimums {
        if let Some(version) = version_of(dependency).filter(|version| version < minimum) {
            let (dependency, minimum) = (dependency.clone(), *minimum);
            return Err(ModuleRefusal::DependencyTooOld { dependency, minimum, version });
        }
    }
    Ok(())
}

/// Whether a Job may run in the operator's own namespace: who may write TenantModules gets none of the operator's Secrets, and
/// none of its rights in the cluster.
///
/// # Errors
/// It names a Secret as the source of a variable, or a service account.
pub fn check_beside_operator(job: &ModuleJob, namespace: &str) -> Result<(), ModuleRefusal> {
    let of_secret = |variable: &&JobVariable| {
        variable.value_from.as_ref().is_some_and(|from| from.secret_key_ref.is_some())
    };
    let field = match (&job.service_account_name, job.env.iter().find(of_secret)) {
        (Some(_), _) => "spec.source.job.serviceAccountName".to_owned(),
        (None, Some(variable)) => format!("spec.source.job.env {}: valueFrom.secretKeyRef", variable.name),
        (None, None) => return Ok(()),
    };
    Err(ModuleRefusal::BesideOperator { field, namespace: namespace.to_owned() })
}

/// Whether a TenantModule can have this name: lists of modules name it.
///
/// # Errors
/// It cannot.
pub fn check_name(name: &str) -> Result<(), ModuleRefusal> {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(is_inner)
        && !name.ends_with('-')
        && name.len() <= 63;
    match is_valid {
        _ if name == INTERNAL => Err(ModuleRefusal::NameTaken(name.to_owned())),
        true => Ok(()),
        false => Err(ModuleRefusal::InvalidName(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_lists_can_have() {
        for name in ["billing", "a", "app-2"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["2app", "a.b", "a-", "-a"] {
            assert_eq!(check_name(name).unwrap_err().reason(), Reason::InvalidSpec, "{name}");
        }
        assert_eq!(check_name("tenantry").unwrap_err().reason(), Reason::Conflict);
    }

    #[test]
    fn job_beside_the_operator_names_none_of_its_secrets_and_accounts() {
        use crate::api::module_job::{JobKeyReference, JobVariableSource};
        let key = || Some(JobKeyReference { name: "tenantry-registry".into(), key: "url".into() });
        let variable = |from: JobVariableSource| JobVariable {
            name: "TOKEN".into(),
            value: None,
            value_from: Some(from),
        };
        let of_config = variable(JobVariableSource { config_map_key_ref: key(), secret_key_ref: None });
        let of_secret = variable(JobVariableSource { secret_key_ref: key(), config_map_key_ref: None });
        let job = |env: &[&JobVariable], account: Option<&str>| ModuleJob {
            env: env.iter().copied().cloned().collect(),
            service_account_name: account.map(str::to_owned),
            ..ModuleJob::default()
        };
        assert_eq!(check_beside_operator(&job(&[&of_config], None), "tenantry"), Ok(()));
        for (job, field) in [
            (job(&[&of_config, &of_secret], None), "env TOKEN: valueFrom.secretKeyRef"),
            (job(&[], Some("tenantry")), "serviceAccountName"),
        ] {
            let refusal = check_beside_operator(&job, "tenantry").unwrap_err();
            assert_eq!(refusal.reason(), Reason::InvalidSpec);
            let text = refusal.to_string();
            assert!(text.starts_with(&format!("spec.source.job.{field}: ")), "{text}");
        }
    }

    #[test]
    fn dependency_that_is_too_old_is_refused() {
        let minimums =
            minimum_versions(&BTreeMap::from([("base".into(), "4".into()), ("core".into(), "2".into())]));
        let check = |base: i32| check_minimums(&minimums, |name| (name == "base").then_some(base));
        assert_eq!((check(4), check(9)), (Ok(()), Ok(())));
        let refusal = check(3).unwrap_err();
        assert_eq!(refusal.reason(), Reason::DependencyTooOld);
        assert!(
            refusal
                .to_string()
                .contains("version 4 of module \"base\" is needed, and the newest that tenants get is 3")
        );
    }

    #[test]
    fn gap_before_the_first_file_is_described() {
        let gap = |missing| ModuleRefusal::Gap { missing, file: "0004_x.sql".into() }.to_string();
        assert!(
            gap(1).starts_with("0004_x.sql follows nothing: there is no file with number 0001"),
            "{}",
            gap(1)
        );
        assert!(gap(3).starts_with("0004_x.sql follows number 0002: there is no file with number 0003"));
    }
}
