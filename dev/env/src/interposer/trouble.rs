//! The troubles a proxy can make, and the gate that everything passes which goes through one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;
use tokio::time::Instant;

use super::effects::{Effects, Flow, Stage};

/// What happens to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// None: everything is forwarded.
    #[default]
    Pass,
    /// New ones are closed at once, and those there are now too.
    Refuse,
    /// They are accepted, and nothing moves on them, in either direction. As in a network that stands still, what was
    /// sent meanwhile arrives when that is over, also from a client that has gone.
    Hang,
    /// Each statement, and each request, waits for this long.
    Delay(Duration),
}

/// What happens at the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiTrouble {
    /// What can happen to any connection.
    Connection(Trouble),
    /// New requests are answered 429 by the proxy; watches that run go on.
    Throttle {
        /// What `Retry-After` says, in whole seconds, rounded up.
        retry_after: Duration,
    },
    /// New requests are answered with this status by the proxy; watches that run go on.
    Fail(StatusCode),
}

impl From<Trouble> for ApiTrouble {
    fn from(trouble: Trouble) -> Self {
        Self::Connection(trouble)
    }
}

/// Which requests a trouble is for, by their path.
pub(super) type Filter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The trouble of one proxy.
pub(super) struct Setting {
    trouble: ApiTrouble,
    /// For these requests alone, if only for some.
    only: Option<Filter>,
    /// How often connections were refused: one from before a refusal ends, also when it hears of it late.
    refusals: u64,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("trouble", &self.trouble).finish_non_exhaustive()
    }
}

impl Setting {
    pub(super) fn none() -> Self {
        Self { trouble: Trouble::Pass.into(), only: None, refusals: 0 }
    }

    pub(super) fn change(&mut self, trouble: ApiTrouble, only: Option<Filter>) {
        (self.trouble, self.only) = (trouble, only);
        self.refusals += u64::from(trouble == Trouble::Refuse.into());
    }
}

/// What a connection asks before it moves anything.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    flow: watch::Receiver<Flow>,
    setting: watch::Receiver<Setting>,
    epoch: u64,
    refusals: u64,
    /// The path of the request that it is for.
    path: Option<String>,
}

impl Gate {
    /// For a connection that begins now.
    pub(super) fn new(effects: &Effects, setting: watch::Receiver<Setting>) -> Self {
        let flow = effects.subscribe();
        let (epoch, refusals) = (flow.borrow().epoch, setting.borrow().refusals);
        Self { flow, setting, epoch, refusals, path: None }
    }

    /// The epoch in which the connection began.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// It is for a request with this path from here on.
    pub(super) fn is_for(&mut self, path: &str) {
        self.path = Some(path.to_owned());
    }

    /// The trouble now, for what goes through here.
    pub(super) fn trouble(&self) -> ApiTrouble {
        let setting = self.setting.borrow();
        match (&setting.only, &self.path) {
            (Some(only), Some(path)) if !only(path) => Trouble::Pass.into(),
            _ => setting.trouble,
        }
    }

    /// Whether the connection is to end.
    pub(super) fn is_cut(&self) -> bool {
        let cut = {
            let flow = self.flow.borrow();
            match flow.stage {
                Stage::Open => flow.epoch != self.epoch,
                Stage::Held => false,
                Stage::Cut(_) => true,
            }
        };
        let setting = self.setting.borrow();
        cut || setting.refusals != self.refusals || setting.trouble == Trouble::Refuse.into()
    }

    /// Waits until the connection is to end.
    pub(super) async fn cut(&mut self) {
        while !self.is_cut() {
            self.changed().await;
        }
    }

    /// Waits until something may move on the connection; forever on one that is to end.
    pub(super) async fn open(&mut self) {
        while !self.is_open() {
            self.changed().await;
        }
    }

    fn is_open(&self) -> bool {
        let flows = {
            let flow = self.flow.borrow();
            flow.epoch == self.epoch && matches!(flow.stage, Stage::Open)
        };
        flows && self.setting.borrow().refusals == self.refusals && self.trouble() != Trouble::Hang.into()
    }

    /// Waits for as long as a statement or a request is to be delayed.
    pub(super) async fn delay(&mut self) {
        let begun = Instant::now();
        while let ApiTrouble::Connection(Trouble::Delay(delay)) = self.trouble() {
            tokio::select! {
                () = tokio::time::sleep_until(begun + delay) => return,
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
