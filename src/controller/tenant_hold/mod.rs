//! The controller of `TenantHold`: a hold is recorded in the registry; the controller of `Tenant` enforces it.

pub mod controller;
pub mod reconcile;
mod status;
