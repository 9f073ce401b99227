//! Gauges whose series are replaced as a whole: what is not counted any more has no series.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use prometheus_client::metrics::{family::Family, gauge::Gauge};

/// The labels of one series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A gauge by labels. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    pub(super) family: Family<Labels, Gauge<f64, AtomicU64>>,
    current: Arc<Mutex<HashSet<Labels>>>,
}

impl Series {
    /// Replaces all series.
    pub(super) fn replace(&self, series: impl IntoIterator<Item = (Labels, f64)>) {
        let mut now = HashSet::new();
        for (labels, value) in series {
            self.family.get_or_create(&labels).set(value);
            now.insert(labels);
        }
        // Only the others are removed: a scrape in between must not find none.
        let mut before = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        for former in before.difference(&now) {
            self.family.remove(former);
        }
        *before = now;
    }

    /// Replaces all series by one without labels, or by none.
    pub(super) fn replace_by(&self, value: Option<f64>) {
        self.replace(value.map(|value| (Vec::new(), value)));
    }
}
