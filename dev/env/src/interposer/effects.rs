//! What an operator does to its servers, counted, and the moment at which it is stopped.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{Statement, Write};

/// What an effect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectKind {
    /// A statement for PostgreSQL.
    Statement,
    /// A request to the API server that changes something.
    Write,
}

/// One thing that was done, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Which one it is since the last reset, from 1.
    pub number: usize,
    /// What it is.
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
    /// The effect has come, and nothing of it reaches the server.
    Before,
    /// The server has answered in full, and nothing of the answer reaches the client.
    After,
}

type Action = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;
type Filter<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

/// The count of effects that two proxies share, and the trigger on one of them. Clones are the same one.
///
/// Effects that come at the same time are numbered in the order in which they are let through.
#[derive(Clone)]
pub struct Effects {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Changed only by the holder of `state`.
    flow: watch::Sender<Flow>,
}

struct State {
    seen: Vec<Effect>,
    armed: Option<Armed>,
    /// How often it was reset: a trigger of an earlier round does nothing.
    round: u64,
    statements: Filter<Statement>,
    writes: Filter<Write>,
}

struct Armed {
    number: usize,
    moment: Moment,
    action: Action,
}

/// Whether anything is let through. A connection knows the epoch in which it began: no later one concerns it, so that
/// nothing of a killed process can come through after a reset.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) epoch: u64,
    pub(super) stage: Stage,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    Open,
    /// The trigger has fired and its action runs: nothing moves, but no connection ends yet. The client must not learn
    /// of it before it is dead.
    Held,
    /// The action has run: connections end.
    Cut(Effect),
}

/// What becomes of a statement or a write.
pub(super) enum Admission {
    Forward,
    /// It is forwarded; the trigger is fired with the complete answer.
    Await(Trigger),
    /// It goes nowhere, nor does anything that follows it.
    Never,
}

/// An armed effect that was let through.
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
            seen: Vec::new(),
            armed: None,
            round: 0,
            statements: Arc::new(|_| true),
            writes: Arc::new(|_| true),
        };
        let (flow, _) = watch::channel(Flow { epoch: 0, stage: Stage::Open });
        Self { shared: Arc::new(Shared { state: Mutex::new(state), flow }) }
    }

    /// Counts only the statements for which `filter` says yes; the others are forwarded uncounted. A reset keeps it.
    pub fn count_statements(&self, filter: impl Fn(&Statement) -> bool + Send + Sync + 'static) {
        self.state().statements = Arc::new(filter);
    }

    /// Counts only the writes for which `filter` says yes; the others are forwarded uncounted. A reset keeps it.
    pub fn count_writes(&self, filter: impl Fn(&Write) -> bool + Send + Sync + 'static) {
        self.state().writes = Arc::new(filter);
    }

    /// Runs `action` when the effect with this number comes, counted from 1 since the last reset; a number that has
    /// passed does not come again. Replaces what was armed before.
    ///
    /// From then on nothing goes through either proxy, until `reset`. The connections end when the action has: what it
    /// kills does not see them end. What came on other connections while the answer to the effect was awaited has gone
    /// through, with later numbers. The action runs on a thread of the proxies.
    pub fn arm<F>(&self, number: usize, moment: Moment, action: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let action: Action = Box::new(|| action().boxed());
        self.state().armed = Some(Armed { number, moment, action });
    }

    /// Waits until the armed effect has come and its action has run: the effect.
    pub async fn triggered(&self) -> Effect {
        let mut flow = self.shared.flow.subscribe();
        loop {
            if let Stage::Cut(effect) = &flow.borrow_and_update().stage {
                return effect.clone();
            }
            if flow.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The effects since the last reset, in the order of their numbers; one that was stopped before it was done is the
    /// last of them.
    pub fn seen(&self) -> Vec<Effect> {
        self.state().seen.clone()
    }

    /// Counts from 1 again, disarms, and lets new connections through after a trigger. Connections from before the
    /// trigger stay dead.
    pub fn reset(&self) {
        let mut state = self.state();
        state.seen.clear();
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

    /// Decides on a statement that a connection of this epoch wants to send; none while nothing is let through.
    pub(super) fn admit_statement(&self, epoch: u64, statement: &Statement) -> Option<Admission> {
        // Called without the lock, which the filter is free to ask for.
        let filter = Arc::clone(&self.state().statements);
        self.admit(epoch, EffectKind::Statement, filter(statement), || statement.to_string())
    }

    /// Decides on a write that a connection of this epoch wants to send; none while nothing is let through.
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
        let effect = Effect { number: state.seen.len() + 1, kind, what: what() };
        state.seen.push(effect.clone());
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
    /// Stops everything, runs the action and ends all connections; false, and nothing of it, after a reset.
    pub(super) fn fire(self) -> bool {
        let effects = self.effects.clone();
        let state = effects.state();
        let current = state.round == self.round;
        if current {
            self.fire_in(&state);
        }
        current
    }

    /// For the holder of the state.
    fn fire_in(self, _state: &State) {
        let Self { effects, round, effect, action } = self;
        effects.shared.move_to(Stage::Held);
        tokio::spawn(async move {
            // In a task of its own, for one that panics must not leave the test waiting.
            let _ = tokio::spawn(async move { action().await }).await;
            let state = effects.state();
            if state.round == round {
                effects.shared.move_to(Stage::Cut(effect));
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
        f.debug_struct("Effects").field("flow", &flow).field("seen", &self.seen()).finish_non_exhaustive()
    }
}
