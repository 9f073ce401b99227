//! Access: what a tenant's own login may do in its database, and what decides it.

pub mod evaluate;
pub mod gates;
pub mod holds;
pub mod inactivity;
pub mod inputs;

use std::fmt;

/// What a tenant's login may do. Ordered from the strictest to the widest, so that `min` is the strictest of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccessLevel {
    /// No login, no sessions.
    Blocked,
    /// SELECT only.
    ReadOnly,
    /// SELECT and DELETE: a tenant that has reached its storage limit can free space.
    ShrinkOnly,
    /// Full access.
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

    /// The PostgreSQL group of this level, if any: a login is a member of exactly one group, or of none.
    pub fn group(self) -> Option<&'static str> {
        match self {
            Self::Blocked => None,
            Self::ReadOnly => Some("tenantry_ro"),
            Self::ShrinkOnly => Some("tenantry_shrink"),
            Self::ReadWrite => Some("tenantry_rw"),
        }
    }

    /// The level of the tenant's reader login at this level: it never does more than read.
    #[must_use]
    pub fn for_reader(self) -> Self {
        self.min(Self::ReadOnly)
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
    fn strictest_level_is_the_minimum() {
        assert_eq!(AccessLevel::ReadWrite.min(AccessLevel::Blocked), AccessLevel::Blocked);
        assert_eq!(AccessLevel::ReadOnly.min(AccessLevel::ShrinkOnly), AccessLevel::ReadOnly);
        assert!(AccessLevel::ALL.is_sorted());
    }
}
