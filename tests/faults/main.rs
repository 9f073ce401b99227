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
#[path = "../cluster/fleet.rs"]
mod fleet;
mod fresh;
mod grace;
mod invariants;
mod leaders;
mod left;
mod model;
mod purges;
mod random;
mod reasons;
mod replaced;
mod rollback;
mod sequence;
mod throttling;
mod timed;
mod usage;
mod vanished;
mod world;
