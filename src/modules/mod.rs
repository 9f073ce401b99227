//! Modules: ordered sets of SQL migrations, applied to every tenant that enables them.

pub mod acceptance;
mod bootstrap;
mod catalog;
pub mod files;
mod module;
mod set;
mod sources;

pub use self::{
    bootstrap::BOOTSTRAP,
    catalog::{KnownModules, ModuleCatalog, OfferedModule},
    module::{Extension, Migration, Module, hexadecimal},
    set::ModuleSet,
    sources::embedded,
};
pub use crate::domain::record::ModuleVersion;
