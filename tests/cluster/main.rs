//! Tests on a real Kubernetes control plane. One is shared by the whole run; every test has a namespace of its own.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod access;
mod accounts;
mod actors;
mod conditions;
mod deprovisioning;
mod finalizers;
mod gitops;
mod holds;
mod images;
mod limits;
mod migration_run;
mod migrations;
mod modules;
mod object_activity;
mod own_application;
mod plans;
mod property;
mod provisioning;
mod purged_modules;
mod reader;
mod rotation;
mod same_slug;
mod scale;
mod schema;
mod secrets;
mod seeds;
mod servers;
mod slug_changes;
mod suspension;
mod undecodable;
