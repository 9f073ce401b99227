//! What is installed once per server: roles, rights and templates, and the check of them.

mod borrowed_memberships;
mod large_objects;
mod points;
pub mod preflight;
pub mod printed;
mod rehearsal;
pub mod rights;
mod roles;
mod scratch;
pub mod setup;
mod template_source;
pub(in crate::postgres) mod templates;
