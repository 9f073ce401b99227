//! Where a tenant's data is.

use super::identity::TenantId;

/// Where a tenant's data is, and under which names. Recorded once, at registration, and never computed again: names in it may be older than
/// the rules that would compute them today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The tenant; ownership comments carry its id.
    pub tenant: TenantId,
    /// The name of the DatabaseServer.
    pub server: String,
    /// The database.
    pub database: String,
    /// The schema, where the database is shared with other tenants (`isolation: Schema`).
    pub schema: Option<String>,
    /// The tenant's login.
    pub login: String,
}
