//! The commands behind the Makefile.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tenantry_dev::background::{self, Background};
use tenantry_dev::{
    Environment, EnvironmentOptions, Error, PostgresOptions, Result, Version, bench, binaries, control_plane,
    demo, progress,
};

/// Tenantry's development environment.
#[derive(Parser)]
#[command(name = "tenantry-dev")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds and fetches what tests need, with progress: the control plane, PostgreSQL 15 and 18.
    Prepare,
    /// Starts the environment in the background, or whatever of it has died, and writes .dev/env.
    Up(Operator),
    /// Stops the environment and removes its data.
    Down,
    /// Starts the environment, provisions the example tenants and shows them.
    Demo {
        #[command(flatten)]
        operator: Operator,
        /// Use the cluster that KUBECONFIG names, in place of one of our own.
        #[arg(long)]
        existing: bool,
    },
    /// Measures what a tenant takes and costs, on an environment of its own that ends with it.
    Bench(Operator),
}

#[derive(clap::Args)]
struct Operator {
    /// The operator's binary; by default the one built beside this program.
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

#[tokio::main]
async fn main() -> ExitCode {
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
                "up: the operator leads and serves {}\n  . .dev/env    for kubectl and the rest\n  make down     to stop",
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
            demo::farewell(&environment);
            Ok(())
        }
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
    for version in [Version::Any, Version::Major(15), Version::Major(18)] {
        binaries::find(version).await?;
    }
    Ok(())
}
