//! `tenantry audit`: checks and exports the activity log.

mod export;
mod verify;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::output::print;
use crate::{
    domain::activity_chain::HeadsError,
    postgres::tenant::credentials::SecretText,
    registry::{self, Registry},
};

/// The exit code of a check that found differences. 1 is a check that could not be made, 2 a wrong command line.
const DIFFERENCES: u8 = 3;

/// Flags of `tenantry audit`.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: AuditCommand,
}

/// The commands.
#[derive(Subcommand)]
enum AuditCommand {
    /// Check that no row of the activity log was changed, removed or inserted
    Verify(verify::VerifyArguments),
    /// Print the head of each tenant's chain, to be stored elsewhere and compared later
    Heads(HeadsArguments),
    /// Print the activity log, the archive included
    Export(export::ExportArguments),
}

/// Flags of `tenantry audit heads`.
#[derive(Args)]
#[command(after_help = "\
Prints one JSON object per line: tenant (its id; null: the rows without a tenant), slug, position and hash of the last \
row. Store the lines where neither the operator nor the administrator of the registry's server can change them: a chain \
that was written again as a whole differs from them alone.\n\n\
Example:\n  tenantry audit heads > heads-$(date +%F).jsonl")]
struct HeadsArguments {
    #[command(flatten)]
    registry: RegistryArguments,
}

/// Where the registry is.
#[derive(Args)]
struct RegistryArguments {
    /// URL of the registry, as for `tenantry run`: postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full
    #[arg(long, env = "TENANTRY_SYSTEM_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    system_database_url: SecretText,
}

/// Why the log could not be checked or exported.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// It has no chains yet.
    #[error("the registry has no chains yet: a leader of this release migrates it (tenantry run)")]
    NotMigrated,
    /// The stored heads could not be read.
    #[error("cannot read {0}: {1}")]
    File(PathBuf, io::Error),
    /// The stored heads cannot be used.
    #[error("{0} cannot be used: {1}")]
    Heads(PathBuf, HeadsError),
    /// No tenant has or had the slug.
    #[error("no tenant has or had the slug {0:?}")]
    Slug(String),
    /// A row cannot be printed.
    #[error("row {0} of the activity log cannot be printed: {1}")]
    Row(i64, serde_json::Error),
    /// The output failed.
    #[error("could not print: {0}")]
    Print(#[from] io::Error),
}

/// Runs a command of `tenantry audit`.
pub async fn audit(arguments: Arguments) -> Result<ExitCode, AuditError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match arguments.command {
        AuditCommand::Verify(arguments) => verify::verify(arguments).await,
        AuditCommand::Heads(arguments) => heads(arguments).await.map(|()| ExitCode::SUCCESS),
        AuditCommand::Export(arguments) => export::export(arguments).await.map(|()| ExitCode::SUCCESS),
    }
}

async fn heads(arguments: HeadsArguments) -> Result<(), AuditError> {
    let registry = arguments.registry.connect().await?;
    let mut lines = String::new();
    for head in registry.activity_heads().await? {
        lines += &line(&head.stored()).map_err(io::Error::other)?;
    }
    Ok(print(&lines)?)
}

/// A value as a line of JSON.
fn line(value: &impl serde::Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(value).map(|text| text + "\n")
}

impl RegistryArguments {
    async fn connect(&self) -> Result<Registry, AuditError> {
        let name = format!("tenantry-audit-{}", std::process::id());
        let registry = Registry::connect(self.system_database_url.expose(), &name, 2).await?;
        registry.check_schema().await?;
        if registry.has_activity_chains().await? { Ok(registry) } else { Err(AuditError::NotMigrated) }
    }
}
