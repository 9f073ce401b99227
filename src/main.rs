//! The `tenantry` command.

use std::process::ExitCode;

use clap::Parser;
use tenantry::cli::{self, Cli, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let outcome: Result<(), Box<dyn std::error::Error>> = match Cli::parse().command {
        Command::Run(arguments) => cli::run::run(arguments).await.map_err(Into::into),
        Command::Crds(arguments) => cli::crds::crds(arguments).map_err(Into::into),
        Command::ServerSetup(arguments) => {
            cli::server_setup::server_setup(arguments).await.map_err(Into::into)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tenantry: {error}");
            ExitCode::FAILURE
        }
    }
}
