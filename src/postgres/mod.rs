//! The servers that host tenant databases: sessions, roles, databases, templates, seeds, limits and access. Everything
//! here is an idempotent operation on [`server::Server`]; the controller decides when to run it.

pub mod catalog;
mod error;
mod identifier;
pub mod install;
mod migration_error;
pub mod server;
mod session;
pub mod tenant;

pub use self::{
    error::{Error, Result},
    migration_error::{ExtensionError, MigrationError, ModuleSchemaError},
    session::{
        connect::{ServerConfig, Tls},
        detour::while_let_in,
    },
};
