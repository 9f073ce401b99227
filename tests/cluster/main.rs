//! Tests on a real Kubernetes control plane. One is shared by the whole run; every test has a namespace of its own.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod conditions;
mod deprovisioning;
mod holds;
mod limits;
mod migrations;
mod plans;
mod provisioning;
mod scale;
mod schema;
mod servers;
mod suspension;
mod undecodable;
