//! What a check of a chain finds: which row of which tenant was changed, removed or inserted.

use std::fmt;

/// A difference between a chain and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFinding {
    /// The tenant, as a person names it.
    pub tenant: String,
    /// What is different.
    pub what: Difference,
}

/// What is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The content of a row does not have the hash that the row has.
    Changed {
        /// The row's id.
        id: i64,
        /// Its position.
        position: i64,
    },
    /// A row names another hash of the row before it than that one has.
    NotAfter {
        /// The row's id.
        id: i64,
        /// Its position.
        position: i64,
    },
    /// The row at the end has not the hash that the head names.
    NotTheHead {
        /// The position of both.
        position: i64,
    },
    /// Rows are missing between others.
    Missing {
        /// The first position.
        from: i64,
        /// The last one.
        to: i64,
    },
    /// Rows are missing at the end.
    CutOff {
        /// The first position.
        from: i64,
        /// The last one.
        to: i64,
    },
    /// No row is left of a chain whose tenant exists.
    Emptied {
        /// The position of the last row.
        position: i64,
    },
    /// A row has a position that another row has or had.
    Inserted {
        /// The row's id.
        id: i64,
        /// Its position.
        position: i64,
    },
    /// A row is after the end of its chain.
    AfterHead {
        /// The row's id.
        id: i64,
        /// Its position.
        position: i64,
    },
    /// There are rows, and no head.
    NoHead,
    /// Rows without a position in a chain that is complete.
    NotByTrigger {
        /// How many.
        rows: i64,
    },
    /// Rows from before the chain, which the leader will link.
    NotLinkedYet {
        /// How many.
        rows: i64,
    },
    /// The row at the position of a stored head has another hash.
    Rewritten {
        /// The position.
        position: i64,
    },
    /// A stored head is after the end of the chain, or its row is missing.
    StoredIsGone {
        /// The position of the stored head.
        stored: i64,
        /// The position of the last row.
        last: i64,
    },
    /// The row of a stored head was removed with the archive, and later ones too.
    StoredIsTooOld {
        /// The position of the stored head.
        stored: i64,
        /// The last position that was removed.
        removed: i64,
    },
}

impl fmt::Display for ChainFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tenant, self.what)
    }
}

/// `position 4` or `positions 4 to 6`.
fn positions(from: i64, to: i64) -> String {
    if from == to {
        return format!("the row at position {from} is missing");
    }
    format!("the rows at positions {from} to {to} are missing")
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { id, position } => {
                write!(f, "row {id} (position {position}) was changed: its content does not have its hash")
            }
            Self::NotAfter { id, position } => write!(
                f,
                "the row before row {id} (position {position}) was replaced: it has not the hash that row {id} names"
            ),
            Self::NotTheHead { position } => write!(
                f,
                "the last row (position {position}) was replaced: it has not the hash that activity_heads has"
            ),
            Self::Missing { from, to } => write!(f, "{}: removed", positions(*from, *to)),
            Self::CutOff { from, to } => {
                write!(f, "{} at the end of the chain: removed", positions(*from, *to))
            }
            Self::Emptied { position } => write!(
                f,
                "no row is left, not even the last one (position {position}), which is never removed while the tenant exists"
            ),
            Self::Inserted { id, position } => {
                write!(f, "row {id} was inserted: its position {position} belongs to another row")
            }
            Self::AfterHead { id, position } => write!(
                f,
                "row {id} (position {position}) is after the end of the chain: it was inserted, or activity_heads was \
                 changed"
            ),
            Self::NoHead => {
                f.write_str("the chain has rows and is not in activity_heads: its head was removed")
            }
            Self::NotByTrigger { rows } => {
                write!(f, "rows without a position: {rows}, inserted although all rows were linked")
            }
            Self::NotLinkedYet { rows } => write!(
                f,
                "rows from before the chain that are not linked yet: {rows}; the leader links them after its start: try \
                 again in some minutes"
            ),
            Self::Rewritten { position } => write!(
                f,
                "the row at position {position} has not the hash of the stored head: the chain was written again"
            ),
            Self::StoredIsGone { stored, last } => write!(
                f,
                "the stored head is at position {stored}, and the chain has no such row; it ends at position {last}"
            ),
            Self::StoredIsTooOld { stored, removed } => write!(
                f,
                "the stored head at position {stored} cannot be compared: the archive was emptied up to position \
                 {removed}; use a later file"
            ),
        }
    }
}
