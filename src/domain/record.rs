//! The registry's record of a tenant: one row of `tenants`, typed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
#[cfg(test)]
use uuid::Uuid;

pub use super::hidden::Hidden;
use super::{
    access::{
        AccessLevel,
        gates::EffectiveGate,
        holds::{Hold, HoldActor, describe_legal_holds},
    },
    account::AccountRecord,
    breaker::Vanished,
    declaration::Declaration,
    identity::TenantId,
    observed::{RegistryStatus, Takeover},
    offboarding::PurgeTerms,
    placement::Placement,
    recorded_purge::RecordedPurges,
    rotation::{self, CredentialRecord, Rotation, RotationPolicy},
    usage::{
        entitlements::{Amounts, Entitlements},
        thresholds::WarnedLimits,
    },
};
use crate::api::{
    reason::Reason,
    tenant::{OffboardingTrigger, Tenant},
};

/// The version of a module in a tenant's database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModuleVersion {
    /// The module's name.
    pub name: String,
    /// The last version that was applied.
    pub version: i32,
}

/// A row of `tenants`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the columns are described in migrations/system")]
pub struct TenantRecord {
    pub id: TenantId,
    pub slug: String,
    pub name: String,
    pub plan: String,
    pub status: RegistryStatus,
    pub status_reason: Option<String>,
    pub status_updated_at: Timestamp,
    pub status_updated_by: String,
    pub activated_at: Option<Timestamp>,
    pub suspended_at: Option<Timestamp>,
    pub deprovisioned_at: Option<Timestamp>,
    pub purge_after: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub offboarding_trigger: Option<OffboardingTrigger>,
    /// `deletion_policy` is `Retain`: access is revoked, and the database is never dropped.
    pub retain: bool,
    pub settings: BTreeMap<String, Value>,
    pub holds: Vec<Hold>,
    /// Where the tenant's database is.
    pub placement: Placement,
    pub database_exists: bool,
    /// How far the takeover of a database is that existed before the tenant; none of one that is created.
    pub takeover: Option<Takeover>,
    pub resource_namespace: String,
    pub resource_name: String,
    pub resource_uid: String,
    /// The level that was last proven to be in force; none while it is not known.
    pub access: Option<AccessLevel>,
    pub password_verifier: Option<Hidden<String>>,
    pub password_digest: Option<Hidden<Vec<u8>>>,
    pub credentials: CredentialRecord,
    /// The versions of the modules that the tenant has, in the order in which they are applied.
    pub module_versions: Vec<ModuleVersion>,
    pub seed_digest: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub purge_started_at: Option<Timestamp>,
    pub purge_held: Option<String>,
    pub purge_hastened_at: Option<Timestamp>,
    pub rolling_back: bool,
    pub database_oid: Option<i64>,
    pub login_oid: Option<i64>,
    pub warned_of: Option<Timestamp>,
    pub sessions_seen: Option<i64>,
    pub last_session_at: Option<Timestamp>,
    pub inactivity_warned_at: Option<Timestamp>,
    pub frozen_by: Option<i64>,
    /// Its object does not exist, and the breaker of mass deletions opened for that.
    pub vanished: Option<Vanished>,
    /// The entitlements in force in the tenant's database; none before the first.
    pub entitlements: Option<Entitlements>,
    pub gates: Vec<EffectiveGate>,
    pub default_gates: Option<Vec<String>>,
    pub gates_done_at: Option<Timestamp>,
    /// The usage that was last measured.
    pub usage: Amounts,
    /// When it was measured.
    pub measured_at: Option<Timestamp>,
    /// When the tenant's last workflow will be tried again, after a failure.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether the tenant's last workflow has not ended.
    pub has_open_workflow: bool,
    /// Why the tenant's last workflow failed, while it waits for its next attempt.
    pub last_failure: Option<Reason>,
    /// The limits that the user was warned about.
    pub warned_limits: WarnedLimits,
    /// The server was restored, or the database was found to be older than recorded: it has to be verified.
    pub verification_required: bool,
    /// What became of the names in `spec.purgeModules`.
    pub module_purges: RecordedPurges,
    /// What the Tenant declared when its changes were last recorded; absent before the first.
    pub declaration: Option<Declaration>,
    /// The generation of the Tenant up to which its status accounts for its spec.
    pub status_generation: Option<i64>,
    /// The generation up to which its entitlements do.
    pub entitlements_generation: Option<i64>,
    /// Who changed its holds since its status was recorded.
    pub holds_changed_by: Option<String>,
    /// Who placed its holds, by name.
    pub hold_actors: BTreeMap<String, HoldActor>,
    /// What its customer's administrator changed in the TenantAccount.
    pub account: AccountRecord,
}

impl TenantRecord {
    /// The generation of this object up to which its changes are on record.
    pub fn seen_generation(&self, tenant: &Tenant) -> Option<i64> {
        let recorded = self.declaration.as_ref();
        let same = recorded.filter(|recorded| Some(&recorded.object) == tenant.metadata.uid.as_ref());
        same.map(|recorded| recorded.generation)
    }

    /// What is due of the tenant's credentials.
    pub fn rotation(&self, tenant: &Tenant, now: Timestamp) -> Rotation {
        rotation::evaluate(&RotationPolicy::of(tenant), &self.credentials, self.activated_at, now)
    }

    /// The terms of its purge, while the tenant is being deprovisioned.
    pub fn terms(&self) -> Option<PurgeTerms> {
        let purge_after = self.purge_after.filter(|_| self.status == RegistryStatus::Deprovisioning)?;
        Some(PurgeTerms { purge_after, retain: self.retain, held: self.purge_held.is_some() })
    }

    /// A legal hold on the tenant, if it has one: no purge begins.
    pub fn legal_hold(&self) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.preserve.is_some())
    }

    /// Who placed a hold, as it was recorded; absent if it was placed by a release that did not record it.
    pub fn placed_by(&self, hold: &Hold) -> Option<&str> {
        let actor = self.hold_actors.get(&hold.name)?;
        (actor.since == hold.since).then_some(actor.by.as_str())
    }

    /// All legal holds on the tenant, by name, for messages; none if it has none.
    pub fn legal_holds(&self) -> Option<String> {
        describe_legal_holds(&self.holds)
    }
}

#[cfg(test)]
impl TenantRecord {
    /// A row for tests, of an activated tenant.
    pub fn example(status: RegistryStatus) -> Self {
        let began = Timestamp::UNIX_EPOCH;
        Self {
            id: TenantId(Uuid::from_u128(1)),
            slug: "acme".into(),
            name: "Acme".into(),
            plan: "starter".into(),
            status,
            status_reason: None,
            status_updated_at: began,
            status_updated_by: "ada".into(),
            activated_at: Some(began),
            suspended_at: None,
            deprovisioned_at: (status == RegistryStatus::Deprovisioning).then_some(began),
            purge_after: (status == RegistryStatus::Deprovisioning).then_some(began),
            closed_at: None,
            offboarding_trigger: None,
            retain: false,
            settings: BTreeMap::new(),
            holds: Vec::new(),
            placement: Placement {
                tenant: TenantId(Uuid::from_u128(1)),
                server: "default".into(),
                database: "tenant_acme".into(),
                schema: None,
                login: "tenant_acme_app".into(),
                previous_login: None,
                reader_login: None,
            },
            database_exists: true,
            takeover: None,
            resource_namespace: "customers".into(),
            resource_name: "acme".into(),
            resource_uid: "uid".into(),
            access: Some(AccessLevel::Blocked),
            password_verifier: None,
            password_digest: None,
            credentials: CredentialRecord::default(),
            module_versions: Vec::new(),
            seed_digest: None,
            created_at: began,
            updated_at: began,
            purge_started_at: None,
            purge_held: None,
            purge_hastened_at: None,
            rolling_back: false,
            database_oid: None,
            login_oid: None,
            warned_of: None,
            sessions_seen: None,
            last_session_at: None,
            inactivity_warned_at: None,
            frozen_by: None,
            vanished: None,
            entitlements: None,
            gates: Vec::new(),
            default_gates: None,
            gates_done_at: None,
            usage: Amounts::new(),
            measured_at: None,
            next_attempt_at: None,
            has_open_workflow: false,
            last_failure: None,
            warned_limits: WarnedLimits::new(),
            verification_required: false,
            module_purges: RecordedPurges::new(),
            declaration: None,
            status_generation: None,
            entitlements_generation: None,
            holds_changed_by: None,
            hold_actors: BTreeMap::new(),
            account: AccountRecord::default(),
        }
    }
}
