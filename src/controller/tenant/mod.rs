//! The controller of `Tenant`: load → observe → plan → execute → status, one file each.

mod admin_content;
pub mod admin_secret;
pub mod adoption;
pub mod claims;
pub mod controller;
pub mod converge;
pub mod evaluate;
pub mod execute;
pub mod failure;
pub mod history;
pub mod holds;
pub mod load;
pub mod object_match;
pub mod observe;
pub mod pipeline_login;
pub mod plan;
pub mod purge_guard;
pub mod reconcile;
pub mod requeue;
pub mod rights;
pub mod secrets;
pub mod slots;
pub mod status_writer;
pub mod step_context;
pub mod steps;
pub mod takeover;
pub mod tombstone;
