//! Turns the events of a watch on objects that may be impossible to decode into the events of a watch on valid objects. An
//! object that cannot be decoded is reported, and never looks deleted: its last valid version stays in the store.

use std::{collections::HashMap, fmt::Debug, future::ready};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{Lookup, ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::guarded::{Guarded, InvalidObject};
use crate::{
    api::{plan::TenantPlan, reason::Reason},
    controller::{
        context::SharedContext,
        state::invalid_objects::{InvalidObjects, KnownObject},
    },
};

/// Watches a kind, and keeps its store and its invalid objects up to date.
pub fn watch<K>(
    api: Api<Guarded<K>>,
    config: watcher::Config,
    writer: Writer<K>,
    invalid: InvalidObjects<K>,
    context: &SharedContext,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType = ()>
        + Lookup<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (context, count) = (context.clone(), invalid.clone());
    let mut decoder = Decoder::new(writer.as_reader(), invalid);
    let (lists, path) = (context.clone(), api.resource_url().to_owned());
    let events = watcher(api, config)
        .default_backoff()
        .inspect(move |event| lists.state.failed_lists.note(&path, event));
    let decoded = events.filter_map(move |event| {
        let before = count.len();
        let decoded = event.map(|event| decoder.decode(event, |invalid| report::<K>(invalid, &context)));
        if count.len() != before {
            context.metrics.invalid_objects(&<K as Resource>::kind(&()), before, count.len());
            // While a Tenant cannot be decoded, no plan is released.
            context.state.plans_changed.notify_one();
        }
        ready(decoded.transpose())
    });
    // They are long, and read of plans only.
    let keeps = <K as Resource>::kind(&()) == <TenantPlan as Resource>::kind(&());
    let strip = move |object: &mut K| {
        if !keeps {
            object.meta_mut().managed_fields = None;
        }
    };
    decoded.modify(strip).reflect(writer)
}

/// Decodes the events of one watch.
struct Decoder<K: Lookup<DynamicType = ()> + Clone + 'static> {
    /// The valid versions.
    store: Store<K>,
    invalid: InvalidObjects<K>,
    /// The invalid objects of the list that is being read.
    listed: HashMap<ObjectRef<K>, KnownObject>,
    /// What was reported, so that each generation of an object is reported once.
    reported: HashMap<ObjectRef<K>, (Option<i64>, String)>,
}

impl<K> Decoder<K>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + 'static,
{
    fn new(store: Store<K>, invalid: InvalidObjects<K>) -> Self {
        Self { store, invalid, listed: HashMap::new(), reported: HashMap::new() }
    }

    /// The event for the valid version of its object; none if there is nothing to do for a reader of the store.
    fn decode(&mut self, event: Event<Guarded<K>>, report: impl FnOnce(&InvalidObject)) -> Option<Event<K>> {
        match event {
            Event::Init => {
                self.listed.clear();
                Some(Event::Init)
            }
            Event::InitApply(Guarded(Ok(object))) => {
                self.reported.remove(&ObjectRef::from_obj(&object));
                Some(Event::InitApply(object))
            }
            Event::InitApply(Guarded(Err(invalid))) => {
                let (reference, uid) = (reference(&invalid), &invalid.metadata.uid);
                // A valid version of another object, which had the same name, is not kept.
                let valid = self.store.get(&reference).filter(|valid| valid.meta().uid == *uid);
                self.listed.insert(reference.clone(), known(&invalid));
                self.report(reference, &invalid, report);
                Some(Event::InitApply(valid?.as_ref().clone()))
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.reported.retain(|reference, _| listed.contains_key(reference));
                self.invalid.replace(listed);
                Some(Event::InitDone)
            }
            Event::Apply(Guarded(Ok(object))) => {
                self.forget(&ObjectRef::from_obj(&object));
                Some(Event::Apply(object))
            }
            Event::Apply(Guarded(Err(invalid))) => {
                let reference = reference(&invalid);
                self.invalid.insert(reference.clone(), known(&invalid));
                self.report(reference, &invalid, report);
                None
            }
            Event::Delete(Guarded(Ok(object))) => {
                self.forget(&ObjectRef::from_obj(&object));
                Some(Event::Delete(object))
            }
            Event::Delete(Guarded(Err(invalid))) => {
                let reference = reference(&invalid);
                self.forget(&reference);
                Some(Event::Delete(self.store.get(&reference)?.as_ref().clone()))
            }
        }
    }

    fn forget(&mut self, object: &ObjectRef<K>) {
        self.invalid.remove(object);
        self.reported.remove(object);
    }

    fn report(&mut self, object: ObjectRef<K>, invalid: &InvalidObject, report: impl FnOnce(&InvalidObject)) {
        let current = (invalid.metadata.generation, invalid.error.clone());
        if self.reported.get(&object) != Some(&current) {
            self.reported.insert(object, current);
            report(invalid);
        }
    }
}

fn known(invalid: &InvalidObject) -> KnownObject {
    KnownObject { uid: invalid.metadata.uid.clone().unwrap_or_default(), tenant: invalid.tenant.clone() }
}

/// The reference that a valid version of the object would have.
fn reference<K: Lookup<DynamicType = ()>>(invalid: &InvalidObject) -> ObjectRef<K> {
    let reference = ObjectRef::new(invalid.metadata.name.as_deref().unwrap_or_default());
    match &invalid.metadata.namespace {
        Some(namespace) => reference.within(namespace),
        None => reference,
    }
}

/// Reports an object that cannot be decoded, in the log and as an Event.
fn report<K: Resource<DynamicType = ()>>(invalid: &InvalidObject, context: &SharedContext) {
    warn!(
        kind = %K::kind(&()),
        namespace = invalid.metadata.namespace,
        name = invalid.metadata.name,
        error = %invalid,
        "could not decode an object; the others are not affected"
    );
    let about = ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: invalid.metadata.namespace.clone(),
        name: invalid.metadata.name.clone(),
        uid: invalid.metadata.uid.clone(),
        ..ObjectReference::default()
    };
    let note = format!(
        "this object cannot be decoded: {invalid}; correct it: until then, neither a change of it nor its deletion takes effect"
    );
    context.events.warning(about, "Decode", Reason::InvalidObject, note);
}

#[cfg(test)]
mod tests {
    use kube::{api::ObjectMeta, runtime::reflector};

    use super::*;
    use crate::{api::tenant::Tenant, controller::watch::guarded::StatusTenant};

    struct Watch {
        decoder: Decoder<Tenant>,
        writer: Writer<Tenant>,
        reports: usize,
    }

    impl Watch {
        fn new() -> Self {
            let (store, writer) = reflector::store();
            Self { decoder: Decoder::new(store, InvalidObjects::default()), writer, reports: 0 }
        }

        /// Passes an event on to the store, and returns it.
        fn event(&mut self, event: Event<Guarded<Tenant>>) -> Option<Event<Tenant>> {
            let event = self.decoder.decode(event, |_| self.reports += 1);
            event.inspect(|event| self.writer.apply_watcher_event(event))
        }

        fn list(&mut self, objects: impl IntoIterator<Item = Guarded<Tenant>>) {
            self.event(Event::Init);
            for object in objects {
                self.event(Event::InitApply(object));
            }
            self.event(Event::InitDone);
        }

        /// The generation of the version in the store.
        fn stored(&self, name: &str) -> Option<i64> {
            self.decoder.store.get(&ObjectRef::new(name).within("customers"))?.metadata.generation
        }

        fn is_invalid(&self, name: &str) -> bool {
            self.decoder.invalid.uid(&ObjectRef::new(name).within("customers")).is_some()
        }
    }

    fn metadata(name: &str, uid: &str, generation: i64) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some("customers".into()),
            uid: Some(uid.into()),
            generation: Some(generation),
            ..ObjectMeta::default()
        }
    }

    fn valid(name: &str, generation: i64) -> Guarded<Tenant> {
        let metadata = metadata(name, name, generation);
        Guarded(Ok(Tenant { metadata, ..Tenant::new(name, Default::default()) }))
    }

    fn invalid(name: &str, uid: &str, generation: i64) -> Guarded<Tenant> {
        Guarded(Err(Box::new(InvalidObject {
            metadata: metadata(name, uid, generation),
            error: "year".into(),
            tenant: StatusTenant::None,
        })))
    }

    #[test]
    fn invalid_object_hides_no_other() {
        let mut watch = Watch::new();
        watch.list([valid("a", 1), invalid("b", "b", 1), valid("c", 1)]);
        assert_eq!((watch.stored("a"), watch.stored("b"), watch.stored("c")), (Some(1), None, Some(1)));
        assert!(watch.is_invalid("b") && !watch.is_invalid("a"));
        assert_eq!(watch.reports, 1);
    }

    #[test]
    fn last_valid_version_is_kept_until_corrected() {
        let mut watch = Watch::new();
        watch.list([valid("a", 1)]);
        assert!(watch.event(Event::Apply(invalid("a", "a", 2))).is_none());
        watch.list([invalid("a", "a", 2)]);
        assert_eq!((watch.stored("a"), watch.is_invalid("a"), watch.reports), (Some(1), true, 1));
        watch.event(Event::Apply(invalid("a", "a", 3)));
        assert_eq!(watch.reports, 2);
        assert!(matches!(watch.event(Event::Apply(valid("a", 4))), Some(Event::Apply(_))));
        assert_eq!((watch.stored("a"), watch.is_invalid("a")), (Some(4), false));
    }

    #[test]
    fn deleted_invalid_object_leaves_the_store() {
        let mut watch = Watch::new();
        watch.list([valid("a", 1), invalid("b", "b", 1)]);
        watch.event(Event::Apply(invalid("a", "a", 2)));
        assert!(matches!(watch.event(Event::Delete(invalid("a", "a", 2))), Some(Event::Delete(_))));
        assert!(watch.event(Event::Delete(invalid("b", "b", 1))).is_none());
        assert!(watch.stored("a").is_none() && !watch.is_invalid("a") && !watch.is_invalid("b"));
    }

    #[test]
    fn version_of_a_replaced_object_is_not_kept() {
        let mut watch = Watch::new();
        watch.list([valid("a", 1)]);
        watch.list([invalid("a", "another", 1)]);
        assert_eq!((watch.stored("a"), watch.is_invalid("a")), (None, true));
        watch.list([valid("a", 2)]);
        assert_eq!((watch.stored("a"), watch.is_invalid("a")), (Some(2), false));
    }
}
