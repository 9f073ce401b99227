//! Tests on a real Kubernetes control plane. One is shared by the whole run; every test has a namespace of its own.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod conditions;
mod fleet;
mod holds;
mod leaving;
mod limits;
mod many;
mod plans;
mod provisioning;
mod schema;
mod servers;
mod suspension;
mod tenants;
mod world;
