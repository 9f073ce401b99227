//! The TenantAccounts of the cluster, and the namespaces that may have them.

use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{api::tenant_account::TenantAccount, domain::account::AccountPlace};

/// What the watches keep up to date.
pub struct Accounts {
    /// All TenantAccounts.
    pub accounts: Store<TenantAccount>,
    /// The namespaces with the label that allows accounts.
    pub namespaces: Store<Namespace>,
}

impl Accounts {
    /// Waits until the first lists are there.
    pub async fn wait_until_filled(&self) {
        // It fails when the process ends.
        let _ = self.accounts.wait_until_ready().await;
        let _ = self.namespaces.wait_until_ready().await;
    }

    /// Whether the first lists are there: in an empty store, every account would look deleted, and every namespace closed.
    pub fn are_filled(&self) -> bool {
        self.wait_until_filled().now_or_never().is_some()
    }

    /// The object at a place.
    pub fn get(&self, place: &AccountPlace) -> Option<Arc<TenantAccount>> {
        self.accounts.get(&ObjectRef::new(&place.name).within(&place.namespace))
    }

    /// Whether accounts may be created in a namespace.
    pub fn is_open(&self, namespace: &str) -> bool {
        let found = self.namespaces.get(&ObjectRef::new(namespace));
        found.is_some_and(|found| found.metadata.deletion_timestamp.is_none())
    }

    /// All accounts in a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<TenantAccount>> {
        self.accounts.state_filter(|account| account.namespace().as_deref() == Some(namespace))
    }
}
