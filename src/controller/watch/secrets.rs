//! The watches on Secrets: a changed Secret of a tenant requests its reconcile, and so does the deletion of a Secret that
//! conflicts with one.

use std::sync::PoisonError;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, store::Writer},
        wait::{await_condition, conditions::is_deleted},
        watcher,
    },
};
use tracing::warn;
use uuid::Uuid;

use super::{
    follow::{Change, follow},
    requeue::requeue_tenant,
    source::{api, watch_config},
};
use crate::{
    api::{LABEL_TENANT, LABEL_TENANT_ID, reason::Reason, tenant::Tenant},
    controller::{
        context::{Context, SharedContext},
        deletion::took_rights_away,
        state::fingerprint,
        tenant::failure::StepError,
    },
    domain::identity::TenantId,
};

/// Keeps the store of the tenants' Secrets of one watched namespace up to date, and requests the reconcile of the tenant
/// of a Secret that changed or was deleted.
pub async fn run(context: SharedContext, namespace: Option<String>, writer: Writer<Secret>) {
    let secrets = api::<Secret>(&context.watch_client, namespace.as_deref());
    let (lists, path) = (context.clone(), secrets.resource_url().to_owned());
    let events = watcher(secrets, watch_config().labels(LABEL_TENANT_ID)).default_backoff();
    let (client, place) = (context.watch_client.clone(), namespace.clone());
    let events = events
        .then(move |event| without_namespace(event, client.clone(), place.clone()))
        .flat_map(futures::stream::iter);
    // They are long, and nothing here reads them.
    let events = events
        .modify(|secret| secret.managed_fields_mut().clear())
        .inspect(move |event| lists.state.failed_lists.note(&path, event))
        .reflect(writer);
    follow(events, fingerprint::of_secret, |secret, change| {
        let Some((namespace, name)) = tenant_of(secret) else { return };
        let tenant = ObjectRef::<Tenant>::new(&name).within(&namespace);
        let failure = context.state.retries.failure(&tenant);
        match change {
            Change::Changed | Change::Deleted => {
                let id = secret.labels().get(LABEL_TENANT_ID).and_then(|id| Uuid::try_parse(id).ok());
                if let (Change::Deleted, Some(id)) = (change, id) {
                    context.state.reports.secret_deleted(TenantId(id));
                }
                // A failed migration is no reason to wait with credentials.
                if failure == Some(Reason::MigrationFailed) {
                    context.state.retries.retry_now(tenant);
                }
                context.stores.scopes.requeue(&namespace, &name);
            }
            // The label that a conflicting Secret lacked may be back.
            Change::Appeared if failure == Some(Reason::SecretConflict) => {
                requeue_tenant(&namespace, &name, &context);
            }
            // The one that the operator has just written.
            Change::Appeared => {}
        }
    })
    .await;
}

/// An event of a watch; that nothing is there if its list was refused because its namespace is deleted. The other
/// namespaces are not affected, and what is left to do for the tenants of this one needs none of its Secrets.
async fn without_namespace(
    event: watcher::Result<watcher::Event<Secret>>,
    client: Client,
    namespace: Option<String>,
) -> Vec<watcher::Result<watcher::Event<Secret>>> {
    if let (Err(watcher::Error::InitialListFailed(error)), Some(namespace)) = (&event, &namespace)
        && took_rights_away(error, namespace, &client).await
    {
        return vec![Ok(watcher::Event::Init), Ok(watcher::Event::InitDone)];
    }
    vec![event]
}

/// The namespace and the name of the Tenant that a Secret belongs to, by its label.
fn tenant_of(secret: &Secret) -> Option<(String, String)> {
    Some((secret.namespace()?, secret.labels().get(LABEL_TENANT)?.clone()))
}

/// Requests the reconcile of a Tenant when the Secret that conflicts with its own is deleted. That Secret does not carry
/// the label that the other watch selects, so this one is on its name alone.
pub fn watch_conflict(tenant: &Tenant, error: &StepError, context: &SharedContext) {
    let StepError::SecretConflict { name, uid: Some(uid) } = error else { return };
    if !context.state.conflicts.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone()) {
        return;
    }
    let (name, uid, context) = (name.clone(), uid.clone(), context.clone());
    let reference = ObjectRef::from_obj(tenant);
    tokio::spawn(async move { wait_for_deletion(&name, &uid, reference, &context).await });
}

async fn wait_for_deletion(name: &str, uid: &str, tenant: ObjectRef<Tenant>, context: &Context) {
    let namespace = tenant.namespace.clone().unwrap_or_default();
    let secrets = Api::<Secret>::namespaced(context.watch_client.clone(), &namespace);
    if let Err(error) = await_condition(secrets, name, is_deleted(uid)).await {
        warn!(%error, secret = name, "watch on a conflicting Secret ended");
    }
    context.state.conflicts.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    context.state.retries.retry_now(tenant.clone());
    context.stores.scopes.requeue(&namespace, &tenant.name);
}
