//! What this process remembers. Nothing here knows the Context, and everything can be read again after a restart.

pub mod breaker;
pub mod failed_lists;
pub mod fingerprint;
pub mod images;
pub mod invalid_objects;
pub mod latest_status;
pub mod leftovers;
pub mod login_use;
pub mod migration_runs;
pub mod modules;
pub mod plan_rollout;
pub mod recorded_usage;
pub mod recorded_users;
pub mod registry_reads;
pub mod reports;
pub mod retries;
pub mod scopes;
pub mod server_credentials;
pub mod server_rollout;
pub mod servers;
pub mod snapshot;
pub mod support;
pub mod timers;
pub mod tombstones;
pub mod waiting;
pub mod warned_limits;
