//! What is installed once per server: roles, rights and templates, and the check of them.

pub mod preflight;
mod roles;
pub mod setup;
pub(in crate::postgres) mod templates;
