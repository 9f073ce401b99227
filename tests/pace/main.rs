//! How soon, in seconds. One test at a time, and in a test program of its own, which cargo runs when no other runs: what is
//! measured is the operator, not what else the machine has to do. One control plane for the run.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod away;
mod fairness;
#[allow(dead_code, reason = "most of it is for other test programs")]
#[path = "../cluster/fleet.rs"]
mod fleet;
#[allow(dead_code, reason = "most of it is for other test programs")]
#[path = "../faults/world.rs"]
mod world;

/// Whose turn it is.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
