//! The SQL side, on real PostgreSQL 15 and 18, with a login that is no superuser.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod access;
mod cuts;
mod evasions;
mod managed;
mod meters;
mod preflight;
mod provisioning;
mod seeds;
mod servers;
mod storage;
mod tls;
