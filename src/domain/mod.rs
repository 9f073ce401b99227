//! What Tenantry decides, as values: no IO, no async, no clock, no randomness.

pub mod access;
pub mod identity;
pub mod names;
pub mod slug;
pub mod steps;
