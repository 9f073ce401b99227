//! What happens when something fails, and when time passes. One control plane for the run; every test has an operator
//! and a PostgreSQL of its own, to stop, kill and set ahead.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod batch;
mod crash;
mod cuts;
mod drift;
#[path = "../cluster/fleet.rs"]
mod fleet;
mod grace;
mod leaders;
mod purges;
mod replaced;
mod rollback;
mod vanished;
mod world;
