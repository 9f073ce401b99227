//! The controller of `TenantPlan`: counts the tenants on a plan, and keeps a plan that is in use from being deleted.

pub mod reconcile;
mod status;
