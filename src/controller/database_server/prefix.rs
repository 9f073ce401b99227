//! The names of a server's databases.

use crate::{
    api::database_server::{DatabaseNames, DatabaseServer},
    domain::names::DatabaseNaming,
};

/// The prefix where the server does not set one.
const DEFAULT_PREFIX: &str = "tenant_";

/// The prefix of the names of a server's databases.
pub fn prefix(server: Option<&DatabaseServer>) -> String {
    server.and_then(|server| server.spec.prefix.clone()).unwrap_or_else(|| DEFAULT_PREFIX.to_owned())
}

/// How a server's new databases are named.
pub fn naming(server: Option<&DatabaseServer>) -> DatabaseNaming {
    match server.and_then(|server| server.spec.database_names).unwrap_or_default() {
        DatabaseNames::Slug => DatabaseNaming::Slug { prefix: prefix(server) },
        DatabaseNames::Opaque => DatabaseNaming::Opaque,
    }
}
