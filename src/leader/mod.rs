//! Leader election by a Lease (`coordination.k8s.io/v1`), with the rules of client-go: 15 s lease, 10 s renew
//! deadline, 2 s between tries.
//!
//! What an earlier process of the same pod held is taken when it was not renewed for two tries. That is shorter than the
//! renew deadline, and safe only because that process has ended: a container is started again no sooner.
//!
//! A record is only ever replaced at the `resourceVersion` that was read, so that two candidates cannot both win.
//! Whether another's lease has expired is judged from when *this* process saw the record change last, on its own
//! monotonic clock: the times in the record come from other machines' clocks and are for people.
//!
//! A Lease alone fences nothing. [`Leadership::is_current`] says, by the monotonic clock, whether the last renewal
//! is younger than the renew deadline; while this process lives, nobody else can lead before the lease duration is
//! over, which is longer. It is asked before each step, so that a process that was frozen does nothing when it wakes
//! up. What was sent before is fenced by the registry, where workflows are claimed.

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

/// How long each thing takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait for a leader that says nothing; whole seconds.
    pub lease: Duration,
    /// How long a leader goes on without having renewed. Shorter than `lease`.
    pub renew_deadline: Duration,
    /// How long between two tries. Much shorter than `renew_deadline`.
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

/// An election to stand for.
#[derive(Clone, Debug)]
pub struct Election {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who we are: unlike every other candidate, now and later. See [`identity`].
    pub identity: String,
    /// The uid of the pod that this process runs in, if it runs in one: no candidate that lives has the same. What an earlier
    /// process of the same pod held is taken over when it was not renewed for two tries.
    pub pod: Option<String>,
    /// How long each thing takes.
    pub timing: Timing,
}

/// A name for this process that no other process has: the host's, and something random. Short enough for
/// PostgreSQL's `application_name`, in which it is used as well.
pub fn identity(host: &str) -> String {
    let host: String =
        host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).take(46).collect();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}_{}", &random[..16])
}

/// Where a candidate is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Somebody else leads, or nobody yet.
    Waiting,
    /// We lead.
    Leading,
    /// We led and do not any more, or gave up; why.
    Over(String),
}

/// This process's part in an election. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
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
    /// When the request was sent that renewed the lease last.
    renewed: Option<Instant>,
    /// Whose lease was taken over.
    predecessor: Option<String>,
}

impl Shared {
    fn tenure(&self) -> std::sync::MutexGuard<'_, Tenure> {
        // Nothing can panic while it is locked; and if, its two fields are still whole.
        self.tenure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Election {
    /// Starts to stand for it, in the background, until [`Leadership::release`].
    pub fn start(self, client: Client) -> Leadership {
        let (sender, state) = watch::channel(State::Waiting);
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
    /// Leads without a Lease, whoever else does. For a test of what holds when leader election does not.
    pub fn assumed() -> Self {
        let (sender, state) = watch::channel(State::Leading);
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
        if state.wait_for(|state| *state == State::Leading).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether this process leads, as of now: it does, and its last renewal is younger than the renew deadline.
    pub fn is_current(&self) -> bool {
        *self.state.borrow() == State::Leading
            && self.age().is_some_and(|age| age < self.shared.timing.renew_deadline)
    }

    /// How long ago the lease was renewed last, by the monotonic clock; none while this process does not lead.
    pub fn age(&self) -> Option<Duration> {
        self.shared.tenure().renewed.map(|renewed| renewed.elapsed())
    }

    /// Waits until this process does not lead any more, and says why. The process had better end: what it knew of
    /// the world is nobody's any more.
    pub async fn lost(&self) -> String {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, State::Over(_))).await {
            Ok(state) => match &*state {
                State::Over(why) => why.clone(),
                State::Waiting | State::Leading => String::new(),
            },
            Err(_) => "the election has ended".to_owned(),
        }
    }

    /// Whether it leads by a Lease.
    pub fn is_elected(&self) -> bool {
        self.shared.timing.renew_deadline != Duration::MAX
    }

    /// The identity that this process took the lease over from, as it ran out or as that process ran in this pod: its
    /// sessions may still be alive. None if the lease was free.
    pub fn predecessor(&self) -> Option<String> {
        self.shared.tenure().predecessor.clone()
    }

    /// Stops standing, and gives the lease back if this process holds it, so that the next leader need not wait.
    /// Only for when all work has stopped.
    pub async fn release(&self) {
        self.shared.stop.cancel();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the leader election has failed");
        }
    }
}
