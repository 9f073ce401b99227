//! The status of a TenantAccount. It is computed from a few named fields: nothing of the Tenant's reasons, holds, server or
//! conditions can get into it.

use jiff::Timestamp;

use super::{AccountRecord, AccountView, Refusal};
use crate::api::{
    conditions::{ConditionStatus, READY, condition, find_condition, set_condition},
    reason::Reason,
    tenant_account::{
        ExportRequestStatus, PlanRequestStatus, RequestState, TenantAccount, TenantAccountStatus,
    },
    tenant_status::TenantStatus,
};

/// What the status is computed from.
#[derive(Clone, Copy, Debug)]
pub struct AccountFacts<'a> {
    /// The object.
    pub account: &'a TenantAccount,
    /// What is on record of it.
    pub record: &'a AccountRecord,
    /// How far it is.
    pub view: &'a AccountView,
    /// The customer's name in force.
    pub display_name: &'a str,
    /// The registry's id of the tenant.
    pub tenant_id: &'a str,
    /// The status of the Tenant.
    pub tenant: &'a TenantStatus,
}

/// The status of an account.
pub fn account_status(facts: AccountFacts<'_>, now: Timestamp) -> TenantAccountStatus {
    let AccountFacts { account, record, view, tenant, .. } = facts;
    let plan_request = record.plan_request.as_ref().map(|request| PlanRequestStatus {
        plan: request.plan.clone(),
        state: match request.answered {
            false => RequestState::Pending,
            true if tenant.plan.as_ref() == Some(&request.plan) || !is_ready(tenant) => RequestState::Granted,
            true => RequestState::Superseded,
        },
    });
    let export_request = record.export_request.as_ref().map(|name| ExportRequestStatus {
        name: name.clone(),
        state: if view.allowed.export { RequestState::Pending } else { RequestState::Refused },
    });
    let generation = account.metadata.generation;
    let before = account.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let mut conditions = find_condition(before, READY).cloned().into_iter().collect();
    let (status, reason, message) = ready(&view.refusals, is_ready(tenant));
    set_condition(&mut conditions, condition(READY, status, reason, message, generation, now));
    TenantAccountStatus {
        observed_generation: generation,
        tenant_id: Some(facts.tenant_id.to_owned()),
        display_name: Some(facts.display_name.to_owned()),
        plan: tenant.plan.clone(),
        state: tenant.state,
        limits: tenant.limits.clone(),
        usage: tenant.usage.clone(),
        trial_ends_at: tenant.trial_ends_at.clone(),
        purge_after: tenant.purge_after.clone(),
        editable_settings: view.allowed.settings.clone(),
        available_plans: view.allowed.plans.clone(),
        plan_request,
        export_request,
        conditions,
    }
}

/// Whether what the Tenant comes to is in force.
fn is_ready(tenant: &TenantStatus) -> bool {
    find_condition(&tenant.conditions, READY)
        .is_some_and(|ready| ready.status == ConditionStatus::True.as_str())
}

fn ready(refusals: &[Refusal], is_in_force: bool) -> (ConditionStatus, Reason, String) {
    if !refusals.is_empty() {
        let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        return (ConditionStatus::False, Reason::NotAllowed, texts.join("; "));
    }
    match is_in_force {
        true => (
            ConditionStatus::True,
            Reason::AccountCurrent,
            "what can be edited is in force as written".into(),
        ),
        false => (
            ConditionStatus::False,
            Reason::AccountPending,
            "not everything is in force yet: it is tried again".into(),
        ),
    }
}
