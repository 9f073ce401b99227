//! The controller of `TenantPlan`: who is on a plan is counted, a plan that is used stays, and a change of it reaches its
//! tenants a few at a time.

pub mod reconcile;
pub mod rollout;
mod status;
