//! The registry on real PostgreSQL servers, the oldest and the newest version that are supported.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod accounts;
mod activity_chain;
mod activity_links;
mod actors;
mod audit_command;
mod breaker;
mod declared_objects;
mod entitlements_and_usage;
mod failures;
mod holds_and_states;
mod kept_login;
mod legal_holds;
mod lifecycle;
mod migrations;
mod modules;
mod moves;
mod notifications;
mod recorded_state;
mod registration;
mod restored;
mod retention;
mod returned_rows;
mod rights;
mod rotation;
mod servers;
mod slugs;
mod support_access;
mod system;
mod tombstones;
mod workflows;
