//! Follows the rows of all chains, in their order, and compares each with the one before it, with the heads, and with heads
//! that were stored elsewhere. Of a chain, only its last row is kept.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    ChainFinding, ChainHead, GENESIS, LoggedActivity, StoredHead, WITHOUT_TENANT, finding::Difference,
    hexadecimal_hash,
};

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainSummary {
    /// Rows that were read.
    pub rows: u64,
    /// Chains that were read.
    pub chains: u64,
    /// Stored heads that were compared with their row.
    pub stored: u64,
    /// Rows that were removed with the archive, from the beginning of their chains.
    pub removed: u64,
    /// Differences.
    pub differences: u64,
}

/// A check of all chains.
#[derive(Debug, Default)]
pub struct ChainVerifier {
    heads: BTreeMap<Uuid, ChainHead>,
    stored: BTreeMap<Uuid, Vec<StoredHead>>,
    open: Option<OpenChain>,
    findings: Vec<ChainFinding>,
    summary: ChainSummary,
}

/// The chain whose rows are read.
#[derive(Debug)]
struct OpenChain {
    chain: Uuid,
    tenant: String,
    head: Option<ChainHead>,
    /// Stored heads that were not compared yet.
    stored: Vec<StoredHead>,
    /// The last row's.
    position: i64,
    hash: Vec<u8>,
}

/// How a person names a chain.
fn name(chain: Uuid, slug: Option<&str>) -> String {
    match slug {
        Some(slug) => format!("tenant {slug} ({chain})"),
        None if chain == WITHOUT_TENANT => "rows without a tenant".to_owned(),
        None => format!("tenant {chain}"),
    }
}

impl ChainVerifier {
    /// A check against the registry's heads and stored ones. `unlinked` are the numbers of rows without a position.
    pub fn new(heads: Vec<ChainHead>, unlinked: &[(Uuid, i64)], stored: Vec<StoredHead>) -> Self {
        let mut verifier =
            Self { heads: heads.into_iter().map(|head| (head.chain, head)).collect(), ..Self::default() };
        for head in stored {
            verifier.stored.entry(head.chain()).or_default().push(head);
        }
        for (chain, rows) in unlinked {
            let head = verifier.heads.get(chain);
            let what = match head.is_some_and(|head| head.pending) {
                true => Difference::NotLinkedYet { rows: *rows },
                false => Difference::NotByTrigger { rows: *rows },
            };
            let tenant = name(*chain, head.and_then(|head| head.slug.as_deref()));
            verifier.findings.push(ChainFinding { tenant, what });
        }
        verifier
    }

    /// The next row; those of a chain follow each other, by their positions. A row without a position is counted elsewhere.
    pub fn check(&mut self, row: &LoggedActivity) {
        let Some(link) = &row.link else { return };
        self.summary.rows += 1;
        if self.open.as_ref().is_none_or(|open| open.chain != row.chain()) {
            self.close();
            self.open(row.chain(), true);
        }
        let Some(open) = &mut self.open else { return };
        let mut found = Vec::new();
        let (id, position) = (row.id, link.position);
        if position <= open.position {
            let what = Difference::Inserted { id, position };
            self.findings.push(ChainFinding { tenant: open.tenant.clone(), what });
            return;
        }
        let next = open.position + 1;
        if position > next {
            found.push(Difference::Missing { from: next, to: position - 1 });
        } else if link.previous != open.hash {
            found.push(Difference::NotAfter { id, position });
        }
        if row.hash(position, &link.previous).as_ref().map(<[u8; 32]>::as_slice) != Some(&link.hash) {
            found.push(Difference::Changed { id, position });
        }
        if open.head.as_ref().is_some_and(|head| position > head.position) {
            found.push(Difference::AfterHead { id, position });
        }
        (open.position, open.hash) = (position, link.hash.clone());
        found.extend(open.compare_stored(&mut self.summary));
        let tenant = &open.tenant;
        self.findings.extend(found.into_iter().map(|what| ChainFinding { tenant: tenant.clone(), what }));
    }

    /// What was found since the last call.
    pub fn take_findings(&mut self) -> Vec<ChainFinding> {
        self.summary.differences += self.findings.len() as u64;
        std::mem::take(&mut self.findings)
    }

    /// How many rows were read so far.
    pub fn rows(&self) -> u64 {
        self.summary.rows
    }

    /// After the last row: what is missing at the ends, and the sum.
    pub fn finish(mut self) -> (Vec<ChainFinding>, ChainSummary) {
        self.close();
        // Chains without rows.
        let left: Vec<Uuid> = self.heads.keys().chain(self.stored.keys()).copied().collect();
        for chain in left {
            if self.heads.contains_key(&chain) || self.stored.contains_key(&chain) {
                self.open(chain, false);
                self.close();
            }
        }
        let findings = self.take_findings();
        (findings, self.summary)
    }

    fn open(&mut self, chain: Uuid, has_rows: bool) {
        let head = self.heads.remove(&chain);
        let stored = self.stored.remove(&chain).unwrap_or_default();
        let slug = head.as_ref().and_then(|head| head.slug.as_deref());
        let slug = slug.or_else(|| stored.first().and_then(|head| head.slug.as_deref()));
        let tenant = name(chain, slug);
        let mut found = Vec::new();
        if head.is_none() && has_rows {
            found.push(Difference::NoHead);
        }
        let (position, hash) = match &head {
            Some(head) => (head.removed_position, head.removed_hash.clone()),
            None => (0, GENESIS.to_vec()),
        };
        self.summary.chains += u64::from(head.is_some() || has_rows);
        self.summary.removed += u64::try_from(position).unwrap_or_default();
        let mut open = OpenChain { chain, tenant, head, stored, position, hash };
        found.extend(open.compare_stored(&mut self.summary));
        let tenant = open.tenant.clone();
        self.findings.extend(found.into_iter().map(|what| ChainFinding { tenant: tenant.clone(), what }));
        self.open = Some(open);
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let mut found = Vec::new();
        if let Some(head) = &open.head {
            let is_empty = head.position > 0 && head.removed_position == head.position;
            if is_empty && !head.is_closed {
                found.push(Difference::Emptied { position: head.position });
            } else if open.position < head.position {
                found.push(Difference::CutOff { from: open.position + 1, to: head.position });
            } else if open.position == head.position && open.hash != head.hash {
                found.push(Difference::NotTheHead { position: head.position });
            }
        }
        let gone =
            |stored: &StoredHead| Difference::StoredIsGone { stored: stored.position, last: open.position };
        found.extend(open.stored.iter().map(gone));
        self.findings
            .extend(found.into_iter().map(|what| ChainFinding { tenant: open.tenant.clone(), what }));
    }
}

impl OpenChain {
    /// Compares the stored heads at the last row's position. One before it has no row: before the first row that is left, it
    /// was removed with the archive.
    fn compare_stored(&mut self, summary: &mut ChainSummary) -> Vec<Difference> {
        let removed = self.head.as_ref().map_or(0, |head| head.removed_position);
        let mut found = Vec::new();
        let (position, hash) = (self.position, hexadecimal_hash(&self.hash));
        self.stored.retain(|stored| {
            if stored.position == position {
                summary.stored += 1;
                if stored.hash != hash {
                    found.push(Difference::Rewritten { position });
                }
            } else if stored.position < removed {
                found.push(Difference::StoredIsTooOld { stored: stored.position, removed });
            } else {
                // A later row, or one that is missing.
                return true;
            }
            false
        });
        found
    }
}

#[cfg(test)]
mod tests;
