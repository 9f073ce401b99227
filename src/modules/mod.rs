//! Modules: ordered sets of SQL migrations, applied to every tenant that enables them.

mod bootstrap;
mod catalog;
mod module;
mod set;
mod sources;

pub use self::{
    bootstrap::BOOTSTRAP,
    catalog::ModuleCatalog,
    module::{Extension, Migration, Module, hexadecimal},
    set::ModuleSet,
    sources::{INTERNAL, embedded},
};
pub use crate::domain::record::ModuleVersion;
