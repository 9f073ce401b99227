//! The heads of chains: as the registry has them, and as they were stored elsewhere.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{WITHOUT_TENANT, hexadecimal_hash};

/// The end of a chain, as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// The tenant's id.
    pub chain: Uuid,
    /// The tenant's slug.
    pub slug: Option<String>,
    /// The position of the last row; 0 for a chain without rows.
    pub position: i64,
    /// Its hash.
    pub hash: Vec<u8>,
    /// The position of the last row that was removed from the archive; 0 if none was.
    pub removed_position: i64,
    /// Its hash.
    pub removed_hash: Vec<u8>,
    /// Whether rows from before the chain are not all linked.
    pub pending: bool,
    /// Whether the tenant is deprovisioned: then its last row may be removed too.
    pub is_closed: bool,
}

impl ChainHead {
    /// What is stored elsewhere, and compared later.
    pub fn stored(&self) -> StoredHead {
        StoredHead {
            tenant: (self.chain != WITHOUT_TENANT).then_some(self.chain),
            slug: self.slug.clone(),
            position: self.position,
            hash: hexadecimal_hash(&self.hash),
        }
    }
}

/// The end of a chain at an earlier time, as a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredHead {
    /// The tenant's id; none for the rows without a tenant.
    pub tenant: Option<Uuid>,
    /// The slug that the tenant had.
    #[serde(default)]
    pub slug: Option<String>,
    /// The position of the last row.
    pub position: i64,
    /// Its hash, in hexadecimal.
    pub hash: String,
}

impl StoredHead {
    /// The chain's id.
    pub fn chain(&self) -> Uuid {
        self.tenant.unwrap_or(WITHOUT_TENANT)
    }
}

/// Why stored heads cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HeadsError {
    /// A line is no head.
    #[error("line {0} is not a line of `tenantry audit heads`: {1}")]
    Line(usize, serde_json::Error),
    /// There is no line.
    #[error("it has no heads")]
    Empty,
}

/// The heads in a text with one JSON object in each line. Empty lines are skipped.
///
/// # Errors
/// The number of the first line that is not a head; and a text without a head, which would prove nothing.
pub fn parse_heads(text: &str) -> Result<Vec<StoredHead>, HeadsError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let heads: Vec<StoredHead> = lines
        .map(|(number, line)| serde_json::from_str(line).map_err(|error| HeadsError::Line(number + 1, error)))
        .collect::<Result<_, _>>()?;
    if heads.is_empty() { Err(HeadsError::Empty) } else { Ok(heads) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_were_written() {
        let head = ChainHead {
            chain: Uuid::from_u128(7),
            slug: Some("acme".to_owned()),
            position: 12,
            hash: vec![0xab; 32],
            removed_position: 0,
            removed_hash: vec![0; 32],
            pending: false,
            is_closed: false,
        };
        let without = ChainHead { chain: WITHOUT_TENANT, slug: None, ..head.clone() };
        let lines: Vec<String> =
            [&head, &without].map(|head| serde_json::to_string(&head.stored()).unwrap()).into();
        assert_eq!(parse_heads(&lines.join("\n\n")).unwrap(), [head.stored(), without.stored()]);
        assert!(lines[1].contains(r#""tenant":null"#), "{}", lines[1]);
        let message = |text: &str| parse_heads(text).unwrap_err().to_string();
        assert!(message(&format!("{}\nx", lines[0])).starts_with("line 2 is not a line of"));
        assert_eq!(message(" \n"), "it has no heads");
    }
}
