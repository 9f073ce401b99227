//! The operations on PostgreSQL 15 and 18, with a login that is not a superuser.

#![allow(clippy::unwrap_used)] // a test that cannot continue panics

mod access;
mod cancellation;
mod evasions;
mod excess;
mod managed;
mod meters;
mod preflight;
mod provisioning;
mod reserve;
mod seeds;
mod servers;
mod storage;
mod temp_files;
mod tls;
