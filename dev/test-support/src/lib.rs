//! What the integration tests share: a control plane per process, operators, tenants, objects, and one way to wait.
//!
//! `World` is an operator with a PostgreSQL of its own, for tests that stop, kill or disturb it. `shared_operator` is one operator
//! for all tests of a process. Both give a `Fleet`: the tenants of one namespace.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

pub mod audit;
mod fleet;
mod job_pods;
pub mod objects;
mod postgres;
pub mod shared_operator;
pub mod traces;
pub mod users;
mod wait;
mod world;

pub use fleet::{Fleet, is_ready};
pub use job_pods::JobPods;
pub use postgres::{login, prepared_postgres};
pub use wait::Wait;
pub use world::{CONTROL_PLANE, Options, PATIENCE, World, names};

/// The `tenantry` binary that cargo built for the test.
fn tenantry() -> std::path::PathBuf {
    std::env::var_os("CARGO_BIN_EXE_tenantry").expect("cargo test sets CARGO_BIN_EXE_tenantry").into()
}
