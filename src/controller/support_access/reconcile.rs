//! The reconcile of one SupportAccess: read its row and its tenant, decide what comes next (`src/domain/support`), do that, and
//! show it. Once it is in force, nothing is done until it ends.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, Resource, ResourceExt, runtime::controller::Action};
use tracing::warn;
use uuid::Uuid;

use super::{
    end::SupportEnding,
    grant::{grant, publish},
    policy,
    status::{ShownSupport, write_status},
};
use crate::{
    api::{FINALIZER, reason::Reason, support_access::SupportAccess},
    controller::{
        context::{Context, SharedContext},
        finalizers,
        tenant::failure::StepError,
    },
    domain::{
        attribution::Actor,
        backoff,
        record::TenantRecord,
        support::{
            DEFAULT_DURATION, EndReason, MAX_DURATION, SupportRecord, SupportRequest, SupportStep,
            SupportedTenant, next_step,
        },
    },
    registry::{DeletedObject, SupportEnd},
};

/// How soon something is tried again that another object or server prevents.
const RETRY: Duration = Duration::from_secs(5);

/// How long a deleted SupportAccess waits for a server that does not respond. Its password expires anyway, and the next drift
/// check of the server takes the login away.
const RELEASED_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// In how many steps one reconcile grants an access and publishes it.
const STEPS: u32 = 4;

/// Reconciles a SupportAccess.
pub async fn reconcile(object: Arc<SupportAccess>, context: SharedContext) -> Result<Action, StepError> {
    let ours = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if object.metadata.deletion_timestamp.is_some() {
        return if ours { release(&object, &context).await } else { Ok(Action::await_change()) };
    }
    if !ours {
        finalizers::claim(&accesses(&object, &context), object.as_ref()).await?;
    }
    let mut record = None;
    match advance(&object, &mut record, &context).await {
        Ok(shown) => {
            write_status(&object, record.as_ref(), &shown, &context).await?;
            Ok(shown.action())
        }
        Err(error) => {
            // Without its row, nothing new is known of one that has a status.
            let has_state = object.status.as_ref().is_some_and(|status| status.state.is_some());
            if record.is_some() || !has_state {
                write_status(&object, record.as_ref(), &failed(&error), &context).await?;
            }
            Err(error)
        }
    }
}

/// After a failed reconcile.
pub fn after_error(object: Arc<SupportAccess>, error: &StepError, _: SharedContext) -> Action {
    warn!(access = object.name_any(), %error, "could not reconcile a SupportAccess");
    Action::requeue(backoff::temporary(3, rand::random()))
}

fn failed(error: &StepError) -> ShownSupport {
    ShownSupport::not_yet(error.reason(), error.to_string(), RETRY)
}

/// Does what comes next, until something has to be waited for. `record` is the row as it was read last.
async fn advance(
    object: &SupportAccess,
    record: &mut Option<SupportRecord>,
    context: &Context,
) -> Result<ShownSupport, StepError> {
    let request = request_of(object)?;
    for _ in 0..STEPS {
        *record = context.registry.support_access(request.id).await?;
        let (tenant, row) = tenant_of(object, context).await?;
        let approved_by = object.spec.approved_by.as_deref();
        let now = context.clock.now();
        let created_at = object.metadata.creation_timestamp.as_ref().map_or(now, |at| at.0);
        if let (None, Some(row)) = (&record, &row) {
            // Without it, the name of who requests it proves nothing, and is not written down.
            if let Some(message) = policy::missing(object, &context.client).await? {
                let step = next_step(&request, approved_by, created_at, tenant, None, now);
                return Ok(match step {
                    SupportStep::End(reason) => ShownSupport::refused(reason),
                    _ => ShownSupport::not_yet(Reason::PolicyMissing, message, RETRY),
                });
            }
            request_access(object, &request, row, context).await?;
            *record = context.registry.support_access(request.id).await?;
        }
        let step = next_step(&request, approved_by, created_at, tenant, record.as_ref(), now);
        match (step, record.as_ref(), &row) {
            (SupportStep::Ended, Some(found), _) => {
                context.state.supports.set(found);
                let reason = found.ended.map_or(EndReason::Expired, |(_, reason)| reason);
                return Ok(ShownSupport::ended(found, reason));
            }
            (SupportStep::Wait(why, until), ..) => {
                let again = Duration::try_from(until.duration_since(now)).unwrap_or(RETRY);
                return Ok(ShownSupport::waiting(why, object, again));
            }
            (SupportStep::InForce, Some(found), _) => {
                context.state.supports.set(found);
                let expires_at = found.grant.as_ref().map_or(now, |grant| grant.expires_at);
                return Ok(ShownSupport::granted(object, expires_at));
            }
            (SupportStep::Grant, Some(found), Some(row)) => {
                if let Some((reason, message)) = grant(object, found, row, context).await? {
                    return Ok(ShownSupport::not_yet(reason, message, RETRY));
                }
            }
            (SupportStep::Publish, Some(found), Some(row)) => {
                if let Some((reason, message)) = publish(object, found, row, context).await? {
                    return Ok(ShownSupport::not_yet(reason, message, RETRY));
                }
            }
            (SupportStep::End(reason), Some(found), _) => {
                if let Some(shown) = end(object, found, reason, context).await? {
                    return Ok(shown);
                }
            }
            // It was never recorded: there is nothing to end.
            (SupportStep::End(reason), None, _) => {
                return Ok(ShownSupport::refused(reason));
            }
            _ => return Err(StepError::Changed("the tenant")),
        }
    }
    Err(StepError::Changed("the support access"))
}

/// Records the request. One that was granted before, by its status, has lost its row: it is not granted again.
async fn request_access(
    object: &SupportAccess,
    request: &SupportRequest,
    row: &TenantRecord,
    context: &Context,
) -> Result<(), StepError> {
    let now = context.clock.now();
    context.registry.request_support(row.id, request, now).await?;
    let before = object.status.as_ref();
    if before.is_some_and(|status| status.granted_at.is_some() || status.ended_at.is_some()) {
        let (reason, actor) = (EndReason::RecordLost, Actor::Tenantry.to_string());
        let end = SupportEnd { at: now, reason, actor, deleted: None, left: None };
        context.registry.end_support(request.id, &end).await?;
    }
    Ok(())
}

/// Ends an access. Returns what is shown if its login is not gone yet.
async fn end(
    object: &SupportAccess,
    record: &SupportRecord,
    reason: EndReason,
    context: &Context,
) -> Result<Option<ShownSupport>, StepError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let grant = record.grant.as_ref();
    let ending = SupportEnding {
        id: record.request.id,
        namespace: &namespace,
        name: &name,
        grant,
        reason,
        deleted: None,
    };
    let not_ended = match ending.run(context).await {
        Ok(not_ended) => not_ended,
        Err(StepError::Postgres(error)) => Some((error.reason(), error.to_string())),
        Err(error) => return Err(error),
    };
    if let Some((why, message)) = not_ended {
        let expires_at = grant.map(|grant| grant.expires_at);
        return Ok(Some(ShownSupport::ending(reason, expires_at, (why, &message))));
    }
    if grant.is_some() {
        let note = format!("the login for Tenant {:?} is gone: {}", object.spec.tenant, reason.describe());
        context.events.normal(object.object_ref(&()), "End", Reason::AccessEnded, note);
    }
    Ok(None)
}

/// Ends the access of a deleted object, and releases the finalizer: at last also where its server does not respond.
async fn release(object: &SupportAccess, context: &Context) -> Result<Action, StepError> {
    let id = id_of(object)?;
    let record = match context.registry.support_access(id).await {
        Ok(record) => record,
        Err(error) => {
            // Access does not wait for the registry.
            if let Some(held) = context.state.supports.get(id) {
                let (namespace, name) = (&held.namespace, &held.name);
                let (grant, reason) = (Some(&held.grant), EndReason::Deleted);
                SupportEnding { id, namespace, name, grant, reason, deleted: None }
                    .take_away(context)
                    .await?;
            }
            return Err(error.into());
        }
    };
    if let Some(record) = record.filter(|record| record.ended.is_none()) {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let (grant, reason) = (record.grant.as_ref(), EndReason::Deleted);
        let deleted = DeletedObject::of(&object.metadata);
        let ending =
            SupportEnding { id, namespace: &namespace, name: &name, grant, reason, deleted: Some(&deleted) };
        let not_ended = match ending.run(context).await {
            Ok(not_ended) => not_ended,
            Err(StepError::Postgres(error)) => Some((error.reason(), error.to_string())),
            Err(error) => return Err(error),
        };
        if let Some((why, message)) = not_ended {
            let since = object.metadata.deletion_timestamp.as_ref().map_or(Timestamp::MIN, |at| at.0);
            if context.clock.now().duration_since(since) < RELEASED_AFTER {
                let expires_at = grant.map(|grant| grant.expires_at);
                let shown = ShownSupport::ending(reason, expires_at, (why, &message));
                write_status(object, Some(&record), &shown, context).await?;
                return Ok(shown.action());
            }
            ending.record(Some(&message), context).await?;
            let note = format!(
                "the login of this SupportAccess is not gone yet: {message}; PostgreSQL accepts its password until its time is over, and it is taken away once the server responds"
            );
            context.events.warning(object.object_ref(&()), "End", Reason::AccessNotCut, note);
        }
    }
    context.state.supports.remove(id);
    finalizers::release(&accesses(object, context), object).await?;
    Ok(Action::await_change())
}

/// The tenant of an access, and its row.
async fn tenant_of(
    object: &SupportAccess,
    context: &Context,
) -> Result<(SupportedTenant, Option<TenantRecord>), StepError> {
    let namespace = object.namespace().unwrap_or_default();
    let Some(tenant) = context.stores.scopes.tenant(&namespace, &object.spec.tenant) else {
        return Ok((SupportedTenant::Missing, None));
    };
    let uid = tenant.uid().unwrap_or_default();
    // From the registry itself: the startup snapshot may be older than a deprovisioning.
    let row = context.registry.by_resource(&namespace, &object.spec.tenant, &uid).await?;
    let found = row.as_ref().map_or(SupportedTenant::NotRegistered, |row| SupportedTenant::Registered {
        id: row.id,
        status: row.status,
        is_deleted: tenant.metadata.deletion_timestamp.is_some(),
    });
    Ok((found, row))
}

fn id_of(object: &SupportAccess) -> Result<Uuid, StepError> {
    let uid = object.uid().unwrap_or_default();
    Uuid::try_parse(&uid).map_err(|_| StepError::Missing("the uid of the object"))
}

fn request_of(object: &SupportAccess) -> Result<SupportRequest, StepError> {
    let seconds = object.spec.duration_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
    Ok(SupportRequest {
        id: id_of(object)?,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        reason: object.spec.reason.clone(),
        duration: seconds.unwrap_or(DEFAULT_DURATION).min(MAX_DURATION),
        requires_approval: object.requires_approval(),
        requested_by: object.spec.requested_by.clone(),
    })
}

/// The SupportAccesses of an object's namespace.
fn accesses(object: &SupportAccess, context: &Context) -> Api<SupportAccess> {
    Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default())
}
