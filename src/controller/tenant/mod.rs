//! The controller of `Tenant`: observe → plan → execute → status, one file each.

pub mod admins;
pub mod alarms;
pub mod attempts;
pub mod bulk;
pub mod conditions;
pub mod cuts;
pub mod drift;
pub mod execute;
pub mod failure;
pub mod inactivity;
pub mod observe;
pub mod presence;
pub mod purge;
pub mod reconcile;
pub mod report;
pub mod secrets;
pub mod standing;
pub mod status;
pub mod steps;
pub mod tombstones;
pub mod visit;
pub mod watch;
pub mod written;
