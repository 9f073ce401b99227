//! What Tenantry decides, as values: no IO, no async, no clock, no randomness.
//!
//! `desired` turns a spec into types that cannot be wrong, `observed` holds what was found, `plan` compares the two
//! and says which steps bring them together.

pub mod access;
pub mod backoff;
pub mod breaker;
pub mod departure;
pub mod desired;
pub mod gates;
pub mod given;
pub mod hold;
pub mod identity;
pub mod inactivity;
pub mod lifecycle;
pub mod limits;
pub mod modules;
pub mod names;
pub mod observed;
pub mod plan;
pub mod quota;
pub mod rollout;
pub mod settings;
pub mod slug;
pub mod standing;
pub mod steps;
pub mod uptake;
