//! The faults that a proxy can inject, and the gate at which its connections wait.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;
use tokio::time::Instant;

use super::effects::{Effects, Flow, Stage};

/// A fault of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// No fault: everything is forwarded.
    #[default]
    Pass,
    /// Existing connections are closed, and new ones are closed at once.
    Refuse,
    /// Connections are accepted, and nothing is forwarded in either direction. When the fault ends, everything that was
    /// sent meanwhile arrives, also from a client that has disconnected.
    Hang,
    /// Each statement and each request is delayed by this duration.
    Delay(Duration),
}

/// A fault of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// A fault of connections.
    Connection(Fault),
    /// The proxy answers new requests with 429; existing watches continue.
    Throttle {
        /// The value of `Retry-After`, rounded up to whole seconds.
        retry_after: Duration,
    },
    /// The proxy answers new requests with this status; existing watches continue.
    Fail(StatusCode),
}

impl From<Fault> for ApiFault {
    fn from(fault: Fault) -> Self {
        Self::Connection(fault)
    }
}

/// Selects the requests that a fault affects, by their path.
pub(super) type Filter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The current fault of one proxy.
pub(super) struct Setting {
    fault: ApiFault,
    /// Selects the requests that it affects; all of them if absent.
    only: Option<Filter>,
    /// How often `Refuse` was set: a connection from before it is closed, also if the fault has ended since.
    refusals: u64,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("fault", &self.fault).finish_non_exhaustive()
    }
}

impl Setting {
    pub(super) fn none() -> Self {
        Self { fault: Fault::Pass.into(), only: None, refusals: 0 }
    }

    pub(super) fn change(&mut self, fault: ApiFault, only: Option<Filter>) {
        (self.fault, self.only) = (fault, only);
        self.refusals += u64::from(fault == Fault::Refuse.into());
    }
}

/// Shows a connection whether it may forward data.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    flow: watch::Receiver<Flow>,
    setting: watch::Receiver<Setting>,
    epoch: u64,
    refusals: u64,
    /// The path of the request that it is used for.
    path: Option<String>,
}

impl Gate {
    /// The gate of a new connection.
    pub(super) fn new(effects: &Effects, setting: watch::Receiver<Setting>) -> Self {
        let flow = effects.subscribe();
        let (epoch, refusals) = (flow.borrow().epoch, setting.borrow().refusals);
        Self { flow, setting, epoch, refusals, path: None }
    }

    /// The epoch in which the connection was opened.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Uses it for a request with this path from now on.
    pub(super) fn set_path(&mut self, path: &str) {
        self.path = Some(path.to_owned());
    }

    /// The current fault of the connection, or of the request.
    pub(super) fn fault(&self) -> ApiFault {
        let setting = self.setting.borrow();
        match (&setting.only, &self.path) {
            (Some(only), Some(path)) if !only(path) => Fault::Pass.into(),
            _ => setting.fault,
        }
    }

    /// Whether the connection must be closed.
    pub(super) fn is_closed(&self) -> bool {
        let closed = {
            let flow = self.flow.borrow();
            match flow.stage {
                Stage::Open => flow.epoch != self.epoch,
                Stage::Paused => false,
                Stage::Closed(_) => true,
            }
        };
        let setting = self.setting.borrow();
        closed || setting.refusals != self.refusals || setting.fault == Fault::Refuse.into()
    }

    /// Waits until the connection must be closed.
    pub(super) async fn closed(&mut self) {
        while !self.is_closed() {
            self.changed().await;
        }
    }

    /// Waits until the connection may forward data; forever if it must be closed.
    pub(super) async fn opened(&mut self) {
        while !self.is_open() {
            self.changed().await;
        }
    }

    fn is_open(&self) -> bool {
        let flows = {
            let flow = self.flow.borrow();
            flow.epoch == self.epoch && matches!(flow.stage, Stage::Open)
        };
        flows && self.setting.borrow().refusals == self.refusals && self.fault() != Fault::Hang.into()
    }

    /// Waits for the delay of a statement or a request.
    pub(super) async fn delay(&mut self) {
        let started = Instant::now();
        while let ApiFault::Connection(Fault::Delay(delay)) = self.fault() {
            tokio::select! {
                () = tokio::time::sleep_until(started + delay) => return,
                () = self.changed() => {}
            }
        }
    }

    async fn changed(&mut self) {
        let outcome = tokio::select! {
            outcome = self.flow.changed() => outcome,
            outcome = self.setting.changed() => outcome,
        };
        if outcome.is_err() {
            // The proxy is being dropped, and this with it.
            std::future::pending::<()>().await;
        }
    }
}
