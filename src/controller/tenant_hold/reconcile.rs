//! One visit to one TenantHold: it is recorded in its tenant's row, or lifted from it, and told whether it is in force.
//!
//! A hold is lifted by deleting its object while the Tenant lives. Where the Tenant, the namespace or the definition goes
//! away too, nobody asked for the tenant to be let in: the hold stays in the registry, also when the tenant comes back.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, CustomResourceExt, Resource, ResourceExt,
    core::{ClusterResourceScope, PartialObjectMeta},
    runtime::controller::Action,
};
use serde::de::DeserializeOwned;
use tracing::{info, warn};

use super::status::{Verdict, write_status};
use crate::{
    api::{FINALIZER, tenant::Tenant, tenant_hold::TenantHold, tenant_status::HoldMode},
    controller::{
        context::{Context, SharedContext},
        finalizers::apply_finalizers,
        tenant::{
            failure::StepError,
            holds::{hold_of, lift, place},
            observe::row,
        },
    },
    domain::{backoff, observed::RegistryStatus},
};

/// How soon a hold is looked at again whose tenant has no row yet. Its tenant's status wakes it before.
const AGAIN: Duration = Duration::from_secs(60);

/// Visits a TenantHold.
pub async fn reconcile(object: Arc<TenantHold>, context: SharedContext) -> Result<Action, StepError> {
    let ours = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if object.metadata.deletion_timestamp.is_some() {
        if ours {
            let_go(&object, &context).await?;
        }
        return Ok(Action::await_change());
    }
    if !ours {
        apply_finalizers(&holds(&object, &context), &object, &[FINALIZER]).await?;
    }
    let verdict = match put(&object, &context).await {
        Ok(verdict) => verdict,
        Err(error) => {
            // Told, and tried again.
            write_status(&object, &Verdict::Failed(&error), &context).await?;
            return Err(error);
        }
    };
    write_status(&object, &verdict, &context).await?;
    Ok(match verdict {
        Verdict::NotRegistered => Action::requeue(AGAIN),
        _ => Action::await_change(),
    })
}

/// After a failed visit.
pub fn after_error(object: Arc<TenantHold>, error: &StepError, _: SharedContext) -> Action {
    warn!(hold = object.name_any(), %error, "visit to a hold failed");
    Action::requeue(backoff::temporary(3, rand::random()))
}

/// Records the hold, and says whether it is in force.
async fn put(object: &TenantHold, context: &SharedContext) -> Result<Verdict<'static>, StepError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), &object.spec.tenant);
    let Some(tenant) = context.scopes.tenant(&namespace, name) else { return Ok(Verdict::NoTenant) };
    let _turn = context.turns.take((namespace.clone(), name.clone())).await;
    let Some(mut row) = row(&tenant, context).await? else { return Ok(Verdict::NotRegistered) };
    if row.status == RegistryStatus::Deprovisioned {
        return Ok(Verdict::Gone);
    }
    if place(&mut row, hold_of(object, context.clock.now()), context).await? {
        info!(hold = object.name_any(), tenant = name, "a hold is placed");
        context.wake(&namespace, name);
        return Ok(Verdict::Enforcing);
    }
    let since =
        row.holds.iter().find(|hold| hold.name == object.name_any()).map(|hold| hold.since.as_second());
    // As it was written last: the copy at hand may be from before the hold, or from before it was lifted once.
    let status = context.written.newest(&tenant);
    let shown = status.holds.iter().find(|hold| hold.name == object.name_any());
    let says_so = shown.is_some_and(|shown| {
        shown.since.as_ref().map(|since| since.0.as_second()) == since
            && shown.trigger == object.spec.trigger
            && shown.reason.as_ref() == Some(&object.spec.reason)
            && object.spec.mode.is_none_or(|mode| HoldMode::from(mode) == shown.mode)
    });
    Ok(match shown.filter(|_| says_so) {
        Some(shown) => {
            Verdict::InForce { mode: shown.mode, leaving: tenant.metadata.deletion_timestamp.is_some() }
        }
        None => Verdict::Enforcing,
    })
}

/// Lifts the hold where that is what was meant, and lets the object go.
async fn let_go(object: &TenantHold, context: &SharedContext) -> Result<(), StepError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api = Api::<Tenant>::namespaced(context.client.clone(), &namespace);
    let tenant = api.get_opt(&object.spec.tenant).await?.filter(|t| t.metadata.deletion_timestamp.is_none());
    match tenant {
        Some(tenant) if !is_swept_away(&namespace, context).await? => {
            let _turn = context.turns.take((namespace.clone(), object.spec.tenant.clone())).await;
            // From the registry itself: what was read before may be older than the hold.
            let uid = tenant.uid().unwrap_or_default();
            context.bulk.forget(&uid);
            let mut row = row(&tenant, context).await?;
            if row.is_none() {
                // It came back and waits, as one that is paused does: nobody but this object could lift the hold.
                let (tenant, slug) = (&object.spec.tenant, &tenant.spec.slug);
                row = context.registry.former(&namespace, tenant, slug).await?;
            }
            if let Some(mut row) = row.filter(|row| row.status != RegistryStatus::Deprovisioned)
                && lift(&mut row, &name, context).await?
            {
                info!(hold = name, tenant = object.spec.tenant, "a hold is lifted");
                context.wake(&namespace, &object.spec.tenant);
            }
        }
        _ => info!(hold = name, tenant = object.spec.tenant, "the hold's object goes; the hold stays"),
    }
    match apply_finalizers(&holds(object, context), object, &[]).await {
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        other => Ok(other?),
    }
}

/// Whether the object goes away with its namespace, or with the definition of its kind or of Tenants.
async fn is_swept_away(namespace: &str, context: &Context) -> Result<bool, StepError> {
    let definitions = [TenantHold::crd_name(), Tenant::crd_name()];
    if is_going::<Namespace>(namespace, context).await? {
        return Ok(true);
    }
    for definition in definitions {
        if is_going::<CustomResourceDefinition>(definition, context).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn is_going<K>(name: &str, context: &Context) -> Result<bool, StepError>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let found: Option<PartialObjectMeta<K>> =
        Api::<K>::all(context.client.clone()).get_metadata_opt(name).await?;
    Ok(found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()))
}

/// Where a hold's object is.
fn holds(object: &TenantHold, context: &Context) -> Api<TenantHold> {
    Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default())
}
