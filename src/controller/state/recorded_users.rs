//! Whether the annotation that names users can be believed: admission policies of the chart refuse every other value of it.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::domain::attribution::UnknownActor;

/// How long it counts that the policies are in force.
const IN_FORCE_FOR: Duration = Duration::from_secs(600);

/// How long it counts that they are not: they may be installed at any time.
const ABSENT_FOR: Duration = Duration::from_secs(10);

/// What is known of the policies.
pub struct RecordedUsers {
    /// Why an object without the annotation has no known user.
    absent: UnknownActor,
    checked: Mutex<Option<(Instant, bool)>>,
}

impl RecordedUsers {
    /// Under an API server whose Kubernetes is too old for the policies, or not; beside a webhook, or not.
    pub fn new(old_kubernetes: bool, webhook: bool) -> Self {
        let absent = match (old_kubernetes, webhook) {
            (true, true) => UnknownActor::NoWebhook,
            (true, false) => UnknownActor::OldKubernetes,
            (false, _) => UnknownActor::NoPolicy,
        };
        Self { absent, checked: Mutex::default() }
    }

    /// Why an object without the annotation has no known user.
    pub fn absent(&self) -> UnknownActor {
        self.absent
    }

    /// Whether the policies are in force. `check` asks the API server; none: it did not answer, and what was known before
    /// counts. Only one asks at a time.
    pub async fn are_protected(&self, check: impl Future<Output = Option<bool>>) -> bool {
        let mut checked = self.checked.lock().await;
        let known = *checked;
        let lasts = |in_force| if in_force { IN_FORCE_FOR } else { ABSENT_FOR };
        if let Some((_, in_force)) = known.filter(|(at, in_force)| at.elapsed() < lasts(*in_force)) {
            return in_force;
        }
        match check.await {
            Some(in_force) => {
                *checked = Some((Instant::now(), in_force));
                in_force
            }
            None => known.is_some_and(|(_, in_force)| in_force),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answer_counts_for_a_while_and_survives_an_outage() {
        let users = RecordedUsers::new(false, true);
        assert!(!users.are_protected(async { None }).await, "nothing is known");
        assert!(users.are_protected(async { Some(true) }).await);
        assert!(users.are_protected(async { panic!("it is known") }).await);
        let users = RecordedUsers::new(true, false);
        assert!(!users.are_protected(async { Some(false) }).await);
        assert_eq!(users.absent(), UnknownActor::OldKubernetes);
        assert_eq!(RecordedUsers::new(true, true).absent(), UnknownActor::NoWebhook);
    }
}
