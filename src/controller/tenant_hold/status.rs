//! The status of a TenantHold.

use k8s_openapi::jiff::Timestamp;
use kube::{Api, Resource, ResourceExt};

use crate::{
    api::{
        ANNOTATION_ADOPT_ROW,
        conditions::{
            ConditionStatus, IN_FORCE, READY, RECONCILING, STALLED, condition, remove_condition,
            same_ignoring_times, set_condition,
        },
        reason::Reason,
        tenant_hold::{TenantHold, TenantHoldStatus},
        tenant_status::HoldMode,
    },
    controller::{apply_status::apply_status, context::Context, tenant::failure::StepError},
};

/// Whether a hold is in force.
pub enum HoldState<'a> {
    /// Its Tenant does not exist.
    NoTenant,
    /// Its Tenant cannot be decoded.
    InvalidTenant,
    /// Its tenant is deprovisioned.
    Deprovisioned,
    /// A legal hold that restricts nothing, or whose tenant has no access in any case: it is recorded.
    Preserving {
        /// When the grace of the tenant ends, while it is being deprovisioned.
        purge_after: Option<Timestamp>,
    },
    /// A legal hold on a tenant whose purge had begun before.
    TooLate {
        /// When the purge began.
        begun: Timestamp,
    },
    /// Its Tenant is not registered yet, and will be held from its first moment.
    NotRegistered,
    /// Its Tenant was registered, and the registry has no row for it any more: it cannot be recorded.
    RowMissing {
        /// The tenant in the status.
        id: String,
    },
    /// Its Tenant is paused, so that nothing is enforced.
    Paused {
        /// Whether it is recorded: else its Tenant is not registered yet.
        is_recorded: bool,
    },
    /// It is recorded, and not verified in PostgreSQL yet.
    Enforcing,
    /// It was verified in PostgreSQL.
    InForce {
        /// The access that the tenant still has.
        mode: HoldMode,
        /// The tenant is being deprovisioned, and has no access in any case.
        deprovisioning: bool,
    },
    /// It could not be recorded.
    Failed(&'a StepError),
}

impl HoldState<'_> {
    fn condition(&self, hold: &TenantHold) -> (ConditionStatus, Reason, String) {
        let tenant = &hold.spec.tenant;
        let not_yet = ConditionStatus::False;
        match self {
            Self::NoTenant => (
                not_yet,
                Reason::TenantNotFound,
                format!(
                    "Tenant {tenant:?} does not exist in this namespace: check the name; once it is created, it is held from its first moment"
                ),
            ),
            Self::InvalidTenant => (
                not_yet,
                Reason::InvalidObject,
                format!(
                    "Tenant {tenant:?} cannot be decoded: it is not held before it is corrected; see its Events"
                ),
            ),
            Self::Deprovisioned => (
                not_yet,
                Reason::Deprovisioned,
                format!("Tenant {tenant:?} is deprovisioned: it has no access"),
            ),
            Self::Preserving { purge_after } => {
                let departure = purge_after.map(|at| {
                    format!("; it is being deprovisioned, and its grace ends at {at:.0}: until the hold is lifted, it can be restored")
                });
                let message = format!(
                    "recorded in the registry: the data of Tenant {tenant:?} is not deleted{}",
                    departure.unwrap_or_default()
                );
                (ConditionStatus::True, Reason::LegalHold, message)
            }
            Self::TooLate { begun } => (
                not_yet,
                Reason::Purging,
                format!(
                    "too late: the purge of Tenant {tenant:?} began at {begun:.0} and cannot be stopped; its data is deleted. A new Tenant of this name is held from its first moment"
                ),
            ),
            Self::NotRegistered => (
                not_yet,
                Reason::Waiting,
                format!("Tenant {tenant:?} is not registered yet; it is held from its first moment"),
            ),
            Self::RowMissing { id } => (
                not_yet,
                Reason::RegistryRowMissing,
                format!(
                    "Tenant {tenant:?} was registered (status.tenantId {id}), and the registry has no row for it: the hold cannot be recorded, and the access of the tenant is not changed; restore the registry, or have the row written again by the annotation {ANNOTATION_ADOPT_ROW}: then the hold applies"
                ),
            ),
            Self::Paused { is_recorded: false } => (
                not_yet,
                Reason::Paused,
                format!(
                    "Tenant {tenant:?} is not registered yet, because it is paused; it is held from its first moment: to have it registered, set its spec.paused to false"
                ),
            ),
            Self::Paused { is_recorded: true } => (
                not_yet,
                Reason::Paused,
                format!(
                    "recorded; not in force yet, because Tenant {tenant:?} is paused: set its spec.paused to false"
                ),
            ),
            Self::Enforcing => (
                not_yet,
                Reason::Enforcing,
                format!("recorded; not verified yet that it is in force for Tenant {tenant:?}"),
            ),
            Self::InForce { deprovisioning: true, .. } => (
                ConditionStatus::True,
                Reason::TenantLeaving,
                format!(
                    "Tenant {tenant:?} is being deprovisioned and has no access; the hold stays in case it is restored"
                ),
            ),
            Self::InForce { mode, deprovisioning: false } => (
                ConditionStatus::True,
                Reason::Verified,
                format!(
                    "verified in PostgreSQL: the access of Tenant {tenant:?} is at most {mode}{}",
                    if hold.preserves() { "; its data is not deleted" } else { "" }
                ),
            ),
            Self::Failed(error) => (not_yet, error.reason(), error.to_string()),
        }
    }
}

/// Writes the status, if it changed.
pub async fn write_status(
    hold: &TenantHold,
    state: &HoldState<'_>,
    placed_by: Option<String>,
    context: &Context,
) -> Result<(), StepError> {
    let before = hold.status.clone().unwrap_or_default();
    let mut conditions = before.conditions.clone();
    let (generation, now) = (hold.metadata.generation, context.clock.now());
    let (status, reason, message) = state.condition(hold);
    for type_ in [READY, IN_FORCE] {
        set_condition(&mut conditions, condition(type_, status, reason, message.clone(), generation, now));
    }
    for type_ in [RECONCILING, STALLED] {
        remove_condition(&mut conditions, type_);
    }
    if status != ConditionStatus::True {
        let type_ = if matches!(state, HoldState::TooLate { .. }) { STALLED } else { RECONCILING };
        set_condition(
            &mut conditions,
            condition(type_, ConditionStatus::True, reason, message, generation, now),
        );
    }
    // While the tenant has no row, and after a failure, what was shown before stays.
    let placed_by = placed_by.or(before.placed_by.clone());
    let is_same = before.observed_generation == generation && before.placed_by == placed_by;
    if is_same && same_ignoring_times(&before.conditions, &conditions) {
        return Ok(());
    }
    let api = Api::<TenantHold>::namespaced(context.client.clone(), &hold.namespace().unwrap_or_default());
    if matches!(state, HoldState::NoTenant | HoldState::RowMissing { .. } | HoldState::Paused { .. }) {
        let (_, reason, note) = state.condition(hold);
        context.events.warning(hold.object_ref(&()), "Place", reason, note);
    }
    let status = TenantHoldStatus { observed_generation: generation, placed_by, conditions };
    apply_status(&api, hold, &status).await?;
    Ok(())
}
