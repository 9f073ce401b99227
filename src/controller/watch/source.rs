//! How objects are watched.

use kube::{Api, Client, Resource, core::NamespaceResourceScope, runtime::watcher};

/// The API server closes a watch after this many seconds, well before load balancers drop idle connections.
const WATCH_SECONDS: u32 = 200;

/// The objects of a kind in a namespace, or in all.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The configuration of every watch.
pub fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}
