//! Failures, and the passage of time. One control plane for the process; every test has an operator
//! and a PostgreSQL of its own, to stop, kill and set ahead in time.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod actors;
mod adopting;
mod batch;
mod breaker;
mod canaries;
mod crash;
mod crash_jobs;
mod crash_modules;
mod crash_reader;
mod crash_rotation;
mod crash_slug;
mod crash_support;
mod crd;
mod deadlines;
mod drift;
mod enforcement;
mod fairness;
mod fresh;
mod grace_periods;
mod health;
mod invariants;
mod kept_login;
mod leaders;
mod legal_hold;
mod locks;
mod lost_objects;
mod model;
mod module_schemas;
mod modules;
mod moves;
mod names;
mod outages;
mod purges;
mod random;
mod reasons;
mod reopened_access;
mod replaced_server;
mod reports;
mod restored_registry;
mod restrictions;
mod retention;
mod retries;
mod rights;
mod rollback;
mod secret_keys;
mod sequence;
mod snapshot;
mod support_access;
mod throttling;
mod tools;
mod traces;
mod upgrade;
mod usage;
