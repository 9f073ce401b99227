//! Loops that run beside the controllers while this process leads. Each has one function `run`, which `run.rs` starts under
//! the supervisor.

pub mod activity_links;
pub mod breaker;
pub mod daily_check;
pub mod drift;
pub mod inactivity;
pub mod leftovers;
pub mod lock_watch;
mod migration_logins;
pub mod module_rollout;
pub mod moves;
pub mod object_changes;
pub mod old_templates;
pub mod overview;
pub mod plan_rollout;
pub mod purge;
pub mod reclaim;
pub mod reopened_access;
pub mod retention;
pub mod server_rollout;
pub mod support_access;
pub mod timers;
pub mod usage;
pub mod vanished;
