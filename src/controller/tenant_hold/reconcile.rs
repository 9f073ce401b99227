//! The reconcile of one TenantHold: it is recorded in its tenant's row, or lifted from it, and its status shows whether it is
//! in force.
//!
//! A hold is lifted by deleting its object while the Tenant exists. When the Tenant, the namespace or a CRD is deleted too,
//! that is no request to grant the tenant access: the hold stays in the registry, also when the tenant is restored.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, CustomResourceExt, Resource, ResourceExt, runtime::controller::Action};
use tracing::{info, warn};

use super::status::{HoldState, write_status};
use crate::{
    api::{FINALIZER, reason::Reason, tenant::Tenant, tenant_hold::TenantHold, tenant_status::HoldMode},
    controller::{
        context::{Context, SharedContext},
        deletion::is_deleted,
        finalizers,
        tenant::{
            failure::StepError,
            holds::{Lifter, Placer, hold_of, lift, place},
            load::read_record,
        },
        watch::{guarded::Guarded, requeue::requeue_tenant},
    },
    domain::{backoff, identity::TenantId, observed::RegistryStatus, record::TenantRecord, spec::is_paused},
};

/// When a hold is reconciled again whose tenant is not registered yet. A change of the Tenant requests it earlier.
const RECHECK: Duration = Duration::from_secs(60);

/// Reconciles a TenantHold.
pub async fn reconcile(object: Arc<TenantHold>, context: SharedContext) -> Result<Action, StepError> {
    let ours = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if object.metadata.deletion_timestamp.is_some() {
        if ours {
            release(&object, &context).await?;
        }
        return Ok(Action::await_change());
    }
    if !ours {
        finalizers::claim(&holds(&object, &context), &object).await?;
    }
    let mut placed_by = None;
    let state = match place_hold(&object, &mut placed_by, &context).await {
        Ok(state) => state,
        Err(error) => {
            // Reported, and tried again.
            write_status(&object, &HoldState::Failed(&error), placed_by, &context).await?;
            return Err(error);
        }
    };
    write_status(&object, &state, placed_by, &context).await?;
    Ok(match state {
        HoldState::NotRegistered
        | HoldState::InvalidTenant
        | HoldState::RowMissing { .. }
        | HoldState::Paused { .. } => Action::requeue(RECHECK),
        _ => Action::await_change(),
    })
}

/// After a failed reconcile.
pub fn after_error(object: Arc<TenantHold>, error: &StepError, _: SharedContext) -> Action {
    warn!(hold = object.name_any(), %error, "could not reconcile a TenantHold");
    Action::requeue(backoff::temporary(3, rand::random()))
}

/// Records the hold, and returns whether it is in force. `placed_by` is who placed it, once it is recorded.
async fn place_hold(
    object: &TenantHold,
    placed_by: &mut Option<String>,
    context: &SharedContext,
) -> Result<HoldState<'static>, StepError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), &object.spec.tenant);
    let tenant = context.stores.scopes.tenant(&namespace, name);
    let _lock = context.state.tenant_locks.take((namespace.clone(), name.clone())).await;
    // A legal hold also applies to tombstones, whose objects do not exist any more.
    let rows = if object.preserves() { preserve_all(object, context).await? } else { Vec::new() };
    let own = match &tenant {
        Some(tenant) => read_record(tenant, context).await?,
        None => None,
    };
    // A closed row says nothing of a Tenant that exists.
    let newest = rows.first().filter(|row| tenant.is_none() || row.closed_at.is_none());
    *placed_by = own.as_ref().or(newest).and_then(|row| recorded_placer(object, row));
    if let Some(state) = own.as_ref().or(newest).and_then(|row| preservation(object, row)) {
        return Ok(state);
    }
    let Some(tenant) = tenant else {
        let is_invalid = context.stores.scopes.invalid_tenant(&namespace, name).is_some();
        return Ok(if is_invalid { HoldState::InvalidTenant } else { HoldState::NoTenant });
    };
    let Some(mut row) = own else { return without_row(&tenant, context).await };
    if row.status == RegistryStatus::Deprovisioned {
        return Ok(HoldState::Deprovisioned);
    }
    let hold = hold_of(object, &row, context);
    if place(&mut row, hold, Placer::Object(object), context).await? {
        *placed_by = recorded_placer(object, &row);
        info!(hold = object.name_any(), tenant = name, "a hold is placed");
        requeue_tenant(&namespace, name, context);
        return Ok(HoldState::Enforcing);
    }
    let since =
        row.holds.iter().find(|hold| hold.name == object.name_any()).map(|hold| hold.since.as_second());
    // The status that was written last: the store may be behind, even from before an earlier hold of this name was lifted.
    let status = context.state.latest_status.newest(&tenant);
    let shown = status.holds.iter().find(|hold| hold.name == object.name_any());
    let is_shown = shown.is_some_and(|shown| {
        shown.since.as_ref().map(|since| since.0.as_second()) == since
            && shown.trigger == object.spec.trigger
            && shown.reason.as_ref() == Some(&object.spec.reason)
            && object.spec.mode.is_none_or(|mode| HoldMode::from(mode) == shown.mode)
    });
    Ok(match shown.filter(|_| is_shown) {
        Some(shown) => HoldState::InForce {
            mode: shown.mode,
            deprovisioning: tenant.metadata.deletion_timestamp.is_some(),
        },
        None if is_paused(&tenant) => HoldState::Paused { is_recorded: true },
        None => HoldState::Enforcing,
    })
}

/// Who placed the hold of this object, as the row has it.
fn recorded_placer(object: &TenantHold, row: &TenantRecord) -> Option<String> {
    let recorded = row.holds.iter().find(|hold| hold.name == object.name_any())?;
    row.placed_by(recorded).map(str::to_owned)
}

/// The state of a hold on a Tenant that has no row.
async fn without_row(tenant: &Tenant, context: &SharedContext) -> Result<HoldState<'static>, StepError> {
    let shown = tenant.status.as_ref().and_then(|status| status.tenant_id.clone());
    let id = shown.as_deref().and_then(|id| uuid::Uuid::try_parse(id).ok()).map(TenantId);
    if let (Some(shown), Some(id)) = (shown, id)
        // The row of an earlier object of this name is bound to this one when the Tenant is registered.
        && context.registry.by_id(id).await?.is_none()
    {
        return Ok(HoldState::RowMissing { id: shown });
    }
    Ok(match is_paused(tenant) {
        true => HoldState::Paused { is_recorded: false },
        false => HoldState::NotRegistered,
    })
}

/// Records a legal hold in every open row of the Tenant's name whose purge has not begun, and returns the rows, the newest
/// first.
async fn preserve_all(object: &TenantHold, context: &SharedContext) -> Result<Vec<TenantRecord>, StepError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), &object.spec.tenant);
    let mut rows = context.registry.by_name(&namespace, name).await?;
    for row in &mut rows {
        let is_open = row.status != RegistryStatus::Deprovisioned && row.purge_started_at.is_none();
        let hold = hold_of(object, row, context);
        if is_open && place(row, hold, Placer::Object(object), context).await? {
            info!(hold = object.name_any(), tenant = name, id = %row.id, "a legal hold is placed");
            context.state.tombstones.record(row, None);
            requeue_tenant(&namespace, name, context);
        }
    }
    Ok(rows)
}

/// The state of a legal hold, as far as the row alone decides it: on a tenant whose access it does not restrict, or that is
/// being deprovisioned.
fn preservation(object: &TenantHold, row: &TenantRecord) -> Option<HoldState<'static>> {
    if !object.preserves() {
        return None;
    }
    if let Some(begun) = row.purge_started_at {
        return Some(HoldState::TooLate { begun });
    }
    let recorded = row.holds.iter().find(|hold| hold.name == object.name_any() && hold.preserve.is_some())?;
    let is_enough = recorded.is_unrestricting() || row.status == RegistryStatus::Deprovisioning;
    let is_open = row.status != RegistryStatus::Deprovisioned;
    (is_open && is_enough).then_some(HoldState::Preserving { purge_after: row.purge_after })
}

/// Lifts the hold if its object alone is deleted, and releases the finalizer.
async fn release(object: &TenantHold, context: &SharedContext) -> Result<(), StepError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api = Api::<Guarded<Tenant>>::namespaced(context.client.clone(), &namespace);
    let tenant = api.get_opt(&object.spec.tenant).await?.map(|tenant| tenant.0).transpose()?;
    let tenant = tenant.filter(|tenant| tenant.metadata.deletion_timestamp.is_none());
    let alone = !is_deleted_with_others(&namespace, context).await?;
    let _lock = context.state.tenant_locks.take((namespace.clone(), object.spec.tenant.clone())).await;
    match tenant {
        Some(tenant) if alone => {
            // From the registry itself: the startup snapshot may be older than the hold.
            let uid = tenant.uid().unwrap_or_default();
            context.state.snapshot.forget(&uid);
            let mut row = read_record(&tenant, context).await?;
            if row.is_none() {
                // The Tenant was created again and is not registered yet, for example because it is paused: only this
                // object can lift the hold.
                let (tenant, slug) = (&object.spec.tenant, &tenant.spec.slug);
                row = context.registry.former(&namespace, tenant, slug).await?;
            }
            if let Some(mut row) = row.filter(|row| row.status != RegistryStatus::Deprovisioned)
                && lift(&mut row, &name, Lifter::Deletion(object), context).await?
            {
                info!(hold = name, tenant = object.spec.tenant, "a hold is lifted");
                requeue_tenant(&namespace, &object.spec.tenant, context);
            }
        }
        _ => info!(hold = name, tenant = object.spec.tenant, "the TenantHold is deleted; the hold stays"),
    }
    if object.preserves() {
        release_tombstones(object, alone, context).await?;
    }
    Ok(finalizers::release(&holds(object, context), object).await?)
}

/// Lifts a legal hold from the tombstones to which its object was applied. An object that is older than a tombstone may be
/// deleted together with its Tenant, which is no request to delete the data.
async fn release_tombstones(
    object: &TenantHold,
    alone: bool,
    context: &SharedContext,
) -> Result<(), StepError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let uid = object.uid();
    let mut rows = context.registry.by_name(&namespace, &object.spec.tenant).await?;
    rows.retain(|row| row.holds.iter().any(|hold| hold.name == name) && row.closed_at.is_none());
    for row in &mut rows {
        let recorded =
            row.holds.iter().find(|hold| hold.name == name).and_then(|hold| hold.preserve.as_ref());
        let applied_to_it =
            recorded.is_some_and(|hold| hold.applied_to_tombstone && Some(&hold.object) == uid.as_ref());
        if alone && applied_to_it && lift(row, &name, Lifter::Deletion(object), context).await? {
            info!(hold = name, tenant = object.spec.tenant, id = %row.id, "a legal hold is lifted");
            context.state.tombstones.record(row, None);
        } else {
            let note = format!(
                "the legal hold on the data of Tenant {:?} stays in force, because the Tenant or the namespace is deleted: to lift it, apply this TenantHold again, wait until it is in force, and delete it",
                object.spec.tenant
            );
            context.events.warning(object.object_ref(&()), "Release", Reason::LegalHoldKept, note);
        }
    }
    Ok(())
}

/// Whether the object is deleted with its namespace, with the CRD of its kind, or with the Tenant CRD.
async fn is_deleted_with_others(namespace: &str, context: &Context) -> Result<bool, StepError> {
    let crds = [TenantHold::crd_name(), Tenant::crd_name()];
    if is_deleted::<Namespace>(namespace, &context.client).await? {
        return Ok(true);
    }
    for crd in crds {
        if is_deleted::<CustomResourceDefinition>(crd, &context.client).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The TenantHolds of a hold's namespace.
fn holds(object: &TenantHold, context: &Context) -> Api<TenantHold> {
    Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default())
}
