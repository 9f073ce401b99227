//! Follows the objects of a watch that has no controller, and reports which of them changed.

use std::{collections::HashMap, fmt::Debug};

use futures::{Stream, StreamExt, pin_mut};
use kube::{
    Resource,
    runtime::{
        reflector::{Lookup, ObjectRef},
        watcher,
    },
};
use tracing::warn;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Appeared,
    /// Its fingerprint changed.
    Changed,
    /// It was deleted.
    Deleted,
}

/// Reports the objects of a watch that appeared, changed their fingerprint, or were deleted, also those deleted while the
/// watch was down. The objects of the first list are not reported.
pub async fn follow<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    fingerprint: impl Fn(&K) -> u64,
    mut on_change: impl FnMut(&K, Change),
) where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Debug,
{
    let mut known: HashMap<ObjectRef<K>, (u64, K)> = HashMap::new();
    let mut listed: HashMap<ObjectRef<K>, (u64, K)> = HashMap::new();
    let mut is_first_list = true;
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = HashMap::new(),
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(ObjectRef::from_obj(&object), (fingerprint(&object), object));
            }
            Ok(watcher::Event::InitDone) => {
                let before = std::mem::replace(&mut known, std::mem::take(&mut listed));
                if std::mem::take(&mut is_first_list) {
                    continue;
                }
                for (reference, (_, object)) in &before {
                    if !known.contains_key(reference) {
                        on_change(object, Change::Deleted);
                    }
                }
                for (reference, (current, object)) in &known {
                    match before.get(reference) {
                        None => on_change(object, Change::Appeared),
                        Some((before, _)) if before != current => on_change(object, Change::Changed),
                        Some(_) => {}
                    }
                }
            }
            Ok(watcher::Event::Apply(object)) => {
                let current = fingerprint(&object);
                match known.insert(ObjectRef::from_obj(&object), (current, object.clone())) {
                    None => on_change(&object, Change::Appeared),
                    Some((before, _)) if before != current => on_change(&object, Change::Changed),
                    Some(_) => {}
                }
            }
            Ok(watcher::Event::Delete(object)) => {
                known.remove(&ObjectRef::from_obj(&object));
                on_change(&object, Change::Deleted);
            }
            // The watcher reconnects automatically, with a backoff.
            Err(error) => warn!(%error, kind = %<K as Resource>::kind(&()), "watch interrupted"),
        }
    }
}
