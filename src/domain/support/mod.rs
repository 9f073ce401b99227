//! Support accesses: a login for one tenant that only reads, for a reason and a limited time. What comes next for one: it
//! waits, is granted, is in force, or ends. What was granted is in the registry; its end is never moved.

pub mod login;
pub mod rights;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{attribution::Actor, identity::TenantId, observed::RegistryStatus};

/// The longest time that a login is valid.
pub const MAX_DURATION: SignedDuration = SignedDuration::from_hours(8);
/// How long it is valid where the spec does not say.
pub const DEFAULT_DURATION: SignedDuration = SignedDuration::from_hours(1);
/// How long after its request an access can be granted: an old object that is applied again opens nothing.
pub const GRANT_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportRequest {
    /// The uid of the SupportAccess.
    pub id: Uuid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// How long the login is valid.
    pub duration: SignedDuration,
    /// Another user must approve it.
    pub requires_approval: bool,
    /// Who asks.
    pub requested_by: String,
}

/// A row of `support_accesses`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportRecord {
    /// What was asked for.
    pub request: SupportRequest,
    /// For which tenant.
    pub tenant: TenantId,
    /// Since when the registry knows it.
    pub requested_at: Timestamp,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// Once it was granted: recorded before the login is made.
    pub grant: Option<Grant>,
    /// When the login was complete and the Secret written.
    pub published_at: Option<Timestamp>,
    /// When a session of the login was seen first.
    pub first_used_at: Option<Timestamp>,
    /// When the login was gone, and why.
    pub ended: Option<(Timestamp, EndReason)>,
}

/// A granted access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// When it was granted.
    pub at: Timestamp,
    /// When the login ends.
    pub expires_at: Timestamp,
    /// The DatabaseServer.
    pub server: String,
    /// The login there.
    pub login: String,
}

/// Why an access ended, or was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its time was over.
    Expired,
    /// The SupportAccess was deleted.
    Deleted,
    /// The tenant is being deprovisioned, or is.
    TenantGone,
    /// The Tenant of this name is another tenant than when the access was requested.
    TenantReplaced,
    /// It was not granted within a day.
    Lapsed,
    /// The registry, restored to an older state, had lost the row of an access that had been granted.
    RecordLost,
}

impl EndReason {
    /// Who ended an access for this reason. The user who deleted its object is known to the webhook alone, if there is one.
    pub fn actor(self, webhook: bool) -> Actor {
        match self {
            Self::Deleted => Actor::of_deletion(webhook),
            _ => Actor::Tenantry,
        }
    }

    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Expired,
        Self::Deleted,
        Self::TenantGone,
        Self::TenantReplaced,
        Self::Lapsed,
        Self::RecordLost,
    ];

    /// As the registry has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "Expired",
            Self::Deleted => "Deleted",
            Self::TenantGone => "TenantGone",
            Self::TenantReplaced => "TenantReplaced",
            Self::Lapsed => "Lapsed",
            Self::RecordLost => "RecordLost",
        }
    }

    /// From the registry.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// For messages.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Expired => "its time was over",
            Self::Deleted => "the SupportAccess was deleted",
            Self::TenantGone => {
                "the tenant is being deprovisioned, or its Tenant is no longer here, which ends all access to its data: once it is back, create another SupportAccess"
            }
            Self::TenantReplaced => {
                "the Tenant of this name is another tenant now: create another SupportAccess"
            }
            Self::Lapsed => "it was not granted within a day of its request: create another SupportAccess",
            Self::RecordLost => {
                "the registry was restored to a state before this access was granted: create another SupportAccess"
            }
        }
    }
}

/// The tenant that an access is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupportedTenant {
    /// There is no Tenant of this name.
    Missing,
    /// It exists, and has no row in the registry yet.
    NotRegistered,
    /// A row of the registry.
    Registered {
        /// Its id.
        id: TenantId,
        /// Its status.
        status: RegistryStatus,
        /// The Tenant is being deleted.
        is_deleted: bool,
    },
}

/// Why an access is not granted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupportWait {
    /// The Tenant does not exist.
    TenantNotFound,
    /// The Tenant is not registered, or was never active.
    NotActive,
    /// Another user must approve it.
    Approval,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupportStep {
    /// Nothing yet, until the time given at the latest.
    Wait(SupportWait, Timestamp),
    /// It is granted, from now on.
    Grant,
    /// It was granted, and the login or its Secret may not be complete.
    Publish,
    /// The login is valid.
    InForce,
    /// The login is taken away.
    End(EndReason),
    /// All is over.
    Ended,
}

/// Who approved an access, as far as that counts: never the user who requested it.
pub fn approval<'a>(request: &SupportRequest, approved_by: Option<&'a str>) -> Option<&'a str> {
    approved_by.filter(|user| !user.is_empty() && *user != request.requested_by)
}

/// Decides what comes next for an access. `record` is none before it is recorded; `created_at` is when its object was made.
pub fn next_step(
    request: &SupportRequest,
    approved_by: Option<&str>,
    created_at: Timestamp,
    tenant: SupportedTenant,
    record: Option<&SupportRecord>,
    now: Timestamp,
) -> SupportStep {
    if record.is_some_and(|record| record.ended.is_some()) {
        return SupportStep::Ended;
    }
    if let SupportedTenant::Registered { id, status, is_deleted } = tenant {
        if record.is_some_and(|record| record.tenant != id) {
            return SupportStep::End(EndReason::TenantReplaced);
        }
        let is_leaving =
            matches!(status, RegistryStatus::Deprovisioning | RegistryStatus::Deprovisioned) || is_deleted;
        if is_leaving {
            return SupportStep::End(EndReason::TenantGone);
        }
    }
    if let Some(grant) = record.and_then(|record| record.grant.as_ref()) {
        // The row of the tenant outlives its object: without one, the tenant is leaving.
        return match tenant {
            _ if grant.expires_at <= now => SupportStep::End(EndReason::Expired),
            SupportedTenant::Missing => SupportStep::End(EndReason::TenantGone),
            _ if record.is_some_and(|record| record.published_at.is_none()) => SupportStep::Publish,
            _ => SupportStep::InForce,
        };
    }
    let lapses_at = created_at.checked_add(GRANT_WINDOW).unwrap_or(Timestamp::MAX);
    if lapses_at <= now {
        return SupportStep::End(EndReason::Lapsed);
    }
    let wait = |why| SupportStep::Wait(why, lapses_at);
    match tenant {
        SupportedTenant::Missing => wait(SupportWait::TenantNotFound),
        SupportedTenant::NotRegistered => wait(SupportWait::NotActive),
        SupportedTenant::Registered { status, .. } if !status.was_active() => wait(SupportWait::NotActive),
        _ if request.requires_approval && approval(request, approved_by).is_none() => {
            wait(SupportWait::Approval)
        }
        _ => SupportStep::Grant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTED: Timestamp = Timestamp::constant(1_000_000, 0);

    fn request(requires_approval: bool) -> SupportRequest {
        SupportRequest {
            id: Uuid::from_u128(7),
            namespace: "customers".into(),
            name: "look".into(),
            reason: "ticket 1".into(),
            duration: DEFAULT_DURATION,
            requires_approval,
            requested_by: "ada".into(),
        }
    }

    fn record(granted: bool) -> SupportRecord {
        SupportRecord {
            request: request(false),
            tenant: TenantId(Uuid::from_u128(1)),
            requested_at: REQUESTED,
            approved_by: None,
            grant: granted.then(|| Grant {
                at: REQUESTED,
                expires_at: REQUESTED + DEFAULT_DURATION,
                server: "default".into(),
                login: "tenant_acme_support_0".into(),
            }),
            published_at: granted.then_some(REQUESTED),
            first_used_at: None,
            ended: None,
        }
    }

    fn registered(status: RegistryStatus) -> SupportedTenant {
        SupportedTenant::Registered { id: TenantId(Uuid::from_u128(1)), status, is_deleted: false }
    }

    fn step(tenant: SupportedTenant, record: Option<&SupportRecord>, now: Timestamp) -> SupportStep {
        next_step(&request(false), None, REQUESTED, tenant, record, now)
    }

    #[test]
    fn access_is_granted_at_every_level_of_a_tenant_that_was_active() {
        for status in [RegistryStatus::Active, RegistryStatus::Trial, RegistryStatus::Suspended] {
            assert_eq!(step(registered(status), Some(&record(false)), REQUESTED), SupportStep::Grant);
        }
        let lapses = REQUESTED + GRANT_WINDOW;
        for (tenant, why) in [
            (SupportedTenant::Missing, SupportWait::TenantNotFound),
            (SupportedTenant::NotRegistered, SupportWait::NotActive),
            (registered(RegistryStatus::Provisioning), SupportWait::NotActive),
            (registered(RegistryStatus::Failed), SupportWait::NotActive),
        ] {
            assert_eq!(step(tenant, None, REQUESTED), SupportStep::Wait(why, lapses));
            assert_eq!(step(tenant, None, lapses), SupportStep::End(EndReason::Lapsed));
        }
        let lapsed = step(registered(RegistryStatus::Active), Some(&record(false)), lapses);
        assert_eq!(lapsed, SupportStep::End(EndReason::Lapsed));
    }

    #[test]
    fn approval_is_another_users() {
        let with = |approved_by| {
            let tenant = registered(RegistryStatus::Active);
            next_step(&request(true), approved_by, REQUESTED, tenant, None, REQUESTED)
        };
        let waits = SupportStep::Wait(SupportWait::Approval, REQUESTED + GRANT_WINDOW);
        for none in [None, Some(""), Some("ada")] {
            assert_eq!(with(none), waits, "{none:?}");
        }
        assert_eq!(with(Some("grace")), SupportStep::Grant);
    }

    #[test]
    fn granted_access_ends_at_its_time_and_with_its_tenant_and_never_begins_again() {
        let active = registered(RegistryStatus::Active);
        let granted = record(true);
        let expires = REQUESTED + DEFAULT_DURATION;
        assert_eq!(
            step(active, Some(&granted), expires - SignedDuration::from_secs(1)),
            SupportStep::InForce
        );
        assert_eq!(step(active, Some(&granted), expires), SupportStep::End(EndReason::Expired));
        for tenant in [
            SupportedTenant::Missing,
            registered(RegistryStatus::Deprovisioning),
            registered(RegistryStatus::Deprovisioned),
            SupportedTenant::Registered {
                id: TenantId(Uuid::from_u128(1)),
                status: RegistryStatus::Active,
                is_deleted: true,
            },
        ] {
            let ends = step(tenant, Some(&granted), REQUESTED);
            assert_eq!(ends, SupportStep::End(EndReason::TenantGone), "{tenant:?}");
        }
        let another = SupportRecord { tenant: TenantId(Uuid::from_u128(2)), ..granted.clone() };
        let ends = step(active, Some(&another), REQUESTED);
        assert_eq!(ends, SupportStep::End(EndReason::TenantReplaced));
        let half_made = SupportRecord { published_at: None, ..granted.clone() };
        assert_eq!(step(active, Some(&half_made), REQUESTED), SupportStep::Publish);
        assert_eq!(
            step(active, Some(&half_made), expires),
            SupportStep::End(EndReason::Expired),
            "not made again after its time"
        );
        let ended = SupportRecord { ended: Some((expires, EndReason::Expired)), ..granted };
        for tenant in [active, SupportedTenant::Missing, registered(RegistryStatus::Deprovisioned)] {
            assert_eq!(step(tenant, Some(&ended), REQUESTED), SupportStep::Ended);
        }
    }

    #[test]
    fn end_reasons_are_read_as_they_are_written() {
        for reason in EndReason::ALL {
            assert_eq!(EndReason::parse(reason.as_str()), Some(reason));
            assert!(!reason.describe().is_empty());
        }
        assert_eq!(EndReason::parse("Bored"), None);
    }
}
