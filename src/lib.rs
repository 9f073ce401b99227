//! Tenantry: a Kubernetes operator that gives every customer a PostgreSQL database of its own.
//!
//! `api` (the resources) is read by `domain` (what is decided, purely), which is read by `postgres` and
//! `registry` (what is done in SQL), which are driven by `controller` (what is done when). `web` serves health and
//! metrics. Nothing imports `controller` but `cli`, which `main` dispatches to.

pub mod api;
pub mod cli;
pub mod controller;
pub mod domain;
pub mod fence;
pub mod leader;
pub mod metrics;
pub mod postgres;
pub mod registry;
pub mod telemetry;
mod turns;
pub mod web;
