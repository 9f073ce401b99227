//! What is done to a tenant, at random: operations drawn from a seed.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tenantry::api::tenant::{DesiredState, OffboardingTrigger, SuspensionMode, SuspensionTrigger};

use crate::model::{Model, Narrowing};

/// How many rounds there are: in each, a tenant has at most one operation.
pub const ROUNDS: usize = 9;
/// Something is changed by hand only in these: a restart comes after them, at which everything is looked at.
const BY_HAND: std::ops::RangeInclusive<usize> = 1..=4;
/// Nobody waits for less than thirty days in vain: the clock jumps by less in all.
const LONGEST_JUMP: u64 = 60;

/// Numbers that look random, the same for the same seed (SplitMix64).
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

/// A time, seen from when it is written.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// In two seconds.
    Soon,
    /// After so many hours and a half: the clock jumps by whole hours, and never to such a time.
    Hours(i64),
}

impl When {
    /// Seen from then.
    pub fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Soon => now + SignedDuration::from_secs(2),
            Self::Hours(hours) => now + SignedDuration::from_mins(60 * hours + 30),
        }
    }
}

/// What somebody changes by hand in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drift {
    Widened,
    LoginTaken,
    ConnectTaken,
    OpenedToAll,
}

/// What is done to a tenant.
#[derive(Clone, Debug)]
pub enum Operation {
    /// `spec.state` and `spec.suspension`.
    State(DesiredState, Narrowing),
    /// `spec.offboarding` and `spec.deletionPolicy`.
    Terms {
        days: Option<i64>,
        trigger: Option<OffboardingTrigger>,
        retain: bool,
    },
    Trial(Option<When>),
    Validity(Option<When>, Option<When>),
    /// What the tenant is told, and what is not looked at by anybody else: settings, admins, a name.
    Declare(u64),
    Pause(bool),
    Hold(usize, Narrowing),
    Unhold(usize),
    Delete,
    /// The same again, if it is gone.
    Apply,
    LoseSecret,
    SpoilSecret,
    ByHand(Drift),
    /// A session that is left open.
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
    /// So many hours pass at once.
    pub jump: i64,
    pub restart: Option<Restart>,
    /// After so many of a hundred operations.
    pub after: usize,
}

/// What happens to all, round by round.
pub fn weather(seed: u64) -> Vec<Weather> {
    let mut dice = Dice(seed);
    let restarts = [Restart::Ended, Restart::Killed];
    let mut drawn = |round| Weather {
        jump: if dice.roll(5) < 3 { 1 + dice.roll(LONGEST_JUMP) as i64 } else { 0 },
        // Once for certain after things were changed by hand.
        restart: if round == BY_HAND.end() + 1 {
            dice.maybe(&restarts).or(Some(Restart::Killed))
        } else {
            dice.maybe(&restarts)
        },
        after: dice.roll(100) as usize,
    };
    (0..ROUNDS).map(&mut drawn).collect()
}

/// The sequence of a seed: for each round a turn, or none. It ends where a fresh tenant can be compared with it.
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
    // What is paused is not what its spec says.
    let last = (model.present && model.paused).then_some(Operation::Pause(false));
    turns.push(last.map(|operation| Turn { operation, wait: false }));
    turns
}

/// Whether an operation makes sense, and leads to one end only.
fn suits(operation: &Operation, model: &Model, round: usize) -> bool {
    let lives = !model.leaves() && !model.paused && model.bound;
    match operation {
        // A tenant that was never handed out has no grace.
        Operation::State(DesiredState::Deprovisioned, _) | Operation::Delete | Operation::Pause(true)
            if round == 0 =>
        {
            false
        }
        Operation::Pause(paused) => *paused != model.paused,
        Operation::Delete => model.present && model.bound,
        Operation::Apply => !model.present,
        // One that was put while there was no Tenant was told to nobody, or just so.
        Operation::Unhold(party) => {
            model.holds.contains_key(party) && (model.present || model.recorded.contains_key(party))
        }
        Operation::LoseSecret => {
            round > 0 && (lives || model.leaves() && !model.secret_lost && !model.paused)
        }
        Operation::SpoilSecret | Operation::Connect => round > 0 && lives,
        Operation::ByHand(_) => BY_HAND.contains(&round) && lives,
        Operation::State(..)
        | Operation::Terms { .. }
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
            // Its grace is none, unless it is said.
            triggers.extend(days.map(|_| OffboardingTrigger::TermsViolation));
            Operation::Terms { days, trigger: dice.maybe(&triggers), retain: dice.roll(2) == 0 }
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
