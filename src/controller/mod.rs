//! What is done when: one folder per kind. Each folder observes, plans (purely, in `domain`), executes and writes a
//! status. Apart from leader election, only this module talks to the Kubernetes API.

pub mod breaker;
pub mod client;
pub mod clock;
pub mod context;
pub mod database_server;
pub mod events;
mod finalizers;
pub mod run;
pub mod servers;
pub mod tenant;
pub mod tenant_hold;
pub mod tenant_plan;
mod watches;
