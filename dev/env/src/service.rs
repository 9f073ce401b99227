//! A long-running child process that can be stopped and started again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::process::{Launch, Lifetime, Process, ProcessRecord, Signal, tail};

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// One part of an environment: a process that is started, watched, stopped and started again.
#[derive(Debug)]
pub struct Service {
    launch: Mutex<Launch>,
    lifetime: Lifetime,
    process: Mutex<Option<Process>>,
}

impl Service {
    /// Describes a service and starts nothing. A detached service that an earlier command started is adopted.
    pub fn new(launch: Launch, lifetime: Lifetime) -> Self {
        let process = match lifetime {
            Lifetime::WithParent => None,
            Lifetime::Detached => ProcessRecord::read(&pid_file(&launch.log)).and_then(Process::adopt),
        };
        Self { launch: Mutex::new(launch), lifetime, process: Mutex::new(process) }
    }

    /// Changes how the next start runs it.
    pub fn set_launch(&self, change: impl FnOnce(&mut Launch)) {
        change(&mut self.launch());
    }

    /// Starts it unless it runs; does not wait until it serves. Returns whether it was started.
    pub fn start(&self) -> Result<bool> {
        let mut process = self.process();
        if process.as_mut().is_some_and(Process::is_alive) {
            return Ok(false);
        }
        let launch = self.launch();
        let started = Process::spawn(&launch, self.lifetime)?;
        if self.lifetime == Lifetime::Detached {
            // At once, not when it serves: `make down` must find it after an interrupted start.
            started.record().write(&pid_file(&launch.log))?;
        }
        *process = Some(started);
        Ok(true)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process().as_mut().is_some_and(Process::is_alive)
    }

    /// The process, while it runs.
    pub fn record(&self) -> Option<ProcessRecord> {
        self.process().as_mut().and_then(|process| process.is_alive().then(|| process.record()))
    }

    /// The file that its output is appended to.
    pub fn log(&self) -> PathBuf {
        self.launch().log.clone()
    }

    /// Its name in messages.
    pub fn name(&self) -> String {
        self.launch().name.clone()
    }

    /// Sends it a signal, if it runs; `Signal::STOP` and `Signal::CONT` freeze and thaw it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.record().map_or(Ok(()), |record| record.signal(signal))
    }

    /// Ends it with this signal and waits until it has ended; it is killed after `timeout`.
    pub async fn stop(&self, signal: Signal, timeout: Duration) -> Result<()> {
        self.signal(signal)?;
        if !self.exits_within(timeout).await {
            self.signal(Signal::KILL)?;
            if !self.exits_within(Duration::from_secs(10)).await {
                return Err(Error::message(format!("{} does not end, not even by SIGKILL", self.name())));
            }
        }
        *self.process() = None;
        Ok(())
    }

    /// Kills it, as a crash would, and waits until it has ended.
    pub async fn kill(&self) -> Result<()> {
        self.stop(Signal::KILL, Duration::ZERO).await
    }

    /// Waits until it ends; false if it still runs after `timeout`.
    pub async fn exits_within(&self, timeout: Duration) -> bool {
        let started = Instant::now();
        while self.is_running() {
            if started.elapsed() >= timeout {
                return false;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        true
    }

    /// Polls `ready` until it returns true. Fails when the process ends first, and after `timeout`.
    pub async fn wait_until<F>(&self, timeout: Duration, mut ready: impl FnMut() -> F) -> Result<()>
    where
        F: Future<Output = bool>,
    {
        let started = Instant::now();
        loop {
            // A frozen process may never answer one poll.
            if tokio::time::timeout(Duration::from_secs(5), ready()).await.unwrap_or(false) {
                return Ok(());
            }
            if !self.is_running() {
                return Err(self.failure("ended while it was starting"));
            }
            if started.elapsed() >= timeout {
                return Err(self.failure(&format!("is not ready after {} s", timeout.as_secs())));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// An error about this service, with the end of its log.
    pub fn failure(&self, what: &str) -> Error {
        Error::message(format!("{} {what}:\n{}", self.name(), tail(Path::new(&self.log()))))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self) -> MutexGuard<'_, Launch> {
        self.launch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file beside the log that records the process of a detached service.
fn pid_file(log: &Path) -> PathBuf {
    log.with_extension("pid")
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Detached || !self.is_running() {
            return;
        }
        // By its own signal first: a killed PostgreSQL leaves shared memory behind.
        let end = self.launch().end.signal();
        let _ = self.signal(end);
        let started = Instant::now();
        while self.is_running() {
            if started.elapsed() > Duration::from_secs(5) {
                let _ = self.signal(Signal::KILL);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}
