//! The servers that host tenant databases: sessions, roles, databases, templates, seeds, limits, access. Everything here is
//! an idempotent operation on [`server::Server`]; what is done when is the controller's.

mod access;
mod connect;
pub mod credentials;
pub mod databases;
pub mod drift;
mod error;
mod identifier;
pub mod inventory;
mod limits;
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
pub mod storage;
mod tables;
mod templates;
pub mod usage;
pub mod vacuum;

pub use self::{
    connect::{ServerConfig, Tls},
    error::{Error, Result},
    migrate::MigrationError,
};
