//! The operations on PostgreSQL 15 and 18, with a login that is not a superuser.

#![allow(clippy::unwrap_used)] // a test that cannot continue panics

mod access;
mod cancellation;
mod drift;
mod evasions;
mod managed;
mod meters;
mod preflight;
mod printed_setup;
mod provisioning;
mod rights;
mod security;
mod seeds;
mod servers;
mod storage;
mod templates;
mod tls;
