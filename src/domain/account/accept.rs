//! Which part of an account's spec counts. The API server has refused what is never allowed; what only the plan knows is
//! refused here, and the value that was accepted before stays.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use super::{AccountRecord, Allowed, RecordedPlanRequest};
use crate::{
    api::{tenant::Tenant, tenant_account::TenantAccountSpec},
    domain::settings::{self, SettingsError},
};

/// The most that the settings of an account may take, in bytes: they never use up what the Tenant's own may take.
const MAX_BYTES: usize = 16 * 1024;

/// A part of an account's spec that is not in force. The texts are for the customer: they name nothing of the provider's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The plan does not let the administrator change this setting.
    NotEditable(String),
    /// The value of this setting is not possible.
    Impossible(String),
    /// All settings together are too large.
    TooLarge,
    /// The plan has no exports.
    Export,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEditable(key) => {
                write!(
                    f,
                    "settings.{key} cannot be edited with this plan: remove it, or see status.editableSettings"
                )
            }
            Self::Impossible(key) => {
                write!(
                    f,
                    "settings.{key} has a null, the character U+0000 or an integer beyond 2^53: write another value"
                )
            }
            Self::TooLarge => f.write_str("settings take too much room together: write shorter values"),
            Self::Export => f.write_str("exportRequest is not possible with this plan: remove it"),
        }
    }
}

/// What is accepted of an account's spec, and what is not. `before` is on record.
pub fn accept(
    spec: &TenantAccountSpec,
    before: &AccountRecord,
    tenant: &Tenant,
    allowed: &Allowed,
) -> (AccountRecord, Vec<Refusal>) {
    let mut refusals = Vec::new();
    let mut accepted: BTreeMap<String, Value> = BTreeMap::new();
    for (key, value) in &spec.settings {
        let one = BTreeMap::from([(key.clone(), value.clone())]);
        let refusal = if !allowed.settings.contains(key) {
            Some(Refusal::NotEditable(key.clone()))
        } else {
            match settings::check(&one) {
                Ok(()) | Err(SettingsError::TooLarge { .. }) => None,
                Err(_) => Some(Refusal::Impossible(key.clone())),
            }
        };
        let value = match refusal {
            Some(refusal) => {
                refusals.push(refusal);
                before.settings.get(key)
            }
            None => Some(value),
        };
        if let Some(value) = value {
            accepted.insert(key.clone(), value.clone());
        }
    }
    if accepted != before.settings && is_too_large(&accepted, tenant) {
        refusals.push(Refusal::TooLarge);
        accepted.clone_from(&before.settings);
    }
    let plan_request = spec.plan_request.as_ref().map(|request| RecordedPlanRequest {
        plan: request.plan.clone(),
        answered: before.plan_request.as_ref().is_some_and(|old| old.plan == request.plan && old.answered),
    });
    // It is granted as long as it is asked for.
    let asked_for = spec.plan_request.as_ref().map(|request| &request.plan);
    let grant = before.grant.clone().filter(|grant| asked_for == Some(&grant.plan));
    let export_request = spec.export_request.as_ref().map(|request| request.name.clone());
    if export_request.is_some() && !allowed.export {
        refusals.push(Refusal::Export);
    }
    let record = AccountRecord {
        display_name: spec.display_name.clone(),
        settings: accepted,
        plan_request,
        export_request,
        grant,
        ..before.clone()
    };
    (record, refusals)
}

/// Whether settings are too large: by themselves, or with those of the Tenant, which are not refused for them.
fn is_too_large(accepted: &BTreeMap<String, Value>, tenant: &Tenant) -> bool {
    let mut all = tenant.spec.settings.clone();
    if settings::check(&all).is_ok() {
        all.extend(accepted.clone());
    } else {
        all.clone_from(accepted);
    }
    settings::bytes(accepted) > MAX_BYTES || settings::check(&all).is_err()
}
