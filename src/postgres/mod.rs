//! The servers that host tenant databases: sessions, roles, databases, templates, seeds, access. Everything here is
//! an idempotent operation on [`server::Server`]; what is done when is the controller's.

mod access;
mod connect;
pub mod credentials;
pub mod databases;
pub mod drift;
mod error;
mod identifier;
pub mod inventory;
mod login;
pub mod mark;
mod migrate;
mod migrator;
pub mod modules;
pub mod preflight;
mod prepared;
mod roles;
pub mod seed;
pub mod server;
mod sessions;
pub mod setup;
mod templates;
pub mod usage;

pub use self::{
    connect::{ServerConfig, Tls},
    error::{Error, Result},
    migrate::MigrationError,
};
