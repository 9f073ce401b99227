//! What a TenantHold is told of itself.

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    api::{
        conditions::{
            ConditionStatus, IN_FORCE, READY, RECONCILING, condition, reason, remove_condition,
            same_ignoring_times, set_condition,
        },
        tenant_hold::{TenantHold, TenantHoldStatus},
        tenant_status::HoldMode,
    },
    controller::{context::Context, tenant::failure::StepError},
};

/// Field manager of the status.
const STATUS_MANAGER: &str = "tenantry/status";

/// How a hold stands.
pub enum Verdict<'a> {
    /// There is no Tenant of the name.
    NoTenant,
    /// The tenant is deprovisioned: there is nothing to hold.
    Gone,
    /// The Tenant has no row yet: it will be held from its first moment.
    NotRegistered,
    /// It is recorded; PostgreSQL does not prove it yet.
    Enforcing,
    /// PostgreSQL proves it.
    InForce {
        /// What the tenant may still do.
        mode: HoldMode,
        /// The tenant goes away, and may do nothing anyway.
        leaving: bool,
    },
    /// It could not be recorded.
    Failed(&'a StepError),
}

impl Verdict<'_> {
    fn told(&self, hold: &TenantHold) -> (ConditionStatus, &'static str, String) {
        let tenant = &hold.spec.tenant;
        let not_yet = ConditionStatus::False;
        match self {
            Self::NoTenant => (
                not_yet,
                reason::TENANT_NOT_FOUND,
                format!("there is no Tenant {tenant:?}; one that is applied is held from its first moment"),
            ),
            Self::Gone => (
                not_yet,
                reason::DEPROVISIONED,
                format!("Tenant {tenant:?} is deprovisioned: there is nothing to hold"),
            ),
            Self::NotRegistered => (
                not_yet,
                reason::WAITING,
                format!("Tenant {tenant:?} is not registered yet; it is held from its first moment"),
            ),
            Self::Enforcing => (
                not_yet,
                reason::ENFORCING,
                format!("recorded; that Tenant {tenant:?} is held to it is not proven yet"),
            ),
            Self::InForce { leaving: true, .. } => (
                ConditionStatus::True,
                reason::TENANT_LEAVING,
                format!("Tenant {tenant:?} goes away and may do nothing; the hold stays should it come back"),
            ),
            Self::InForce { mode, leaving: false } => (
                ConditionStatus::True,
                reason::VERIFIED,
                format!("PostgreSQL was read: Tenant {tenant:?} may do no more than {mode}"),
            ),
            Self::Failed(error) => (not_yet, error.reason(), error.to_string()),
        }
    }
}

/// Writes the status, if it says something new.
pub async fn write_status(
    hold: &TenantHold,
    verdict: &Verdict<'_>,
    context: &Context,
) -> Result<(), StepError> {
    let before = hold.status.clone().unwrap_or_default();
    let mut conditions = before.conditions.clone();
    let (generation, now) = (hold.metadata.generation, context.clock.now());
    let (status, reason, message) = verdict.told(hold);
    for type_ in [READY, IN_FORCE] {
        set_condition(&mut conditions, condition(type_, status, reason, message.clone(), generation, now));
    }
    remove_condition(&mut conditions, RECONCILING);
    if status != ConditionStatus::True {
        let working = condition(RECONCILING, ConditionStatus::True, reason, message, generation, now);
        set_condition(&mut conditions, working);
    }
    if before.observed_generation == generation && same_ignoring_times(&before.conditions, &conditions) {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": TenantHold::api_version(&()),
        "kind": TenantHold::kind(&()),
        "metadata": {"name": hold.name_any(), "uid": hold.uid()},
        "status": TenantHoldStatus { observed_generation: generation, conditions },
    });
    let api = Api::<TenantHold>::namespaced(context.client.clone(), &hold.namespace().unwrap_or_default());
    let params = PatchParams::apply(STATUS_MANAGER).force();
    match api.patch_status(&hold.name_any(), &params, &Patch::Apply(patch)).await {
        Ok(_) => Ok(()),
        // Gone, or made anew: there is nobody to tell.
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
