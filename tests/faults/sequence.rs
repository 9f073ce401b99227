//! Random operations on a tenant, drawn from a seed.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tenantry::api::tenant::{DesiredState, OffboardingTrigger, SuspensionMode, SuspensionTrigger};

use crate::model::{Model, Narrowing};

/// How many rounds there are: in each, a tenant has at most one operation.
pub const ROUNDS: usize = 9;
/// Rounds with manual changes: a restart follows, after which everything is checked.
const BY_HAND: std::ops::RangeInclusive<usize> = 1..=4;
/// The clock jumps by less than thirty days in all: no default grace period ends.
const LONGEST_JUMP: u64 = 60;

/// Pseudo-random numbers, the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// Less than `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize].clone()
    }

    fn maybe<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (self.roll(of.len() as u64 + 1) > 0).then(|| self.one_of(of))
    }
}

/// A time, relative to when it is applied.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// In two seconds.
    Soon,
    /// After this many hours and a half: the clock jumps by whole hours, and never to such a time.
    Hours(i64),
}

impl When {
    /// The absolute time.
    pub fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Soon => now + SignedDuration::from_secs(2),
            Self::Hours(hours) => now + SignedDuration::from_mins(60 * hours + 30),
        }
    }
}

/// A manual change in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drift {
    Widened,
    LoginTaken,
    ConnectTaken,
    OpenedToAll,
}

/// An operation on a tenant.
#[derive(Clone, Debug)]
pub enum Operation {
    /// `spec.state` and `spec.suspension`.
    State(DesiredState, Narrowing),
    /// `spec.offboarding` and `spec.deletionPolicy`.
    PurgeTerms {
        days: Option<i64>,
        trigger: Option<OffboardingTrigger>,
        retain: bool,
    },
    Trial(Option<When>),
    Validity(Option<When>, Option<When>),
    /// Settings and admins, which do not change access.
    Declare(u64),
    Pause(bool),
    Hold(usize, Narrowing),
    Unhold(usize),
    Delete,
    /// Applies the same spec again, after a deletion.
    Apply,
    LoseSecret,
    SpoilSecret,
    ByHand(Drift),
    /// A session that is kept open.
    Connect,
}

/// An operation, and whether it is waited for.
#[derive(Clone, Debug)]
pub struct Turn {
    pub operation: Operation,
    pub wait: bool,
}

/// What happens to the operator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Restart {
    Ended,
    Killed,
}

/// What happens to all in a round.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Hours that pass at once.
    pub jump: i64,
    pub restart: Option<Restart>,
    /// After this percentage of the operations.
    pub after: usize,
}

/// What happens to all, round by round.
pub fn weather(seed: u64) -> Vec<Weather> {
    let mut dice = Dice(seed);
    let restarts = [Restart::Ended, Restart::Killed];
    let mut drawn = |round| Weather {
        jump: if dice.roll(5) < 3 { 1 + dice.roll(LONGEST_JUMP) as i64 } else { 0 },
        // Always after rounds with manual changes.
        restart: if round == BY_HAND.end() + 1 {
            dice.maybe(&restarts).or(Some(Restart::Killed))
        } else {
            dice.maybe(&restarts)
        },
        after: dice.roll(100) as usize,
    };
    (0..ROUNDS).map(&mut drawn).collect()
}

/// The sequence of a seed: for each round an operation, or none. A fresh tenant can be compared with its end.
pub fn sequence(dice: &mut Dice, plan: usize) -> Vec<Option<Turn>> {
    let mut model = Model::new(plan);
    let now = Timestamp::UNIX_EPOCH;
    let mut turns: Vec<Option<Turn>> = (0..ROUNDS - 1)
        .map(|round| {
            if dice.roll(10) == 0 {
                return None;
            }
            let operation = loop {
                let drawn = draw(dice);
                if suits(&drawn, &model, round) {
                    break drawn;
                }
            };
            model.apply(&operation, now);
            Some(Turn { operation, wait: dice.roll(2) == 0 })
        })
        .collect();
    // A paused tenant may differ from its spec.
    let last = (model.present && model.paused).then_some(Operation::Pause(false));
    turns.push(last.map(|operation| Turn { operation, wait: false }));
    turns
}

/// Whether an operation is possible and its result is determined.
fn suits(operation: &Operation, model: &Model, round: usize) -> bool {
    let is_active = !model.is_deprovisioned() && !model.paused && model.bound;
    match operation {
        // A tenant that was never activated has no grace period.
        Operation::State(DesiredState::Deprovisioned, _) | Operation::Delete | Operation::Pause(true)
            if round == 0 =>
        {
            false
        }
        Operation::Pause(paused) => *paused != model.paused,
        Operation::Delete => model.present && model.bound,
        Operation::Apply => !model.present,
        // Whether a hold placed without a Tenant is recorded is not determined.
        Operation::Unhold(party) => {
            model.holds.contains_key(party) && (model.present || model.recorded.contains_key(party))
        }
        Operation::LoseSecret => {
            round > 0 && (is_active || model.is_deprovisioned() && !model.secret_lost && !model.paused)
        }
        Operation::SpoilSecret | Operation::Connect => round > 0 && is_active,
        Operation::ByHand(_) => BY_HAND.contains(&round) && is_active,
        Operation::State(..)
        | Operation::PurgeTerms { .. }
        | Operation::Trial(_)
        | Operation::Validity(..)
        | Operation::Declare(_)
        | Operation::Hold(..) => true,
    }
}

fn draw(dice: &mut Dice) -> Operation {
    let modes = [SuspensionMode::Blocked, SuspensionMode::ReadOnly];
    let narrowing =
        |dice: &mut Dice| Narrowing { mode: dice.maybe(&modes), trigger: dice.maybe(SuspensionTrigger::ALL) };
    let whens = [-30, -3, -1, 0, 1, 2, 20, 45, 90, 2000].map(When::Hours);
    match dice.roll(32) {
        0..=4 => Operation::State(DesiredState::Active, narrowing(dice)),
        5..=8 => Operation::State(DesiredState::Suspended, narrowing(dice)),
        9..=10 => Operation::State(DesiredState::Deprovisioned, narrowing(dice)),
        11 => {
            let days = dice.maybe(&[35, 45, 60, 90]);
            let mut triggers = vec![OffboardingTrigger::CustomerRequest, OffboardingTrigger::NonPayment];
            // Its grace period is zero, unless it is set.
            triggers.extend(days.map(|_| OffboardingTrigger::TermsViolation));
            Operation::PurgeTerms { days, trigger: dice.maybe(&triggers), retain: dice.roll(2) == 0 }
        }
        12 => Operation::Trial(dice.maybe(&whens)),
        13 => Operation::Trial(Some(When::Soon)),
        14 => Operation::Validity(None, dice.maybe(&whens)),
        15 => match dice.roll(9) as usize {
            first @ 0..=7 => Operation::Validity(Some(whens[first]), Some(whens[first + 1])),
            _ => Operation::Validity(Some(When::Soon), None),
        },
        16 => Operation::Validity(None, Some(When::Soon)),
        17..=18 => Operation::Declare(dice.roll(32)),
        19 => Operation::Pause(true),
        20 => Operation::Pause(false),
        21..=23 => Operation::Hold(dice.roll(3) as usize, narrowing(dice)),
        24..=25 => Operation::Unhold(dice.roll(3) as usize),
        26..=27 => Operation::Delete,
        28 => Operation::Apply,
        29 => dice.one_of(&[Operation::LoseSecret, Operation::SpoilSecret]),
        30 => {
            let all = [Drift::Widened, Drift::LoginTaken, Drift::ConnectTaken, Drift::OpenedToAll];
            Operation::ByHand(dice.one_of(&all))
        }
        _ => Operation::Connect,
    }
}
