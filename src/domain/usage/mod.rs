//! Usage: what a plan grants, how much of it a tenant uses, and what follows.

pub mod entitlements;
pub mod limit_names;
pub mod sampling;
pub mod thresholds;
