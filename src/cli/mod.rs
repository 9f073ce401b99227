//! The command line: one file per command. Every flag has an environment variable; nothing secret is ever a flag.

pub mod audit;
pub mod crds;
mod output;
pub mod probe;
pub mod retention;
pub mod run;
pub mod server_setup;
pub mod webhook;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// A Kubernetes operator that gives every customer a PostgreSQL database of its own
#[derive(Parser)]
#[command(
    name = "tenantry",
    version,
    long_about = "Tenantry is a Kubernetes operator. A Tenant resource declares a customer; Tenantry creates the \
                  customer's PostgreSQL database, applies the migrations, seeds the admins, publishes the \
                  credentials, and deprovisions all of it when the Tenant is deleted.",
    after_help = "First steps:\n  \
                  tenantry server-setup   once per PostgreSQL server, as its administrator\n  \
                  tenantry crds | kubectl apply --server-side -f -\n  \
                  tenantry run            the operator itself"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Run the operator
    Run(Box<run::Arguments>),
    /// Print the CustomResourceDefinitions
    Crds(crds::Arguments),
    /// Prepare a PostgreSQL server and the registry with the rights of an administrator; idempotent
    ServerSetup(server_setup::Arguments),
    /// Check and export the activity log
    Audit(audit::Arguments),
    /// Ask an operator's HTTP endpoint, such as /readyz; fails unless it answers 200
    Probe(probe::Arguments),
}

/// Runs the command that the process's arguments name, to its end.
///
/// The runtime starts here and not in the binary: asynchronous code is compiled where it is awaited, and would be
/// compiled twice.
#[tokio::main]
pub async fn main() -> ExitCode {
    let outcome: Result<(), Box<dyn std::error::Error>> = match Cli::parse().command {
        Command::Run(arguments) => run::run(*arguments).await.map_err(Into::into),
        Command::Crds(arguments) => crds::crds(arguments).map_err(Into::into),
        Command::ServerSetup(arguments) => server_setup::server_setup(arguments).await.map_err(Into::into),
        Command::Audit(arguments) => return end(audit::audit(arguments).await),
        Command::Probe(arguments) => probe::probe(arguments).await.map_err(Into::into),
    };
    end(outcome.map(|()| ExitCode::SUCCESS))
}

/// The exit code of a command, and the message of its failure.
fn end(outcome: Result<ExitCode, impl std::fmt::Display>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "tenantry: {error}");
            ExitCode::FAILURE
        }
    }
}
