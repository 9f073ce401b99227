//! What a leader waits for before any work begins.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use kube::{
    ResourceExt,
    runtime::reflector::{Lookup, Store},
};
use tokio::time::timeout;
use tracing::warn;

use crate::controller::{
    context::Context,
    state::{scopes::STORE_POLL, servers::ServerState},
};

/// How often a wait for a store is logged.
const REPORT_PERIOD: Duration = Duration::from_secs(5);

/// How long tenants wait for the first check of their servers. A server that does not respond must not delay the others.
const FIRST_CHECKS: Duration = Duration::from_secs(5);

/// How long all work waits for the first lists of the accounts. Without them, the accounts wait, and nothing else does.
const ACCOUNTS: Duration = Duration::from_secs(5);

/// Waits for the plans, the servers and the Secrets: without them, a first reconcile would take them for missing. For the
/// accounts, it waits a while.
pub async fn stores_are_filled(context: &Context) {
    is_filled(&context.stores.plans, "tenantplans").await;
    is_filled(&context.stores.database_servers, "databaseservers").await;
    for scope in &context.stores.scopes.0 {
        is_filled(&scope.secrets, "secrets").await;
    }
    let accounts = &context.stores.accounts;
    if timeout(ACCOUNTS, accounts.wait_until_filled()).await.is_err() {
        warn!(
            "still waiting for the API server's first list of tenantaccounts, or of namespaces: tenants are reconciled, their accounts wait; is the CRD installed (`tenantry crds | kubectl apply -f -`), and may this service account list both?"
        );
    }
}

/// Waits for the modules and their ConfigMaps: without them, tenants would be made without their modules.
pub async fn modules_are_filled(context: &Context) {
    is_filled(&context.stores.tenant_modules, "tenantmodules").await;
    is_filled(&context.stores.config_maps, "configmaps").await;
}

async fn is_filled<K>(store: &Store<K>, what: &str)
where
    K: Lookup + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let mut reported = Instant::now();
    while timeout(STORE_POLL, store.wait_until_ready()).await.is_err() {
        if reported.elapsed() >= REPORT_PERIOD {
            reported = Instant::now();
            warn!(
                what,
                "still waiting for the API server's first answer: is the CRD installed (`tenantry crds | kubectl apply -f -`), and may this service account list it?"
            );
        }
    }
}

/// Waits for the first check of every server: tenants reconciled before it would report that their server is not ready.
pub async fn servers_are_checked(context: &Context) {
    let checked = async {
        let is_unchecked = |name: &str| matches!(context.state.servers.get(name), ServerState::Unchecked);
        while context.stores.database_servers.state().iter().any(|server| is_unchecked(&server.name_any())) {
            context.state.servers.changed().await;
        }
    };
    if timeout(FIRST_CHECKS, checked).await.is_err() {
        warn!("not all servers responded yet; their tenants wait, the others are reconciled");
    }
}
