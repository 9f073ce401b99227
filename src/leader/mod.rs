//! Leader election by a Lease (`coordination.k8s.io/v1`), with the rules of client-go: 15 s lease, 10 s renew
//! deadline, 2 s between tries.
//!
//! The Lease of an earlier process of the same pod is taken when it was not renewed for two tries. That is shorter than the
//! renew deadline, and safe only because that process has ended: its container is not restarted before.
//!
//! A record is only ever replaced at the `resourceVersion` that was read, so that two candidates cannot both win. Another
//! process's Lease expires by the monotonic clock of *this* process, counted from when it last read a changed record: the
//! times in the record come from the clocks of other machines, and are for people.
//!
//! A Lease alone fences nothing. [`Leadership::is_current`] returns, by the monotonic clock, whether the last renewal is
//! younger than the renew deadline; no other process can lead before the lease duration is over, which is longer. It is
//! checked before each step, so that a process that was suspended does nothing when it resumes. Requests that were sent
//! before are fenced by the registry, where workflows are claimed.

mod candidate;
mod record;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::{Api, Client};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::candidate::Candidate;

/// The times of a leader election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait for a leader that does not renew; whole seconds.
    pub lease: Duration,
    /// How long a leader works without a renewal. Shorter than `lease`.
    pub renew_deadline: Duration,
    /// The time between two tries. Much shorter than `renew_deadline`.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Times under which two replicas could lead at once, or one failed attempt would lose the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A leader would still work when another may lead.
    #[error("--lease-renew-deadline must be less than --lease-duration")]
    RenewDeadline,
    /// A leader would have one attempt, and a restarted container would have to wait for the Lease.
    #[error("--lease-retry-period must be at most half of --lease-renew-deadline")]
    Retry,
}

impl Timing {
    /// Refuses times that contradict each other.
    pub fn validate(self) -> Result<Self, TimingError> {
        if self.renew_deadline >= self.lease {
            return Err(TimingError::RenewDeadline);
        }
        if self.retry * 2 > self.renew_deadline {
            return Err(TimingError::Retry);
        }
        Ok(self)
    }
}

/// A leader election, for one candidate.
#[derive(Clone, Debug)]
pub struct Election {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// The identity of this candidate: no other has the same, now or later. See [`identity`].
    pub identity: String,
    /// The uid of the pod of this process, if it runs in one: no other running candidate has the same. The Lease of an earlier
    /// process of the same pod is taken when it was not renewed for two tries.
    pub pod: Option<String>,
    /// Its times.
    pub timing: Timing,
}

/// A unique name for this process: the host's name and a random suffix. Short enough for PostgreSQL's `application_name`,
/// where it is used too.
pub fn identity(host: &str) -> String {
    let host: String =
        host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).take(46).collect();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}_{}", &random[..16])
}

/// The state of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CandidateState {
    /// Another process leads, or none yet.
    Waiting,
    /// This process leads.
    Leading,
    /// This process led, or stopped waiting; why.
    Over(String),
}

/// The leadership of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    shared: Arc<Shared>,
    state: watch::Receiver<CandidateState>,
    task: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Shared {
    stop: CancellationToken,
    timing: Timing,
    tenure: Mutex<Tenure>,
}

#[derive(Debug, Default)]
struct Tenure {
    /// When the last successful renewal was sent.
    renewed: Option<Instant>,
    /// The holder whose lease was taken.
    predecessor: Option<String>,
}

impl Shared {
    fn tenure(&self) -> std::sync::MutexGuard<'_, Tenure> {
        // Nothing panics while it is locked, and its two fields do not depend on each other.
        self.tenure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Election {
    /// Starts this candidate in the background, until [`Leadership::release`].
    pub fn start(self, client: Client) -> Leadership {
        let (sender, state) = watch::channel(CandidateState::Waiting);
        let shared = Arc::new(Shared {
            stop: CancellationToken::new(),
            timing: self.timing,
            tenure: Mutex::default(),
        });
        let api = Api::namespaced(client, &self.namespace);
        let task = tokio::spawn(Candidate::new(api, self, Arc::clone(&shared), sender).run());
        Leadership { shared, state, task: Arc::new(tokio::sync::Mutex::new(Some(task))) }
    }
}

impl Leadership {
    /// Leads without a Lease, even if another process leads. For a test of what holds when leader election fails.
    pub fn assumed() -> Self {
        let (sender, state) = watch::channel(CandidateState::Leading);
        let for_ever = Timing { renew_deadline: Duration::MAX, ..Timing::default() };
        let tenure = Tenure { renewed: Some(Instant::now()), predecessor: None };
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared { stop: stop.clone(), timing: for_ever, tenure: Mutex::new(tenure) });
        let task = tokio::spawn(async move {
            stop.cancelled().await;
            drop(sender);
        });
        Self { shared, state, task: Arc::new(tokio::sync::Mutex::new(Some(task))) }
    }

    /// Waits until this process leads. Never returns once it has led and lost, or has released.
    pub async fn wait(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| *state == CandidateState::Leading).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether this process leads, as of now: it does, and its last renewal is younger than the renew deadline.
    pub fn is_current(&self) -> bool {
        *self.state.borrow() == CandidateState::Leading
            && self.age().is_some_and(|age| age < self.shared.timing.renew_deadline)
    }

    /// The age of the last renewal, by the monotonic clock; none while this process does not lead.
    pub fn age(&self) -> Option<Duration> {
        self.shared.tenure().renewed.map(|renewed| renewed.elapsed())
    }

    /// Waits until this process does not lead any more, and returns why. The process must end: what it remembers is out of
    /// date.
    pub async fn lost(&self) -> String {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, CandidateState::Over(_))).await {
            Ok(state) => match &*state {
                CandidateState::Over(why) => why.clone(),
                CandidateState::Waiting | CandidateState::Leading => String::new(),
            },
            Err(_) => "the election has ended".to_owned(),
        }
    }

    /// Whether it leads with a Lease.
    pub fn is_elected(&self) -> bool {
        self.shared.timing.renew_deadline != Duration::MAX
    }

    /// The holder from which this process took the lease, because it expired or was of this pod: its sessions may still be
    /// open. None if the lease was free.
    pub fn predecessor(&self) -> Option<String> {
        self.shared.tenure().predecessor.clone()
    }

    /// Ends the candidate, and releases the lease if this process holds it, so that the next leader does not wait. Only after
    /// all work has stopped.
    pub async fn release(&self) {
        self.shared.stop.cancel();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the leader election has failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_times_must_be_ordered() {
        let timing = |lease, renew_deadline, retry| {
            let [lease, renew_deadline, retry] = [lease, renew_deadline, retry].map(Duration::from_secs);
            Timing { lease, renew_deadline, retry }
        };
        assert_eq!(Timing::default().validate(), Ok(timing(15, 10, 2)));
        assert_eq!(timing(3, 2, 1).validate(), Ok(timing(3, 2, 1)));
        assert_eq!(timing(10, 10, 2).validate(), Err(TimingError::RenewDeadline));
        assert_eq!(timing(15, 10, 6).validate(), Err(TimingError::Retry));
    }
}
