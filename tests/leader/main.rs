//! Leader election, on a real API server.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod candidate;
mod loss;
mod takeover;
