//! Tenantry's development environment: a real Kubernetes control plane, a real PostgreSQL and the operator, all on
//! loopback. Tests, benchmarks, `make up` and `make demo` start their parts through this library and nothing else.
//!
//! Linux only: children are tied to their parent with `setpriv --pdeathsig`, so that a killed run leaves none behind.

pub mod background;
pub mod bench;
pub mod binaries;
mod callers_cluster;
pub mod certificates;
pub mod control_plane;
pub mod demo;
pub mod environment;
pub mod error;
pub mod installation;
pub mod interposer;
pub mod kubectl;
pub mod operator;
pub mod places;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod progress;
pub mod service;

pub use binaries::Version;
pub use control_plane::{ControlPlane, ControlPlaneOptions};
pub use environment::{Environment, EnvironmentOptions, Installation, InstallationOptions};
pub use error::{Error, Result};
pub use operator::{Operator, OperatorOptions};
pub use postgres::{Postgres, PostgresOptions, Stop};
