//! The prefix of database names.

use crate::api::database_server::DatabaseServer;

/// The prefix where the server does not set one.
const DEFAULT_PREFIX: &str = "tenant_";

/// The prefix of the names of a server's databases.
pub fn prefix(server: Option<&DatabaseServer>) -> String {
    server.and_then(|server| server.spec.prefix.clone()).unwrap_or_else(|| DEFAULT_PREFIX.to_owned())
}
