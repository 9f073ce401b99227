//! The watches on TenantAccounts, and on the namespaces that may have them: a change requests the reconcile of the Tenants
//! whose accounts are there.

use std::hash::{DefaultHasher, Hash, Hasher};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, reflector::store::Writer, watcher},
};
use tracing::warn;
use uuid::Uuid;

use super::{
    decode::watch,
    follow::{Change, follow},
    requeue::requeue_tenants_where,
    source::watch_config,
};
use crate::{
    api::{LABEL_ACCOUNTS, LABEL_TENANT_ID, tenant::Tenant, tenant_account::TenantAccount},
    controller::{
        context::{Context, SharedContext},
        state::invalid_objects::InvalidObjects,
        tenant_account::object,
    },
    domain::{
        account::{AccountPlace, account_namespace},
        identity::TenantId,
    },
};

/// Keeps the store of accounts up to date. What the operator writes, the status, requests nothing.
pub async fn run(context: SharedContext, writer: Writer<TenantAccount>) {
    let accounts = Api::all(context.watch_client.clone());
    let events = watch(accounts, watch_config(), writer, InvalidObjects::default(), &context);
    follow(events, fingerprint, |account, change| {
        // The one that the operator has just created, most often.
        let is_own = change == Change::Appeared && account.metadata.generation == Some(1);
        let is_its = |tenant: &Tenant| is_at_its_place(account, tenant) || is_named(account, tenant);
        if !is_own || account.labels().get(LABEL_TENANT_ID).is_none() {
            // As an edit of the Tenant, it does not wait for the next attempt after a failure.
            requeue_tenants_where(is_its, &context);
        }
    })
    .await;
}

/// Whether an object has the place of a Tenant's account.
fn is_at_its_place(account: &TenantAccount, tenant: &Tenant) -> bool {
    tenant.spec.slug == account.name_any() && account_namespace(tenant) == account.namespace().as_deref()
}

/// Whether an object is a Tenant's wherever it is: until a change of the slug or of the namespace is done, or if the slug is
/// refused, it has another place than the Tenant's spec says.
fn is_named(account: &TenantAccount, tenant: &Tenant) -> bool {
    let of = tenant.status.as_ref().and_then(|status| status.tenant_id.as_ref());
    let shown = account.status.as_ref().and_then(|status| status.tenant_id.as_ref());
    of.is_some() && (account.labels().get(LABEL_TENANT_ID) == of || shown == of)
}

fn fingerprint(account: &TenantAccount) -> u64 {
    let metadata = &account.metadata;
    let mut hasher = DefaultHasher::new();
    (&metadata.uid, metadata.generation, account.labels().get(LABEL_TENANT_ID)).hash(&mut hasher);
    metadata.deletion_timestamp.is_some().hash(&mut hasher);
    hasher.finish()
}

/// Keeps the store of namespaces that may have accounts up to date.
pub async fn run_namespaces(context: SharedContext, writer: Writer<Namespace>) {
    let namespaces = Api::<Namespace>::all(context.watch_client.clone());
    let (lists, path) = (context.clone(), namespaces.resource_url().to_owned());
    let labelled = watch_config().labels(&format!("{LABEL_ACCOUNTS}=true"));
    let events = watcher(namespaces, labelled)
        .default_backoff()
        .inspect(move |event| lists.state.failed_lists.note(&path, event))
        .reflect(writer);
    let is_deleted = |namespace: &Namespace| u64::from(namespace.metadata.deletion_timestamp.is_some());
    follow(events, is_deleted, |namespace, change| {
        let name = namespace.name_any();
        requeue_tenants_where(|tenant| account_namespace(tenant) == Some(name.as_str()), &context);
        if change == Change::Deleted {
            remove_accounts_of_tombstones(&name, &context);
        }
    })
    .await;
}

/// Removes the accounts of tenants that have no object any more, from a namespace that may have none any more.
fn remove_accounts_of_tombstones(namespace: &str, context: &SharedContext) {
    for account in context.stores.accounts.in_namespace(namespace) {
        let id = account.labels().get(LABEL_TENANT_ID).and_then(|id| Uuid::try_parse(id).ok()).map(TenantId);
        let Some(id) = id.filter(|id| context.state.tombstones.contains(*id)) else { continue };
        let place = AccountPlace { namespace: namespace.to_owned(), name: account.name_any() };
        let context = context.clone();
        tokio::spawn(async move { remove(&place, id, &context).await });
    }
}

async fn remove(place: &AccountPlace, id: TenantId, context: &Context) {
    if let Err(error) = object::remove(place, id, context).await {
        warn!(%error, account = place.name, "could not remove the account of a tenant; it is removed with the tenant");
    }
}
