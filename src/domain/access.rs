//! The access level: what a tenant's own login may do in its database.

use std::fmt;

/// Ordered from the strictest to the widest, so that the strictest of several wins by `min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccessLevel {
    /// No login, no session.
    Blocked,
    /// SELECT only.
    ReadOnly,
    /// SELECT and DELETE: a tenant over its storage can make room.
    ShrinkOnly,
    /// Everything a tenant may ever do.
    ReadWrite,
}

impl AccessLevel {
    /// All levels, strictest first.
    pub const ALL: [Self; 4] = [Self::Blocked, Self::ReadOnly, Self::ShrinkOnly, Self::ReadWrite];

    /// The level's name in `status.access` and in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "Blocked",
            Self::ReadOnly => "ReadOnly",
            Self::ShrinkOnly => "ShrinkOnly",
            Self::ReadWrite => "ReadWrite",
        }
    }

    /// The PostgreSQL group that gives this level, if any: a login is a member of exactly one, or of none.
    pub fn group(self) -> Option<&'static str> {
        match self {
            Self::Blocked => None,
            Self::ReadOnly => Some("tenantry_ro"),
            Self::ShrinkOnly => Some("tenantry_shrink"),
            Self::ReadWrite => Some("tenantry_rw"),
        }
    }
}

impl fmt::Display for AccessLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_wins_by_min() {
        assert_eq!(AccessLevel::ReadWrite.min(AccessLevel::Blocked), AccessLevel::Blocked);
        assert_eq!(AccessLevel::ReadOnly.min(AccessLevel::ShrinkOnly), AccessLevel::ReadOnly);
        assert!(AccessLevel::ALL.is_sorted());
    }
}
