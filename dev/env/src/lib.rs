//! Tenantry's development environment: a real Kubernetes control plane, a real PostgreSQL server and the operator, all
//! on loopback. Tests, benchmarks, `make up` and `make demo` start their parts through this library.
//!
//! Linux only: children are started with `setpriv --pdeathsig`, so that they end with a process that is killed.

pub mod background;
pub mod bench;
mod build_script;
pub mod certificates;
pub mod commands;
pub mod container_registry;
pub mod control_plane;
pub mod demo;
pub mod environment;
pub mod error;
mod existing_cluster;
pub mod helm;
pub mod image;
pub mod installation;
pub mod interposer;
pub mod kubectl;
pub mod kubelet;
pub mod operator;
pub mod paths;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod progress;
pub mod promtool;
pub mod rights;
pub mod service;
mod tenants;
pub mod tools;
pub mod webhook;

pub use control_plane::{ControlPlane, ControlPlaneOptions};
pub use environment::{Environment, EnvironmentOptions, Installation, InstallationOptions};
pub use error::{Error, Result};
pub use operator::{Operator, OperatorOptions};
pub use postgres::binaries::Version;
pub use postgres::{Postgres, PostgresOptions, Stop};
pub use webhook::InstalledWebhook;
