//! The operations on PostgreSQL 15 and 18, with a login that is not a superuser.

#![allow(clippy::unwrap_used)] // a test that cannot continue panics

mod access;
mod admins;
mod adopting;
mod cancellation;
mod drift;
mod evasions;
mod excess;
mod managed;
mod meters;
mod migration_login;
mod migrations;
mod module_schemas;
mod modules;
mod own_users;
mod pgbouncer;
mod planted;
mod preflight;
mod printed_setup;
mod provisioning;
mod reader;
mod rehearsal;
mod release_before;
mod reserve;
mod rights;
mod rotation;
mod security;
mod seeds;
mod servers;
mod storage;
mod stored_settings;
mod structure;
mod support;
mod temp_files;
mod templates;
mod tls;
mod tools;
mod traces;
mod uninstall;
