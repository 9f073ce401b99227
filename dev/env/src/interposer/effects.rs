//! Counts an operator's effects on its servers, and stops it at one of them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{Statement, Write};

/// The kind of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectKind {
    /// A statement for PostgreSQL.
    Statement,
    /// A request to the API server that changes an object.
    Write,
}

/// One statement or write, executed or about to be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Its number since the last reset, from 1.
    pub number: usize,
    /// Its kind.
    pub kind: EffectKind,
    /// The database and the statement in one line, or the method and the path.
    pub what: String,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.number, self.what)
    }
}

/// When the trigger fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The proxy has received the effect and forwards nothing of it to the server.
    Before,
    /// The server has answered completely, and the proxy forwards nothing of the answer to the client.
    After,
}

type Action = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;
type Filter<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

/// The count of effects that two proxies share, and the trigger on one effect. Clones share their state.
///
/// Concurrent effects are numbered in the order in which they are forwarded.
#[derive(Clone)]
pub struct Effects {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Changed only while `state` is locked.
    flow: watch::Sender<Flow>,
}

struct State {
    recorded: Vec<Effect>,
    armed: Option<Armed>,
    /// How often it was reset: a trigger of an earlier round has no effect.
    round: u64,
    statements: Filter<Statement>,
    writes: Filter<Write>,
}

struct Armed {
    number: usize,
    moment: Moment,
    action: Action,
}

/// Whether the proxies forward data. A connection is valid only in the epoch in which it was opened, so that nothing of
/// a killed process is forwarded after a reset.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) epoch: u64,
    pub(super) stage: Stage,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    Open,
    /// The trigger has fired and its action runs: nothing is forwarded, and no connection is closed yet. The client must
    /// not observe the trigger before it is killed.
    Paused,
    /// The action has run: connections are closed.
    Closed(Effect),
}

/// The decision on a statement or a write.
pub(super) enum Admission {
    Forward,
    /// It is forwarded; the trigger fires when the answer is complete.
    Await(Trigger),
    /// Neither it nor anything after it is forwarded.
    Never,
}

/// An armed effect that was forwarded.
pub(super) struct Trigger {
    effects: Effects,
    round: u64,
    effect: Effect,
    action: Action,
}

impl Default for Effects {
    fn default() -> Self {
        Self::new()
    }
}

impl Effects {
    /// Counts every statement and every write.
    pub fn new() -> Self {
        let state = State {
            recorded: Vec::new(),
            armed: None,
            round: 0,
            statements: Arc::new(|_| true),
            writes: Arc::new(|_| true),
        };
        let (flow, _) = watch::channel(Flow { epoch: 0, stage: Stage::Open });
        Self { shared: Arc::new(Shared { state: Mutex::new(state), flow }) }
    }

    /// Counts only the statements for which `filter` returns true; the others are forwarded uncounted. A reset keeps it.
    pub fn count_statements(&self, filter: impl Fn(&Statement) -> bool + Send + Sync + 'static) {
        self.state().statements = Arc::new(filter);
    }

    /// Counts only the writes for which `filter` returns true; the others are forwarded uncounted. A reset keeps it.
    pub fn count_writes(&self, filter: impl Fn(&Write) -> bool + Send + Sync + 'static) {
        self.state().writes = Arc::new(filter);
    }

    /// Runs `action` at the effect with this number, counted from 1 since the last reset. A number that has passed does
    /// not occur again. Replaces an earlier trigger.
    ///
    /// From then on neither proxy forwards anything until `reset`. The connections are closed after the action has run:
    /// a process that it kills does not observe their end. Effects on other connections are forwarded, with later
    /// numbers, while the answer to this one is awaited. The action runs on a thread of the proxies.
    pub fn arm<F>(&self, number: usize, moment: Moment, action: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let action: Action = Box::new(|| action().boxed());
        self.state().armed = Some(Armed { number, moment, action });
    }

    /// Waits until the trigger has fired and its action has run; returns the effect.
    pub async fn triggered(&self) -> Effect {
        let mut flow = self.shared.flow.subscribe();
        loop {
            if let Stage::Closed(effect) = &flow.borrow_and_update().stage {
                return effect.clone();
            }
            if flow.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Removes the trigger, and returns whether there was one: it does not occur any more. Otherwise its effect was forwarded, or
    /// none was armed.
    pub fn disarm(&self) -> bool {
        self.state().armed.take().is_some()
    }

    /// The effects since the last reset, in the order of their numbers. One that was stopped with `Moment::Before` is the
    /// last of them.
    pub fn recorded(&self) -> Vec<Effect> {
        self.state().recorded.clone()
    }

    /// Counts from 1 again, removes the trigger, and accepts new connections after a trigger has fired. Connections from
    /// before it stay closed.
    pub fn reset(&self) {
        let mut state = self.state();
        state.recorded.clear();
        state.armed = None;
        state.round += 1;
        self.shared.flow.send_if_modified(|flow| {
            let was_open = matches!(flow.stage, Stage::Open);
            if !was_open {
                *flow = Flow { epoch: flow.epoch + 1, stage: Stage::Open };
            }
            !was_open
        });
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Flow> {
        self.shared.flow.subscribe()
    }

    /// Decides on a statement of a connection of this epoch; none while nothing is forwarded.
    pub(super) fn admit_statement(&self, epoch: u64, statement: &Statement) -> Option<Admission> {
        // Called without the lock, since the filter may take it.
        let filter = Arc::clone(&self.state().statements);
        self.admit(epoch, EffectKind::Statement, filter(statement), || statement.to_string())
    }

    /// Decides on a write of a connection of this epoch; none while nothing is forwarded.
    pub(super) fn admit_write(&self, epoch: u64, write: &Write) -> Option<Admission> {
        let filter = Arc::clone(&self.state().writes);
        self.admit(epoch, EffectKind::Write, filter(write), || write.to_string())
    }

    fn admit(
        &self,
        epoch: u64,
        kind: EffectKind,
        counts: bool,
        what: impl FnOnce() -> String,
    ) -> Option<Admission> {
        let mut state = self.state();
        {
            let flow = self.shared.flow.borrow();
            if flow.epoch != epoch || !matches!(flow.stage, Stage::Open) {
                return None;
            }
        }
        if !counts {
            return Some(Admission::Forward);
        }
        let effect = Effect { number: state.recorded.len() + 1, kind, what: what() };
        state.recorded.push(effect.clone());
        let Some(armed) = state.armed.take_if(|armed| armed.number == effect.number) else {
            return Some(Admission::Forward);
        };
        let trigger = Trigger { effects: self.clone(), round: state.round, effect, action: armed.action };
        Some(match armed.moment {
            Moment::Before => {
                trigger.fire_in(&state);
                Admission::Never
            }
            Moment::After => Admission::Await(trigger),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trigger {
    /// Stops all forwarding, runs the action and closes all connections. Returns false and does nothing after a reset.
    pub(super) fn fire(self) -> bool {
        let effects = self.effects.clone();
        let state = effects.state();
        let current = state.round == self.round;
        if current {
            self.fire_in(&state);
        }
        current
    }

    /// As `fire`, while the state is locked.
    fn fire_in(self, _state: &State) {
        let Self { effects, round, effect, action } = self;
        effects.shared.move_to(Stage::Paused);
        tokio::spawn(async move {
            // In a task of its own, so that a panic does not leave the test waiting.
            let _ = tokio::spawn(async move { action().await }).await;
            let state = effects.state();
            if state.round == round {
                effects.shared.move_to(Stage::Closed(effect));
            }
        });
    }
}

impl Shared {
    fn move_to(&self, stage: Stage) {
        self.flow.send_modify(|flow| *flow = Flow { epoch: flow.epoch + 1, stage });
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flow = self.shared.flow.borrow().clone();
        f.debug_struct("Effects")
            .field("flow", &flow)
            .field("recorded", &self.recorded())
            .finish_non_exhaustive()
    }
}
