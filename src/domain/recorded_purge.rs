//! What the registry has of `spec.purgeModules`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What became of the names in `spec.purgeModules`.
pub type RecordedPurges = BTreeMap<String, RecordedPurge>;

/// What became of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state")]
pub enum RecordedPurge {
    /// It may be dropped, or not yet.
    Begun {
        /// The module's own schema; none for a module that shares it.
        schema: Option<String>,
    },
    /// The tenant has nothing of it.
    Purged,
    /// Nothing was dropped.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}
