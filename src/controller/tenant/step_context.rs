//! What a step works with, and what the run of the steps works with.

use std::sync::Arc;

use kube::{Api, ResourceExt};

use super::{
    evaluate::{applicable, evaluate},
    failure::StepError,
    status_writer::StatusWriter,
};
use crate::{
    api::{tenant::Tenant, tenant_status::WorkflowKind},
    controller::{context::SharedContext, finalizers},
    domain::{
        access::evaluate::AccessEvaluation, record::TenantRecord, spec::DesiredTenant, subject::Subject,
        tenant_facts::RecordedOids, usage::entitlements::Entitlements, workflow::attempt::Progress,
    },
    modules::ModuleSet,
    postgres::server::Server,
};

/// What is executed, and for whom.
pub struct Execution<'a, 'c> {
    /// The tenant.
    pub subject: Subject<'a>,
    /// What was done before in this reconcile.
    pub progress: Progress,
    /// The kind of workflow that the steps are.
    pub kind: WorkflowKind,
    /// More steps follow that cannot be planned yet: the workflow does not end with these.
    pub again: bool,
    /// The tenant's server, while it is ready.
    pub server: Option<Server>,
    /// Everything else.
    pub context: &'c SharedContext,
    /// Where progress is shown.
    pub status: &'c mut StatusWriter,
}

/// The input and output of a step.
pub struct StepContext<'r, 'v> {
    /// The tenant. A step replaces the record with the row that the registry returned.
    pub subject: &'r mut Subject<'v>,
    /// What was done before in this reconcile.
    pub progress: &'r mut Progress,
    /// The tenant's server.
    pub server: Option<&'r Server>,
    /// Everything else.
    pub context: &'r SharedContext,
}

impl<'r> StepContext<'r, '_> {
    /// The Tenant.
    pub fn tenant(&self) -> &Tenant {
        self.subject.tenant
    }

    /// The Tenant's namespace.
    pub fn namespace(&self) -> String {
        self.subject.tenant.namespace().unwrap_or_default()
    }

    /// The registry's row; a failure if there is none yet.
    pub fn row(&self) -> Result<&TenantRecord, StepError> {
        self.subject.record.as_ref().ok_or(StepError::Missing("the registry row"))
    }

    /// The row as the registry returned it after a change.
    pub fn replace_record(&mut self, record: TenantRecord) {
        self.subject.record = Some(record);
    }

    /// The valid spec; a failure if there is none.
    pub fn desired(&self) -> Result<&DesiredTenant, StepError> {
        self.subject.desired.as_ref().ok_or(StepError::Missing("a valid spec"))
    }

    /// The evaluation of access; a failure if there is none.
    pub fn access(&self) -> Result<&AccessEvaluation, StepError> {
        self.subject.access().ok_or(StepError::Missing("the access evaluation"))
    }

    /// What the plan grants, else what is on record.
    pub fn entitlements(&self) -> Result<&Entitlements, StepError> {
        let recorded = self.subject.record.as_ref().and_then(|row| row.entitlements.as_ref());
        self.subject.entitlements().or(recorded).ok_or(StepError::Missing("the entitlements"))
    }

    /// The modules that the tenant should have.
    pub fn modules(&self) -> Result<Arc<ModuleSet>, StepError> {
        self.row()?;
        let chosen = applicable(self.subject, self.context);
        Ok(self.context.modules.set_of(&chosen.modules))
    }

    /// The tenant's server; a failure while it is not ready.
    pub fn server(&self) -> Result<&'r Server, StepError> {
        self.server.ok_or(StepError::Missing("the server"))
    }

    /// Evaluates the tenant again, after its row changed.
    pub fn evaluate(&mut self) {
        let evaluation = evaluate(self.subject.tenant, self.subject.record.as_ref(), self.context);
        self.subject.evaluation = Some(evaluation);
    }

    /// The workflow's id, which correlates log lines and activity rows.
    pub fn correlation(&self) -> Result<uuid::Uuid, StepError> {
        self.progress
            .workflow
            .as_ref()
            .map(|workflow| workflow.record.id)
            .ok_or(StepError::Missing("the workflow"))
    }

    /// Restores lost ownership comments on the database and login that are recorded as the tenant's, since steps change
    /// nothing without them, and the name of a login that was renamed.
    pub async fn restore_ownership(&self, server: &Server) -> Result<(), StepError> {
        let row = self.row()?;
        let recorded = RecordedOids::of(row);
        // In a first provisioning nothing was lost yet.
        if !recorded.is_empty() || row.activated_at.is_some() {
            server.restore_ownership(&row.placement, recorded).await?;
        }
        Ok(())
    }

    /// Records whether a verification is due.
    pub async fn set_verification_due(&mut self, is_due: bool) -> Result<(), StepError> {
        let row = self.row()?;
        if row.verification_required != is_due {
            let id = row.id;
            self.replace_record(self.context.registry.set_verification_required(id, is_due).await?.record);
        }
        Ok(())
    }

    /// Adds our finalizer to the Tenant.
    pub async fn claim_finalizer(&self) -> Result<(), kube::Error> {
        finalizers::claim(&self.tenants(), self.tenant()).await
    }

    /// Releases our finalizer on the Tenant.
    pub async fn release_finalizer(&self) -> Result<(), kube::Error> {
        finalizers::release(&self.tenants(), self.tenant()).await
    }

    fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.context.client.clone(), &self.namespace())
    }
}
