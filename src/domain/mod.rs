//! What Tenantry decides, as values: no IO, no async, no clock, no randomness.
//!
//! `spec` turns a Tenant's spec into types that cannot be wrong, `observed` has what was read, and `workflow` compares
//! the two and returns the steps that bring them together.

pub mod accepted_module;
pub mod access;
pub mod backoff;
pub mod breaker;
pub mod claims;
pub mod daily;
pub mod drift;
pub mod due_modules;
pub mod endings;
pub mod excess;
pub mod health;
pub mod hidden;
pub mod identity;
pub mod known_rows;
pub mod leftovers;
pub mod lifecycle;
pub mod lock_watch;
pub mod migration_login;
pub mod migration_run;
pub mod module_graph;
pub mod module_purge;
pub mod module_refusal;
pub mod module_status;
pub mod modules;
pub mod named_row;
pub mod names;
pub mod observed;
pub mod offboarding;
pub mod overview;
pub mod placement;
pub mod plan_adoption;
pub mod reconcile_queue;
pub mod record;
pub mod recorded_purge;
pub mod rehearsal;
pub mod retention;
pub mod rights;
pub mod rotation;
pub mod seed_record;
pub mod settings;
pub mod slug;
pub mod slug_owner;
pub mod spec;
pub mod status;
pub mod stored_run;
pub mod structure;
pub mod subject;
pub mod takeover;
pub mod tenant_facts;
pub mod usage;
pub mod work;
pub mod workflow;
