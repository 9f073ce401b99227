//! The command line: one file per command. Every flag has an environment variable; nothing secret is ever a flag.

pub mod crds;
pub mod run;
pub mod server_setup;

use clap::{Parser, Subcommand};

/// Gives every customer a PostgreSQL database of its own: a Kubernetes operator.
#[derive(Parser)]
#[command(
    name = "tenantry",
    version,
    long_about = "Tenantry is a Kubernetes operator. A Tenant resource declares a customer; Tenantry makes the \
                  customer's PostgreSQL database, applies the migrations, seeds the admins, publishes the \
                  credentials, and takes all of it down again in an orderly way.",
    after_help = "First steps:\n  \
                  tenantry server-setup   once per PostgreSQL server, as its administrator\n  \
                  tenantry crds | kubectl apply --server-side -f -\n  \
                  tenantry run            the operator itself"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Run the operator
    Run(run::Arguments),
    /// Print the CustomResourceDefinitions, to be applied to the cluster
    Crds(crds::Arguments),
    /// Prepare a PostgreSQL server and the registry: what only an administrator can do, once; may be run again
    ServerSetup(server_setup::Arguments),
}
