//! What a customer's administrator changed in the TenantAccount, and what that makes of the Tenant. The Tenant's own spec is
//! never written: what counts is computed from both, so that a GitOps tool that applies the Tenant again reverts nothing.

mod accept;
mod plan_request;
mod shown;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::{
    accept::{Refusal, accept},
    plan_request::{PlanAnswer, fits},
    shown::{AccountFacts, account_status},
};
use super::{
    attribution::Actor,
    declaration::{ChangeRow, Declaration},
    settings,
};
use crate::api::{
    plan::SelfService,
    reason::Reason,
    tenant::Tenant,
    tenant_account::{ExportRequest, PlanRequest, TenantAccount, TenantAccountSpec},
};

/// What is on record of a tenant's account: it survives the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountRecord {
    /// Where the object was created, until it is removed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<AccountPlace>,
    /// What the object declared when its changes were last recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declaration: Option<Declaration>,
    /// The display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The settings that were accepted. Those that the plan does not allow any more have no effect.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Value>,
    /// The request for another plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_request: Option<RecordedPlanRequest>,
    /// The name of the request for an export.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_request: Option<String>,
    /// The plan that was granted last, while it is asked for and the Tenant names the same plan as then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<PlanGrant>,
    /// Who ended the last grant in the account, by another request or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn_by: Option<String>,
}

/// Where an account is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountPlace {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// A request for another plan, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPlanRequest {
    /// The plan.
    pub plan: String,
    /// It was granted once: what is decided after that is not reverted by it.
    pub answered: bool,
}

/// A plan that counts instead of the Tenant's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanGrant {
    /// The plan.
    pub plan: String,
    /// The plan in the Tenant's spec when it was granted: with another one there, the grant is over.
    pub instead_of: String,
    /// Who asked for it.
    pub by: String,
}

/// What a plan lets the customer's administrator change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The settings.
    pub settings: Vec<String>,
    /// The plans that are granted at once.
    pub plans: Vec<String>,
    /// Whether an export may be asked for.
    pub export: bool,
}

impl Allowed {
    /// By a plan's spec.
    pub fn by(rules: Option<&SelfService>) -> Self {
        let Some(rules) = rules else { return Self::default() };
        Self {
            settings: rules.settings.clone(),
            plans: rules.plans.clone(),
            export: rules.export.unwrap_or(false),
        }
    }
}

/// The namespace in which a Tenant wants its account.
pub fn account_namespace(tenant: &Tenant) -> Option<&str> {
    tenant.spec.account_namespace.as_deref().filter(|namespace| !namespace.is_empty())
}

impl AccountRecord {
    /// The plan that counts instead of the one in the Tenant's spec.
    pub fn granted_plan(&self, tenant: &Tenant) -> Option<&PlanGrant> {
        account_namespace(tenant)?;
        self.grant.as_ref().filter(|grant| grant.instead_of == tenant.spec.plan)
    }

    /// Whether the plan that was granted is over: the Tenant names another one than then. It does not count again when the
    /// Tenant names that one again.
    pub fn has_ended_grant(&self, tenant: &Tenant) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.instead_of != tenant.spec.plan)
    }

    /// The Tenant with the plan that was granted.
    pub fn with_plan<'t>(&self, tenant: &'t Tenant) -> Cow<'t, Tenant> {
        let Some(grant) = self.granted_plan(tenant) else { return Cow::Borrowed(tenant) };
        let mut changed = tenant.clone();
        changed.spec.plan.clone_from(&grant.plan);
        Cow::Owned(changed)
    }

    /// The Tenant with the display name and the settings of the account, as far as the plan in force allows, and as far as
    /// there is room for them.
    pub fn with_values<'t>(&self, mut tenant: Cow<'t, Tenant>, editable: &[String]) -> Cow<'t, Tenant> {
        if account_namespace(&tenant).is_none() {
            return tenant;
        }
        if let Some(name) = self.display_name.as_ref().filter(|name| **name != tenant.spec.display_name) {
            tenant.to_mut().spec.display_name.clone_from(name);
        }
        if let Some(merged) = self.merged_settings(&tenant, editable)
            && merged != tenant.spec.settings
            && settings::check(&merged).is_ok()
        {
            tenant.to_mut().spec.settings = merged;
        }
        tenant
    }

    /// The settings of the Tenant with those of the account; none if it has none that the plan allows.
    fn merged_settings(&self, tenant: &Tenant, editable: &[String]) -> Option<BTreeMap<String, Value>> {
        let mut edited = self.settings.iter().filter(|(key, _)| editable.contains(key)).peekable();
        edited.peek()?;
        let mut merged = tenant.spec.settings.clone();
        merged.extend(edited.map(|(key, value)| (key.clone(), value.clone())));
        Some(merged)
    }

    /// Whether the Tenant's own settings, which may have grown since, leave no room for those of the account: then none of
    /// these count, so that the customer's never make the Tenant's spec invalid.
    pub fn has_no_room(&self, tenant: &Tenant, editable: &[String]) -> bool {
        let merged = self.merged_settings(tenant, editable);
        merged.is_some_and(|merged| settings::check(&merged).is_err())
            && settings::check(&tenant.spec.settings).is_ok()
    }

    /// The spec of the object when it is created again.
    pub fn spec(&self) -> TenantAccountSpec {
        TenantAccountSpec {
            display_name: self.display_name.clone(),
            settings: self.settings.clone(),
            plan_request: self
                .plan_request
                .as_ref()
                .map(|request| PlanRequest { plan: request.plan.clone() }),
            export_request: self.export_request.clone().map(|name| ExportRequest { name }),
        }
    }

    /// Whether an object is older than what is on record of it.
    pub fn is_newer_than(&self, account: &TenantAccount) -> bool {
        let Some(recorded) = &self.declaration else { return false };
        let generation = account.metadata.generation.unwrap_or_default();
        Some(&recorded.object) == account.metadata.uid.as_ref() && generation < recorded.generation
    }

    /// Records that a plan counts from now on. Returns the row of the activity log.
    pub fn grant_plan(&mut self, plan: &str, in_force: &str, tenant: &Tenant, by: &Actor) -> ChangeRow {
        let by = by.to_string();
        let details = json!({"from": in_force, "to": plan});
        let is_other = plan != tenant.spec.plan;
        self.grant = is_other.then(|| PlanGrant {
            plan: plan.to_owned(),
            instead_of: tenant.spec.plan.clone(),
            by: by.clone(),
        });
        ChangeRow { action: Reason::PlanGranted.as_str(), actor: by, reason: None, details }
    }

    /// What waits for a platform operator, for messages.
    pub fn open_requests(&self, allowed: &Allowed) -> Vec<String> {
        let plan = self.plan_request.as_ref().filter(|request| !request.answered);
        let export = self.export_request.as_ref().filter(|_| allowed.export);
        plan.map(|request| format!("plan {:?}", request.plan))
            .into_iter()
            .chain(export.map(|name| format!("export {name:?}")))
            .collect()
    }
}

/// How far the account is, in one reconcile.
#[derive(Clone, Debug)]
pub struct AccountView {
    /// Whether it is there.
    pub situation: AccountSituation,
    /// What of its spec is not in force.
    pub refusals: Vec<Refusal>,
    /// What the plan in force allows.
    pub allowed: Allowed,
}

/// Whether an account is there.
#[derive(Clone, Debug)]
pub enum AccountSituation {
    /// It is.
    Shown(Box<TenantAccount>),
    /// Its namespace does not exist, is being deleted, or lacks the label.
    NamespaceClosed(String),
    /// Another object has its name.
    Conflict(AccountPlace),
    /// It is not there yet, for this reason.
    Pending(String),
}

impl AccountSituation {
    /// Whether time alone may change it.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending(_))
    }
}
