//! The subject of a reconcile: a tenant's object, what the registry records of it, and how both were evaluated. The
//! phases of a reconcile hand it on; the plan and the status are computed from it.

use super::{
    access::{AccessLevel, evaluate::AccessEvaluation},
    account::AccountView,
    attribution::{Actor, RecordedChanges},
    observed::RegistryStatus,
    record::TenantRecord,
    spec::DesiredTenant,
    usage::entitlements::Entitlements,
    work::must_narrow,
    workflow::{ObjectState, TenantObject},
};
use crate::api::{
    tenant::{DesiredState, Tenant},
    tenant_status::TenantStatus,
};

/// What a tenant's spec, plan, holds and the time come to.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The access that the tenant should have, and why not more.
    pub access: AccessEvaluation,
    /// What its plan grants; absent while the plan does not exist, or leaves a limit open that the spec does not set.
    pub entitlements: Option<Entitlements>,
    /// Names in `spec.limits` that have no effect, since the plan does not leave them to the tenant.
    pub limits_without_effect: Vec<String>,
}

/// A tenant under reconcile.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The object, with what its customer's administrator changed in the TenantAccount.
    pub tenant: &'a Tenant,
    /// The object, as it was read.
    pub declared: &'a Tenant,
    /// What is read from the object, whether or not its spec is valid.
    pub object: TenantObject,
    /// The newest status known, which may be newer than the object's copy.
    pub previous: TenantStatus,
    /// The valid spec; absent if the object is deleted or its spec cannot be acted on.
    pub desired: Option<DesiredTenant>,
    /// The registry's row; absent if there is none, or it was not read.
    pub record: Option<TenantRecord>,
    /// The row of the tenant that the status names, if it is that of another Tenant.
    pub elsewhere: Option<Box<TenantRecord>>,
    /// Absent only for a tenant whose object does not exist any more.
    pub evaluation: Option<Evaluation>,
    /// Who changed the object, as far as that was read.
    pub changes: RecordedChanges,
    /// The generation up to which the changes of the object were on record when it was read.
    pub seen_generation: Option<i64>,
    /// How far the tenant's account is; absent if it has none.
    pub account: Option<AccountView>,
}

impl Subject<'_> {
    /// Whether the tenant is being deprovisioned: its object is deleted, or its spec says so.
    pub fn is_deprovisioning(&self) -> bool {
        self.object.state != ObjectState::Present
            || self.tenant.spec.state == Some(DesiredState::Deprovisioned)
    }

    /// The evaluation of its access.
    pub fn access(&self) -> Option<&AccessEvaluation> {
        self.evaluation.as_ref().map(|evaluation| &evaluation.access)
    }

    /// What its plan grants now.
    pub fn entitlements(&self) -> Option<&Entitlements> {
        self.evaluation.as_ref()?.entitlements.as_ref()
    }

    /// The access level that should be in force. A tenant that was not evaluated has none.
    pub fn wanted_access(&self) -> AccessLevel {
        match self.access() {
            Some(evaluation) if !self.is_deprovisioning() => evaluation.access,
            _ => AccessLevel::Blocked,
        }
    }

    /// Whether an active tenant has more access on record than it should have.
    pub fn must_narrow(&self) -> bool {
        let record = self.record.as_ref().filter(|_| !self.is_deprovisioning());
        record.is_some_and(|record| must_narrow(record, self.wanted_access()))
    }

    /// Who began to deprovision it: the user who wrote it in the spec; none: who deleted the object.
    pub fn deprovisioned_by(&self) -> Option<Actor> {
        let by_spec = self.tenant.spec.state == Some(DesiredState::Deprovisioned);
        by_spec.then(|| self.changes.last(&["state"]))
    }

    /// Whether its access must be restricted, or is not known to be revoked although it is being deprovisioned.
    pub fn must_restrict(&self) -> bool {
        let open = |record: &TenantRecord| record.access != Some(AccessLevel::Blocked);
        self.must_narrow() || self.is_deprovisioning() && self.record.as_ref().is_some_and(open)
    }

    /// The status on record.
    pub fn recorded_status(&self) -> Option<RegistryStatus> {
        self.record.as_ref().map(|record| record.status)
    }
}
