//! Supervises the loops and controllers of a leader: if one of them ends or panics before shutdown, the others are shut
//! down, and the process ends with an error that names it.

use std::{collections::HashMap, future::Future, time::Duration};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// How long the others may take to end after a failure, as long as a kubelet waits before it kills a container.
const GRACE: Duration = Duration::from_secs(30);

/// A loop or controller that ended although it should run until shutdown.
#[derive(Debug, thiserror::Error)]
pub enum LoopEnded {
    /// It returned.
    #[error("the {0} ended before shutdown: this is a bug; the process ends, so that it is started again")]
    Returned(&'static str),
    /// It panicked.
    #[error("the {0} panicked: {1}: this is a bug; the process ends, so that it is started again")]
    Panicked(&'static str, JoinError),
}

/// Loops and controllers that run until shutdown.
pub struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    shutdown: CancellationToken,
    failure: Option<LoopEnded>,
}

impl Supervisor {
    /// A supervisor without tasks. It cancels `shutdown` when a task fails.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), shutdown, failure: None }
    }

    /// Runs a task that ends by itself on shutdown, and is waited for then.
    pub fn spawn_graceful(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Runs a task that is dropped on shutdown.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.spawn_graceful(name, async move {
            shutdown.run_until_cancelled(task).await;
        });
    }

    /// Waits for something while the tasks run. Returns early on shutdown, and when a task fails, which is a shutdown.
    pub async fn wait_for(&mut self, something: impl Future<Output = ()>) {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            () = something => {}
            () = shutdown.cancelled() => {}
            () = self.next_failure() => {}
        }
    }

    /// Runs until shutdown, and waits until all tasks have ended.
    ///
    /// # Errors
    /// The first task that ended or panicked before shutdown.
    pub async fn run(mut self) -> Result<(), LoopEnded> {
        self.next_failure().await;
        // After a failure, the others end as on any shutdown.
        if timeout(GRACE, self.all_ended()).await.is_err() {
            error!("not everything ended in time after a loop failed");
        }
        self.failure.map_or(Ok(()), Err)
    }

    async fn all_ended(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.record(ended);
        }
    }

    /// Returns once a task has failed, or all have ended.
    async fn next_failure(&mut self) {
        while self.failure.is_none() {
            let Some(ended) = self.tasks.join_next_with_id().await else { return };
            self.record(ended);
        }
    }

    /// Records a task that ended. Before shutdown that is a failure, and a panic always is.
    fn record(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let name = self.names.remove(&id).unwrap_or("task");
        let failure = match ended {
            Ok(_) if self.shutdown.is_cancelled() => return,
            Ok(_) => LoopEnded::Returned(name),
            Err(error) => LoopEnded::Panicked(name, error),
        };
        error!(error = %failure, "a loop failed: shutting down");
        self.failure.get_or_insert(failure);
        self.shutdown.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use super::*;

    /// A task that notes when it has ended in order.
    fn graceful(supervisor: &mut Supervisor) -> Arc<AtomicBool> {
        let (ended, shutdown) = (Arc::new(AtomicBool::new(false)), supervisor.shutdown.clone());
        let note = Arc::clone(&ended);
        supervisor.spawn_graceful("graceful loop", async move {
            shutdown.cancelled().await;
            tokio::task::yield_now().await;
            note.store(true, Ordering::Relaxed);
        });
        ended
    }

    #[tokio::test]
    async fn panicking_loop_ends_all_with_its_name() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        let ended = graceful(&mut supervisor);
        supervisor.spawn("usage sampling", async { panic!("no such tenant") });
        let error = supervisor.run().await.unwrap_err().to_string();
        assert!(error.contains("usage sampling") && error.contains("no such tenant"), "{error}");
        assert!(ended.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn returning_loop_ends_all_with_its_name() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        let ended = graceful(&mut supervisor);
        supervisor.spawn("drift check", async {});
        let error = supervisor.run().await.unwrap_err();
        assert!(matches!(error, LoopEnded::Returned("drift check")), "{error}");
        assert!(ended.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn shutdown_waits_for_graceful_loops_and_drops_others() {
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let ended = graceful(&mut supervisor);
        supervisor.spawn("endless loop", pending());
        shutdown.cancel();
        supervisor.run().await.unwrap();
        assert!(ended.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn panic_during_shutdown_is_reported() {
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let end = shutdown.clone();
        supervisor.spawn_graceful("purge", async move {
            end.cancelled().await;
            panic!("at the end");
        });
        shutdown.cancel();
        assert!(matches!(supervisor.run().await, Err(LoopEnded::Panicked("purge", _))));
    }

    #[tokio::test]
    async fn wait_ends_when_a_loop_fails() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        supervisor.wait_for(async {}).await;
        supervisor.spawn("watch on TenantPlans", async { panic!("early") });
        supervisor.wait_for(pending()).await;
        assert!(matches!(supervisor.run().await, Err(LoopEnded::Panicked("watch on TenantPlans", _))));
    }
}
