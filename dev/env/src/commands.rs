//! The commands behind the Makefile.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::background::{self, Background};
use crate::error::{Error, Result};
use crate::postgres::{PostgresOptions, binaries};
use crate::{Environment, EnvironmentOptions, Version, bench, control_plane, demo, helm, image, progress};

/// Tenantry's development environment.
#[derive(Parser)]
#[command(name = "tenantry-dev")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds and fetches what the tests need: the control plane, Helm, PostgreSQL 15 and 18.
    Prepare,
    /// Starts the environment in the background, or the parts of it that have ended, and writes .dev/env.
    Up(Operator),
    /// Stops the environment and removes its data.
    Down,
    /// Starts the environment, provisions the example tenants and shows them.
    Demo {
        #[command(flatten)]
        operator: Operator,
        /// Use the cluster of KUBECONFIG's current context instead of starting one.
        #[arg(long)]
        existing: bool,
    },
    /// Writes the operator's image as an OCI layout: dev/image.sh builds the binary for it.
    Image(image::ImageOptions),
    /// Measures what a tenant costs, in a separate environment that is removed afterwards.
    Bench(Operator),
}

#[derive(clap::Args)]
struct Operator {
    /// The operator's binary; by default the one beside this program.
    #[arg(long)]
    tenantry: Option<PathBuf>,
}

impl Operator {
    fn binary(self) -> Result<PathBuf> {
        let beside = || std::env::current_exe().map(|own| own.with_file_name("tenantry")).unwrap_or_default();
        let path = self.tenantry.unwrap_or_else(beside);
        let found = path.canonicalize();
        found.map_err(|error| Error::message(format!("the operator's binary {}: {error}", path.display())))
    }
}

/// Runs the command that the process's arguments name, to its end.
///
/// The runtime starts here and not in the binary: asynchronous code is compiled where it is awaited, and would be
/// compiled twice.
#[tokio::main]
pub async fn main() -> ExitCode {
    progress::report_every_step();
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::line(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Prepare => prepare().await,
        Command::Up(operator) => {
            let environment = Background::up(&operator.binary()?, false).await?;
            println!(
                "up: the operator leads and serves {}\n  . .dev/env    for kubectl and the variables\n  make down     to stop",
                environment.operator().base_url()
            );
            Ok(())
        }
        Command::Down => {
            println!("{}", if background::down().await? { "down" } else { "nothing is up" });
            Ok(())
        }
        Command::Demo { operator, existing } => {
            let environment = Background::up(&operator.binary()?, existing).await?;
            demo::show(&environment).await?;
            demo::show_next_steps(&environment);
            Ok(())
        }
        Command::Image(options) => image::write(&options).await,
        Command::Bench(operator) => {
            let environment = Environment::start(EnvironmentOptions {
                tenantry: operator.binary()?,
                postgres: PostgresOptions { fsync: true, ..Default::default() },
                ..Default::default()
            });
            bench::run(&environment.await?).await
        }
    }
}

async fn prepare() -> Result<()> {
    control_plane::binary::find().await?;
    helm::find().await?;
    for version in [Version::Any, Version::Major(15), Version::Major(18)] {
        binaries::find(version).await?;
    }
    Ok(())
}
