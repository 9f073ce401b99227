//! The controller of `TenantHold`: what is held is recorded in the registry; the controller of `Tenant` enforces it.

pub mod reconcile;
mod status;
