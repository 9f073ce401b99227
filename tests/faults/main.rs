//! What happens when something fails, and when time passes. One control plane for the run; every test has an operator
//! and a PostgreSQL of its own, to stop, kill and set ahead.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod attempts;
mod batch;
mod breaker;
mod crash;
mod crd;
mod cuts;
mod drift;
mod fairness;
#[path = "../cluster/fleet.rs"]
mod fleet;
mod grace;
mod leaders;
mod purges;
mod reasons;
mod replaced;
mod rollback;
mod throttling;
mod timed;
mod vanished;
mod world;
