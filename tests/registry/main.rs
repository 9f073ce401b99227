//! The registry on real PostgreSQL servers, the oldest and the newest version that are supported.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod breaker;
mod failures;
mod lifecycle;
mod limits;
mod migrations;
mod registration;
mod rights;
mod servers;
mod standing;
mod system;
mod tombstones;
mod workflows;
