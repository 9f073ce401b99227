//! The one way to wait: until something is observed, or until a deadline, with what was observed last.

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Api, Resource,
    runtime::wait::{Condition, await_condition},
};
use serde::de::DeserializeOwned;

/// Longer than anything takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
/// Between two observations.
const PERIOD: Duration = Duration::from_millis(50);
/// Lines of the operator's log that a failure shows.
const LOG_LINES: usize = 60;

/// Something to wait for. Panics when it is not observed before the deadline, and shows the last observation and the
/// operator's last log lines.
#[derive(Debug)]
pub struct Wait {
    what: String,
    deadline: Duration,
    log: Option<PathBuf>,
}

impl Wait {
    /// Waits until this is so, for two minutes at most.
    pub fn until(what: impl Into<String>) -> Self {
        Self { what: what.into(), deadline: DEADLINE, log: None }
    }

    /// With another deadline.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// A failure shows the end of this log.
    pub fn log(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    /// Observes again and again: `Err` is the last observation, not there yet.
    pub async fn observe<T, O: Debug>(self, mut observe: impl AsyncFnMut() -> Result<T, O>) -> T {
        let mut last = None;
        let observing = async {
            let mut period = tokio::time::interval(PERIOD);
            loop {
                period.tick().await;
                match observe().await {
                    Ok(found) => return found,
                    Err(observed) => last = Some(observed),
                }
            }
        };
        match tokio::time::timeout(self.deadline, observing).await {
            Ok(found) => found,
            Err(_) => self.fail(&last),
        }
    }

    /// Asks again and again, until it is true.
    pub async fn is_true(self, mut ask: impl AsyncFnMut() -> bool) {
        self.observe(async || ask().await.then_some(()).ok_or(false)).await;
    }

    /// Watches an object of the cluster; returns it as it was then. None when it was deleted.
    pub async fn object<K>(self, api: &Api<K>, name: &str, condition: impl Condition<K>) -> Option<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let waited = tokio::time::timeout(self.deadline, await_condition(api.clone(), name, condition)).await;
        match waited {
            Ok(found) => found.unwrap(),
            Err(_) => self.fail(&api.get_opt(name).await),
        }
    }

    /// Waits for a future.
    pub async fn future<T>(self, future: impl Future<Output = T>) -> T {
        match tokio::time::timeout(self.deadline, future).await {
            Ok(output) => output,
            Err(_) => self.fail(&"still pending"),
        }
    }

    fn fail(&self, last: &dyn Debug) -> ! {
        let log = self.log.as_deref().map(tail).unwrap_or_default();
        panic!("not within {:?}: {}; last observed: {last:#?}\n{log}", self.deadline, self.what)
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
