//! Whether a drift check has to requeue a tenant.

use super::Mismatch;
use crate::{
    api::reason::Reason,
    domain::{access::AccessLevel, workflow::step::Step},
};

/// The reasons of a `Ready` condition that reports a mismatch which waits for a person.
pub const REPORTED: [Reason; 3] = [Reason::DatabaseMissing, Reason::Conflict, Reason::MissingRight];

/// What a drift check knows of a tenant in use.
#[derive(Clone, Copy, Debug)]
pub struct DriftCheck<'a> {
    /// The mismatches with the evaluated access level.
    pub mismatches: &'a [Mismatch],
    /// The evaluated access level.
    pub access: AccessLevel,
    /// The level that is recorded as in force, if one is.
    pub recorded_access: Option<AccessLevel>,
    /// `spec.paused`.
    pub is_paused: bool,
    /// Whether the spec is valid. With an invalid one, the reconcile only revokes access.
    pub has_valid_spec: bool,
    /// Whether the `Ready` condition has one of the reasons in [`REPORTED`].
    pub is_reported: bool,
    /// The same mismatches led to a reconcile before, which did not succeed: the tenant waits for its next attempt.
    pub is_retried: bool,
}

impl DriftCheck<'_> {
    /// Whether a reconcile would repair or report a mismatch, or clear the report of one that was repaired by hand.
    pub fn needs_reconcile(&self) -> bool {
        // Access that a restricted tenant regained is taken back, whatever else is reported.
        if self.mismatches.is_empty() || self.is_reported && !self.is_access_regained() {
            // What was found inside the database is not seen here: it is read again at the next attempt.
            return self.mismatches.is_empty() && self.is_reported && self.recorded_access.is_some();
        }
        if self.is_retried && !self.is_access_regained() {
            return false;
        }
        !self.is_paused && (self.has_valid_spec || self.is_restricted())
    }

    /// Whether a restricted tenant has more access than it should have, and a reconcile can revoke it.
    pub fn is_access_regained(&self) -> bool {
        self.access < AccessLevel::ReadWrite
            && self.mismatches.iter().any(|found| found.grants_access() && found.repaired_by().is_some())
    }

    /// Whether the reconcile of an invalid spec enforces the access level.
    fn is_restricted(&self) -> bool {
        self.access < AccessLevel::ReadWrite
            && self.recorded_access.is_none_or(|recorded| self.access <= recorded)
            && self.mismatches.iter().any(|mismatch| mismatch.repaired_by() == Some(Step::EnforceAccess))
    }
}
