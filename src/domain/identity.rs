//! The identity of a tenant.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The registry's id of a tenant. It survives an undelete, and identifies everything that belongs to the tenant: it is
/// in the ownership comments of its database and login, and in a label of its Secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub Uuid);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}
