//! The controller of `DatabaseServer`: reads its Secrets, connects, checks the operator's rights, makes the shared
//! roles. Only a server that passed all of it takes tenants.

pub mod configuration;
pub mod preflight;
pub mod reconcile;
