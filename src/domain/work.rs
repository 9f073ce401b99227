//! The classes of work on a server, and which steps belong to each. Each class has slots of its own, so that a restriction
//! of access waits for no other work.

use super::{access::AccessLevel, record::TenantRecord, workflow::step::Step};
use crate::api::{
    tenant::{DesiredState, Tenant},
    tenant_status::{Access, TenantStatus},
};

/// A class of work on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Work that restricts a tenant's access: never more than that.
    Restrictions,
    /// The purges of tenants whose access is revoked: a drop takes long, and only one runs at a time.
    Purges,
    /// Everything else.
    Tenants,
}

impl Work {
    /// The class of a reconcile, as far as the Tenant and its newest status show. A Tenant that is not being deprovisioned
    /// may belong to [`Work::Restrictions`] nevertheless: see [`must_narrow`].
    pub fn of(tenant: &Tenant, status: &TenantStatus) -> Self {
        let deleted = tenant.metadata.deletion_timestamp.is_some();
        if !deleted && tenant.spec.state != Some(DesiredState::Deprovisioned) {
            return Self::Tenants;
        }
        // The tombstone ends the restriction: with it, the object can be released.
        let is_revoked = status.access == Some(Access::Blocked) && status.deprovisioned_at.is_some();
        if is_revoked { Self::Purges } else { Self::Restrictions }
    }

    /// Whether a step may run in a slot of this class. A restriction is short: its slot is not used for anything that may
    /// take long.
    fn includes(self, step: Step) -> bool {
        match self {
            Self::Purges | Self::Tenants => true,
            Self::Restrictions => matches!(
                step,
                Step::ClaimFinalizer
                    // Only of an interrupted rotation: one statement, without which the level has no login.
                    | Step::CreateRoles
                    | Step::EnforceAccess
                    | Step::RecordState
                    | Step::RestoreActivation
                    | Step::AdoptRow
                    | Step::CutAccess
                    | Step::Tombstone
                    | Step::ReleaseFinalizer
            ),
        }
    }

    /// How many of these steps, from the first on, may run in a slot of this class.
    pub fn included(self, steps: &[Step]) -> usize {
        steps.iter().take_while(|step| self.includes(**step)).count()
    }
}

/// Whether an active tenant has more access on record than the level that it should have.
pub fn must_narrow(record: &TenantRecord, wanted: AccessLevel) -> bool {
    record.status.was_active() && wanted < record.access.unwrap_or(AccessLevel::ReadWrite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::observed::RegistryStatus;
    use serde_json::json;

    fn tenant(deleted: bool, state: Option<&str>) -> Tenant {
        let mut object = json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "a"},
            "spec": {"slug": "abc", "displayName": "A", "plan": "p", "state": state},
        });
        if deleted {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-01T00:00:00Z");
        }
        serde_json::from_value(object).unwrap()
    }

    fn status(status: serde_json::Value) -> TenantStatus {
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn departure_is_restriction_until_access_is_revoked_and_tombstone_is_written() {
        let revoked = json!({"access": "Blocked", "deprovisionedAt": "2026-11-01T00:00:00Z"});
        for (deleted, state) in [(true, None), (false, Some("Deprovisioned"))] {
            let of = |shown| Work::of(&tenant(deleted, state), &status(shown));
            assert_eq!(of(json!({"access": "ReadWrite"})), Work::Restrictions);
            assert_eq!(of(json!({"access": "Blocked"})), Work::Restrictions);
            assert_eq!(
                of(json!({"access": "Unknown", "deprovisionedAt": "2026-11-01T00:00:00Z"})),
                Work::Restrictions
            );
            assert_eq!(of(revoked.clone()), Work::Purges);
        }
        // One that came back has other work to do.
        assert_eq!(Work::of(&tenant(false, Some("Active")), &status(revoked)), Work::Tenants);
    }

    #[test]
    fn restriction_ends_before_first_step_that_may_take_long() {
        let purge = [Step::CutAccess, Step::Tombstone, Step::DropDatabase, Step::ReleaseFinalizer];
        assert_eq!(Work::Restrictions.included(&purge), 2);
        assert_eq!(Work::Purges.included(&purge), 4);
        let grace = [Step::ClaimFinalizer, Step::CutAccess, Step::Tombstone, Step::ReleaseFinalizer];
        assert_eq!(Work::Restrictions.included(&grace), 4);
        assert_eq!(Work::Restrictions.included(&[Step::ApplyMigrations, Step::EnforceAccess]), 0);
    }

    #[test]
    fn only_active_tenant_with_more_access_than_wanted_must_be_narrowed() {
        let mut row = TenantRecord::example(RegistryStatus::Active);
        // Nothing is known of its access: that counts as full access.
        row.access = None;
        assert!(must_narrow(&row, AccessLevel::ReadOnly));
        assert!(!must_narrow(&row, AccessLevel::ReadWrite));
        row.access = Some(AccessLevel::ReadOnly);
        assert!(must_narrow(&row, AccessLevel::Blocked));
        assert!(!must_narrow(&row, AccessLevel::ReadOnly));
        let mut unfinished = TenantRecord::example(RegistryStatus::Provisioning);
        unfinished.access = None;
        assert!(!must_narrow(&unfinished, AccessLevel::Blocked));
    }
}
