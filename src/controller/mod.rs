//! Reconciles: one folder per kind, which observes, plans (purely, in `domain`), executes and writes a status; watches;
//! background loops; and process memory. Apart from leader election, only this module talks to the Kubernetes API.

pub mod actors;
pub mod apply_status;
pub mod background;
mod breaker;
pub mod client;
pub mod clock;
pub mod context;
pub mod database_server;
mod deletion;
pub mod events;
mod finalizers;
pub mod run;
pub mod state;
pub mod supervisor;
pub mod support_access;
pub mod tenant;
pub mod tenant_account;
pub mod tenant_hold;
pub mod tenant_module;
pub mod tenant_plan;
mod watch;
