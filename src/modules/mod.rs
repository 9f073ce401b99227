//! Modules: ordered sets of SQL migrations, applied to every tenant that enables them.

pub mod acceptance;
mod bootstrap;
mod catalog;
pub mod files;
mod headers;
mod module;
mod set;
mod sources;
mod statements;

pub use self::{
    bootstrap::BOOTSTRAP,
    catalog::{BuiltInState, KnownModules, ModuleCatalog, OfferedModule},
    headers::{HeaderError, Headers},
    module::{Extension, Migration, Module, checksum_of_named, hexadecimal},
    set::ModuleSet,
    sources::embedded,
    statements::{Statement, position_of, statements},
};
pub use crate::domain::{
    modules::{INTERNAL, ModuleKind},
    record::ModuleVersion,
};
