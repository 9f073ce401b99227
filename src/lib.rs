//! Tenantry: a Kubernetes operator that gives every customer a PostgreSQL database of its own.
//!
//! `api` (the resources) is used by `domain` (pure decisions), which is used by `postgres` and `registry` (SQL), which are used
//! by `controller` (reconciles, watches and loops). `images` reads container registries. `web` serves health and metrics, `webhook`
//! answers the API server, `traces` exports spans. Only `cli` uses `controller`, and `main`
//! dispatches to `cli`.

pub mod api;
pub mod cli;
pub mod controller;
pub mod domain;
pub mod fence;
pub mod images;
mod keyed_lock;
pub mod leader;
pub mod metrics;
pub mod modules;
mod own_authority;
pub mod postgres;
pub mod registry;
pub mod telemetry;
pub mod traces;
pub mod web;
pub mod webhook;
