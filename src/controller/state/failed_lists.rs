//! Which lists of objects failed last. A process that cannot list a kind works with what it knew before, or not at all: it
//! is not ready then.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use kube::runtime::watcher::{self, Event};

/// Receives the reason why this process is not ready; none once all lists succeed.
type Report = Box<dyn Fn(Option<String>) + Send + Sync>;

/// The failed lists, by the path in the API.
pub struct FailedLists {
    report: Report,
    failed: Mutex<BTreeMap<String, String>>,
}

impl FailedLists {
    /// None so far.
    pub fn new(report: impl Fn(Option<String>) + Send + Sync + 'static) -> Self {
        Self { report: Box::new(report), failed: Mutex::default() }
    }

    /// Takes note of an event of a watch: whether its list succeeded or failed.
    pub fn note<K>(&self, path: &str, event: &watcher::Result<Event<K>>) {
        match event {
            Ok(Event::InitDone) => self.set(path, None),
            Err(error @ watcher::Error::InitialListFailed(_)) => self.set(path, Some(error.to_string())),
            _ => {}
        }
    }

    fn set(&self, path: &str, error: Option<String>) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match error {
            Some(error) => failed.insert(path.to_owned(), error),
            None => failed.remove(path),
        };
        if before.as_ref() == failed.get(path) {
            return;
        }
        let all: Vec<String> = failed.iter().map(|(path, error)| format!("{path}: {error}")).collect();
        (self.report)((!all.is_empty()).then(|| all.join("; ")));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn process_is_ready_again_once_every_list_succeeds() {
        let reported = Arc::new(Mutex::new(Vec::new()));
        let reports = reported.clone();
        let lists = FailedLists::new(move |why| reports.lock().unwrap().push(why));
        let failure = || watcher::Error::InitialListFailed(kube::Error::LinesCodecMaxLineLengthExceeded);
        lists.note::<()>("/tenants", &Ok(Event::InitDone));
        lists.note::<()>("/tenants", &Err(failure()));
        lists.note::<()>("/tenants", &Err(failure()));
        lists.note::<()>("/plans", &Err(failure()));
        lists.note::<()>("/tenants", &Ok(Event::InitDone));
        lists.note::<()>("/plans", &Ok(Event::InitDone));
        let reported = reported.lock().unwrap();
        let about = |why: &Option<String>| {
            let why = why.as_deref().unwrap_or_default();
            ["/plans", "/tenants"].map(|path| why.contains(path))
        };
        assert_eq!(
            reported.iter().map(about).collect::<Vec<_>>(),
            [[false, true], [true, true], [true, false], [false, false]]
        );
    }
}
