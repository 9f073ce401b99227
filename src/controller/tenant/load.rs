//! The first phase of a reconcile: reads the registry's row, validates the spec and evaluates access. Its only
//! writes are the operator's own holds, which follow from what is loaded.

use std::time::Duration;

use kube::{Resource, ResourceExt};
use tokio::time::timeout;
use tracing::warn;

use super::{
    evaluate::{entitlements, evaluate, refused_purge, selection},
    holds::settle_own_holds,
};
use crate::{
    api::{ANNOTATION_ADOPT_ROW, FINALIZER, reason::Reason, tenant::Tenant, tenant_status::TenantState},
    controller::context::SharedContext,
    domain::{
        account::AccountView,
        attribution::RecordedChanges,
        identity::TenantId,
        named_row::NamedRow,
        record::TenantRecord,
        spec::{SpecError, desired_tenant, is_paused},
        subject::Subject,
        workflow::{ObjectState, TenantObject, activation::is_shown},
    },
    registry,
};

/// How long the registry may take to answer.
pub const REGISTRY_TIMEOUT: Duration = Duration::from_secs(60);

/// A tenant, ready to be observed.
pub struct Loaded<'a> {
    /// The tenant.
    pub subject: Subject<'a>,
    /// Why its spec cannot be acted on, if so.
    pub spec_error: Option<SpecError>,
    /// Why the registry could not be read, if so.
    pub registry_error: Option<registry::Error>,
}

/// What is read from the object, whether or not its spec is valid.
pub fn tenant_object(tenant: &Tenant) -> TenantObject {
    TenantObject {
        has_finalizer: tenant.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
        state: tenant
            .meta()
            .deletion_timestamp
            .as_ref()
            .map_or(ObjectState::Present, |at| ObjectState::Deleting(at.0)),
        paused: is_paused(tenant),
        ..TenantObject::default()
    }
}

/// What was read of a tenant.
pub struct ReadTenant {
    /// The row, if the registry could be read.
    pub row: Result<Option<TenantRecord>, registry::Error>,
    /// How far its account is.
    pub account: Option<AccountView>,
}

/// Loads a tenant. `tenant` is `declared` with what its customer's administrator changed.
pub async fn load<'a>(
    read: ReadTenant,
    tenant: &'a Tenant,
    declared: &'a Tenant,
    object: TenantObject,
    context: &SharedContext,
) -> Loaded<'a> {
    let previous = context.state.latest_status.newest(tenant);
    let (record, mut registry_error) = match read.row {
        Ok(record) => (record, None),
        Err(error) => (None, Some(error)),
    };
    let was_registered = previous.tenant_id.is_some();
    let was_activated = record.as_ref().is_some_and(|record| is_shown(&previous, record.id));
    let adopts_row =
        was_registered && tenant.annotations().get(ANNOTATION_ADOPT_ROW) == previous.tenant_id.as_ref();
    let mut subject = Subject {
        tenant,
        declared,
        account: read.account,
        object: TenantObject { was_registered, was_activated, adopts_row, ..object },
        previous,
        desired: None,
        evaluation: Some(evaluate(tenant, record.as_ref(), context)),
        seen_generation: record.as_ref().and_then(|record| record.seen_generation(tenant)),
        record,
        elsewhere: None,
        changes: RecordedChanges::unknown(
            tenant.metadata.generation.unwrap_or_default(),
            context.state.recorded_users.absent(),
        ),
    };
    report_ignored_change(&subject, context);
    if was_registered && subject.record.is_none() && registry_error.is_none() {
        match named_row(&subject, context).await {
            Ok(Some(row)) => match NamedRow::of(&row, tenant) {
                NamedRow::Closed => subject.record = Some(row),
                NamedRow::OfEarlierObject => subject.object.was_registered = false,
                NamedRow::Elsewhere => {
                    subject.object.is_elsewhere = true;
                    subject.elsewhere = Some(Box::new(row));
                }
            },
            Ok(None) => {}
            Err(error) => registry_error = Some(error),
        }
    }
    let mut spec_error = None;
    if object.state == ObjectState::Present {
        match desired_tenant(tenant, context.as_ref()) {
            Ok(desired) => subject.desired = Some(desired),
            // Deprovisioning needs no valid spec.
            Err(_) if subject.is_deprovisioning() => {}
            Err(error) => spec_error = Some(error),
        }
    }
    match settle_own_holds(&subject, context).await {
        Ok(None) => {}
        Ok(Some(record)) => subject.record = Some(record),
        Err(error) => warn!(%error, "could not place or lift the operator's own holds; they are retried"),
    }
    subject.evaluation = Some(evaluate(tenant, subject.record.as_ref(), context));
    if let Some(error) = plan_error(&subject, context) {
        if !keeps_entitlements(&subject, &error) {
            subject.desired = None;
        }
        spec_error = spec_error.or(Some(error));
    }
    Loaded { subject, spec_error, registry_error }
}

/// The Tenant's row: from the startup snapshot while that is current, else by one query.
pub async fn read_record(
    tenant: &Tenant,
    context: &SharedContext,
) -> Result<Option<TenantRecord>, registry::Error> {
    let uid = tenant.uid().unwrap_or_default();
    if let Some(record) = context.state.snapshot.row(&uid) {
        return Ok(Some(record));
    }
    let namespace = tenant.namespace().unwrap_or_default();
    let name = tenant.name_any();
    let record = context.registry.by_resource(&namespace, &name, &uid);
    // A lost connection would keep the tenant's lock for ever.
    timeout(REGISTRY_TIMEOUT, record).await.unwrap_or(Err(registry::Error::NoAnswer))
}

/// The row of the tenant that the status names.
async fn named_row(
    subject: &Subject<'_>,
    context: &SharedContext,
) -> Result<Option<TenantRecord>, registry::Error> {
    let id = subject.previous.tenant_id.as_deref().and_then(|id| uuid::Uuid::try_parse(id).ok());
    let Some(id) = id.map(TenantId) else { return Ok(None) };
    let row = timeout(REGISTRY_TIMEOUT, context.registry.by_id(id));
    row.await.unwrap_or(Err(registry::Error::NoAnswer))
}

/// Why the plan in force cannot be applied: it does not exist (the one that follows a trial), leaves a limit open that the
/// spec does not set, or names an unknown module. Or why the tenant's modules cannot be applied.
fn plan_error(subject: &Subject<'_>, context: &SharedContext) -> Option<SpecError> {
    if subject.is_deprovisioning() || subject.desired.is_none() {
        return None;
    }
    let plan = &subject.access()?.plan;
    match entitlements(subject.tenant, plan, context) {
        Some(Ok(_)) => {
            let record = subject.record.as_ref();
            let error = selection(subject.tenant, record, subject.entitlements(), context).error;
            error.or_else(|| refused_purge(subject.tenant, record)).map(SpecError::from)
        }
        Some(Err(error)) => Some(error),
        None => {
            Some(SpecError::TrialPlanNotFound { plan: plan.clone(), of: subject.tenant.spec.plan.clone() })
        }
    }
}

/// Whether the tenant keeps its recorded entitlements despite this error while its other work continues: only if it was
/// activated.
fn keeps_entitlements(subject: &Subject<'_>, error: &SpecError) -> bool {
    matches!(error, SpecError::LimitNotSet(_) | SpecError::Module(_))
        && subject.recorded_status().is_some_and(|status| status.was_active())
}

/// Publishes an Event when the spec of a Tenant that is being deleted is changed: that does not restore it.
fn report_ignored_change(subject: &Subject<'_>, context: &SharedContext) {
    let (tenant, previous) = (subject.tenant, &subject.previous);
    let changed = previous.state == Some(TenantState::Deprovisioning)
        && previous.observed_generation.is_some_and(|seen| Some(seen) < tenant.metadata.generation);
    let deleted = subject.object.state != ObjectState::Present;
    // The deletion itself increases the generation.
    if deleted && context.state.retries.was_deleted(tenant) && changed {
        context.events.warning(
            tenant.object_ref(&()),
            "Reconcile",
            Reason::ChangeIgnored,
            "this Tenant is being deleted, and a change of its spec does not restore it: to undo the deletion, apply the same Tenant again once this object is deleted; only offboarding, deletionPolicy and paused still have an effect".into(),
        );
    }
}
