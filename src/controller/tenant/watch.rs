//! What leads to a visit: the Tenant itself, the plan or server it names, its Secrets, and the slug it waits for.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        reflector::{Lookup, ObjectRef, Store},
        wait::{await_condition, conditions::is_deleted},
        watcher,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{failure::StepError, presence::stands_for};
use crate::{
    api::{
        ANNOTATION_RECONCILE_REQUESTED_AT, ANNOTATION_RESUME_REQUESTED_AT, FINALIZER, LABEL_TENANT,
        tenant::Tenant, tenant_hold::TenantHold,
    },
    controller::context::Context,
    domain::desired::DEFAULT_SERVER,
};

/// How often it is asked whether a store is filled.
const STORE_POLL: Duration = Duration::from_millis(20);

/// The part of the fleet that one watch sees: a namespace, or all of them.
pub struct Scope {
    /// The namespace, or none for all.
    pub namespace: Option<String>,
    /// Its Tenants.
    pub tenants: Store<Tenant>,
    /// Its Secrets that carry a tenant's id.
    pub secrets: Store<Secret>,
    /// Its TenantHolds.
    pub holds: Store<TenantHold>,
    /// Where the controller of TenantHolds takes requests for visits.
    pub hold_visits: mpsc::UnboundedSender<ObjectRef<TenantHold>>,
    /// Where its controller takes requests for visits.
    pub visits: mpsc::UnboundedSender<ObjectRef<Tenant>>,
}

/// All that is watched.
#[derive(Default)]
pub struct Scopes(pub Vec<Scope>);

impl Scopes {
    /// A Secret with a tenant's id.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<std::sync::Arc<Secret>> {
        let reference = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|scope| scope.secrets.get(&reference))
    }

    /// The Tenant of this name.
    pub fn tenant(&self, namespace: &str, name: &str) -> Option<std::sync::Arc<Tenant>> {
        let reference = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|scope| scope.tenants.get(&reference))
    }

    /// Whether a Tenant stands for the one with this uid and slug.
    pub fn has(&self, namespace: &str, name: &str, uid: &str, slug: &str) -> bool {
        self.tenant(namespace, name).is_some_and(|found| stands_for(&found, uid, slug))
    }

    /// Visits the Tenant of this name, if there is one.
    pub fn visit(&self, namespace: &str, name: &str) -> bool {
        let reference = ObjectRef::new(name).within(namespace);
        let Some(scope) = self.0.iter().find(|scope| scope.tenants.get(&reference).is_some()) else {
            return false;
        };
        scope.visits.send(reference).is_ok()
    }

    /// Waits until it is known which Tenants there are: an empty store would make each look as if it were gone. False
    /// once `shutdown` comes first.
    pub async fn are_known(&self, shutdown: &CancellationToken) -> bool {
        for scope in &self.0 {
            while timeout(STORE_POLL, scope.tenants.wait_until_ready()).await.is_err() {
                if shutdown.is_cancelled() {
                    return false;
                }
            }
        }
        true
    }

    /// All Tenants.
    pub fn tenants(&self) -> Vec<std::sync::Arc<Tenant>> {
        self.0.iter().flat_map(|scope| scope.tenants.state()).collect()
    }

    /// Visits all Tenants for which `wanted` holds.
    pub fn visit_where(&self, wanted: impl Fn(&Tenant) -> bool) {
        for scope in &self.0 {
            for tenant in scope.tenants.state_filter(|tenant| wanted(tenant)) {
                // A closed channel means that the process is on its way out.
                let _ = scope.visits.send(ObjectRef::from_obj(tenant.as_ref()));
            }
        }
    }
}

/// What of a Tenant leads to a visit when it changes. Its status does not: we write that.
pub fn interest(tenant: &Tenant) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    tenant.metadata.generation.hash(&mut hasher);
    // A finalizer that is lost, not the one that we put there ourselves a moment ago.
    let registered = tenant.status.as_ref().is_some_and(|status| status.tenant_id.is_some());
    (registered && !tenant.finalizers().iter().any(|finalizer| finalizer == FINALIZER)).hash(&mut hasher);
    tenant.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    tenant.annotations().get(ANNOTATION_RECONCILE_REQUESTED_AT).hash(&mut hasher);
    tenant.annotations().get(ANNOTATION_RESUME_REQUESTED_AT).hash(&mut hasher);
    Some(hasher.finish())
}

/// What of a Secret matters: its content.
pub fn secret_interest(secret: &Secret) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (key, value) in secret.data.iter().flatten() {
        (key, &value.0).hash(&mut hasher);
    }
    hasher.finish()
}

/// How an object came to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new to us.
    Appeared,
    /// Its interest changed.
    Changed,
    /// It is gone.
    Gone,
}

/// Follows a watch and tells of objects that came, changed in what matters, or went; also of those that went while
/// the watch was down. What is there at the beginning is not told of.
pub async fn follow<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    interest: impl Fn(&K) -> u64,
    mut told: impl FnMut(&ObjectRef<K>, &K, Change),
) where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + std::fmt::Debug,
{
    let mut known: HashMap<ObjectRef<K>, (u64, K)> = HashMap::new();
    let mut listed: Option<HashMap<ObjectRef<K>, (u64, K)>> = None;
    let mut begun = false;
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = Some(HashMap::new()),
            Ok(watcher::Event::InitApply(object)) => {
                let entry = (ObjectRef::from_obj(&object), (interest(&object), object));
                listed.get_or_insert_default().insert(entry.0, entry.1);
            }
            Ok(watcher::Event::InitDone) => {
                let now = listed.take().unwrap_or_default();
                if begun {
                    for (reference, (_, object)) in &known {
                        if !now.contains_key(reference) {
                            told(reference, object, Change::Gone);
                        }
                    }
                    for (reference, (hash, object)) in &now {
                        match known.get(reference) {
                            None => told(reference, object, Change::Appeared),
                            Some((before, _)) if before != hash => told(reference, object, Change::Changed),
                            Some(_) => {}
                        }
                    }
                }
                (known, begun) = (now, true);
            }
            Ok(watcher::Event::Apply(object)) => {
                let (reference, hash) = (ObjectRef::from_obj(&object), interest(&object));
                match known.insert(reference.clone(), (hash, object.clone())) {
                    None => told(&reference, &object, Change::Appeared),
                    Some((before, _)) if before != hash => told(&reference, &object, Change::Changed),
                    Some(_) => {}
                }
            }
            Ok(watcher::Event::Delete(object)) => {
                let reference = ObjectRef::from_obj(&object);
                known.remove(&reference);
                told(&reference, &object, Change::Gone);
            }
            // The watcher goes on by itself, with a backoff.
            Err(error) => warn!(%error, kind = %<K as Resource>::kind(&()), "watch interrupted"),
        }
    }
}

/// The Tenant that a Secret belongs to, by its label.
pub fn tenant_of(secret: &Secret) -> Option<ObjectRef<Tenant>> {
    let name = secret.labels().get(LABEL_TENANT)?;
    Some(ObjectRef::new(name).within(&ResourceExt::namespace(secret)?))
}

impl Context {
    /// Visits a Tenant, whatever it waits for.
    pub fn wake(&self, namespace: &str, name: &str) {
        self.attempts.wake(ObjectRef::new(name).within(namespace));
        self.scopes.visit(namespace, name);
    }

    /// Visits those Tenants for which something changed that they may have waited for.
    pub fn wake_where(&self, wanted: impl Fn(&Tenant) -> bool) {
        self.scopes.visit_where(|tenant| {
            let wanted = wanted(tenant);
            if wanted {
                self.attempts.wake(ObjectRef::from_obj(tenant));
            }
            wanted
        });
    }

    /// Visits the holds of a tenant that was seen to change, or to go, and has the plans counted.
    pub fn tenant_changed(&self, tenant: &Tenant) {
        self.plan_news.notify_one();
        let (namespace, name) = (ResourceExt::namespace(tenant), tenant.name_any());
        for scope in &self.scopes.0 {
            let of_tenant =
                |hold: &TenantHold| hold.spec.tenant == name && ResourceExt::namespace(hold) == namespace;
            for hold in scope.holds.state_filter(of_tenant) {
                let _ = scope.hold_visits.send(ObjectRef::from_obj(hold.as_ref()));
            }
        }
    }

    /// Visits all holds and has the plans counted, as Tenants may have come or gone unseen.
    pub fn tenants_listed(&self) {
        self.plan_news.notify_one();
        for scope in &self.scopes.0 {
            for hold in scope.holds.state() {
                let _ = scope.hold_visits.send(ObjectRef::from_obj(hold.as_ref()));
            }
        }
    }

    /// Visits the tenants that are, or were, or want to be on a server.
    pub fn server_changed(&self, server: &str) {
        self.tombstones.wake(server);
        self.wake_where(|tenant| {
            let recorded = tenant.status.as_ref().and_then(|status| status.server.as_deref());
            recorded.or(tenant.spec.server.as_deref()).unwrap_or(DEFAULT_SERVER) == server
        });
    }

    /// Visits the tenants that wait for a slug.
    pub fn slug_is_free(&self, slug: &str, former_owner: &str) {
        self.wake_where(|tenant| {
            tenant.spec.slug == slug && ResourceExt::uid(tenant).as_deref() != Some(former_owner)
        });
    }

    /// Visits a Tenant when the Secret that is in its way is gone. Such a Secret has no label of ours, so that no
    /// watch sees it; this one watch is on its name alone.
    pub fn watch_conflict(&self, tenant: &Tenant, error: &StepError) {
        let StepError::SecretConflict { name, uid: Some(uid) } = error else { return };
        let namespace = ResourceExt::namespace(tenant).unwrap_or_default();
        let mut watched = self.conflicts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !watched.insert(uid.clone()) {
            return;
        }
        let (conflicts, client, attempts) =
            (self.conflicts.clone(), self.watching.clone(), self.attempts.clone());
        let (name, uid, reference) = (name.clone(), uid.clone(), ObjectRef::from_obj(tenant));
        let visits =
            self.scopes.0.iter().find(|scope| scope.namespace.as_deref().is_none_or(|n| n == namespace));
        let Some(visits) = visits.map(|scope| scope.visits.clone()) else { return };
        tokio::spawn(async move {
            let secrets = Api::<Secret>::namespaced(client, &namespace);
            if let Err(error) = await_condition(secrets, &name, is_deleted(&uid)).await {
                warn!(%error, secret = name, "watch on a conflicting Secret ended");
            }
            conflicts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&uid);
            attempts.wake(reference.clone());
            let _ = visits.send(reference);
        });
    }
}
