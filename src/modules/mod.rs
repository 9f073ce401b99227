//! Modules: ordered sets of SQL migrations, applied to every tenant that enables them.

mod bootstrap;
mod catalog;
mod headers;
mod module;
mod set;
mod sources;
mod statements;

pub use self::{
    bootstrap::BOOTSTRAP,
    catalog::ModuleCatalog,
    headers::{HeaderError, Headers},
    module::{Extension, Migration, Module, hexadecimal},
    set::ModuleSet,
    sources::{INTERNAL, embedded},
    statements::{Statement, position_of, statements},
};
pub use crate::domain::record::ModuleVersion;
