//! The controller of `DatabaseServer`: reads its Secrets, connects, checks the operator's rights, and creates the shared
//! roles. Only a server that passed all of it takes tenants.

pub mod configuration;
pub mod controller;
mod expiry;
pub mod prefix;
pub mod preflight;
pub mod reconcile;
