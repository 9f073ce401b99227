//! Sequences of operations at random, a hundred tenants at a time under one operator, whose clock jumps and which is
//! ended and killed meanwhile. Each tenant ends as a fresh one with the last spec and the last holds, and nothing that
//! must always be so is ever otherwise (see `invariants`).
//!
//! The same seed leads to the same sequences. `TENANTRY_RANDOM=<seed>` draws others than those of every run, and
//! `TENANTRY_RANDOM=<seed>/<number>` runs one of them alone, in the same weather; a failure says which to use.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all, stream};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use sqlx::Executor;
use tenantry::api::{
    conditions::{READY, find_condition, reason},
    tenant_status::Access,
};
use tokio::sync::watch;

use crate::{
    invariants::{Watched, time},
    left::Whose,
    model::{Model, PARTIES, PLANS},
    sequence::{Dice, Drift, Operation, Restart, Turn, Weather, sequence, weather},
    world::{PATIENCE, World},
};

/// How many sequences a run has.
const SEQUENCES: u64 = 100;
/// The seed of every run.
const SEED: u64 = 20_261_121;
/// How many tenants are worked on at once.
const AT_ONCE: usize = 16;

/// One tenant, and what is done to it.
pub struct Sequence {
    seed: u64,
    number: u64,
    pub name: String,
    turns: Vec<Option<Turn>>,
    pub model: RefCell<Model>,
    /// What was applied last: the object and its generation.
    applied: RefCell<Option<(Option<String>, Option<i64>)>>,
    /// The password of its Secret before anything was done.
    password: RefCell<Option<String>>,
}

impl Sequence {
    fn new(seed: u64, number: u64) -> Self {
        let mut dice = Dice(seed ^ (number + 1).wrapping_mul(0x2545_F491_4F6C_DD1D));
        let plan = dice.roll(PLANS.len() as u64) as usize;
        let turns = sequence(&mut dice, plan);
        let model = RefCell::new(Model::new(plan));
        let name = format!("rand-{number:03}");
        Self { seed, number, name, turns, model, applied: RefCell::default(), password: RefCell::default() }
    }

    /// What it is, for whoever wants to run it again.
    pub fn told(&self) -> String {
        let turns = self.turns.iter().enumerate().map(|(round, turn)| match turn {
            Some(Turn { operation, wait }) => {
                format!("{round}: {operation:?}{}", if *wait { ", and wait" } else { "" })
            }
            None => format!("{round}: -"),
        });
        let turns = turns.collect::<Vec<_>>().join("\n  ");
        format!(
            "TENANTRY_RANDOM={}/{} on {}\n  {turns}\n  => {:?}",
            self.seed,
            self.number,
            self.model.borrow().plan().name,
            self.model.borrow()
        )
    }
}

/// The world, what is seen of it, and how far its clock is ahead.
pub struct Run {
    pub world: World,
    pub watched: Watched,
    ahead: AtomicI64,
    seed: u64,
    /// How many operations were begun in this round.
    begun: watch::Sender<usize>,
}

#[tokio::test]
async fn any_sequence_ends_as_a_fresh_tenant_with_the_last_spec_and_the_last_holds() {
    let asked = std::env::var("TENANTRY_RANDOM").unwrap_or_default();
    let (seed, alone) = match asked.split_once('/') {
        Some((seed, number)) => (seed.parse().unwrap(), Some(number.parse().unwrap())),
        None => (asked.parse().unwrap_or(SEED), None),
    };
    let numbers: Vec<u64> = alone.map_or((0..SEQUENCES).collect(), |number| vec![number]);
    let sequences: Vec<_> = numbers.into_iter().map(|number| Sequence::new(seed, number)).collect();
    let begun = Instant::now();
    let run = Run {
        world: World::new("random").await,
        watched: Watched::new(),
        ahead: AtomicI64::new(0),
        seed,
        begun: watch::Sender::new(0),
    };
    let plans = json!({"apiVersion": "v1", "kind": "List", "items": PLANS[1..].iter().map(|plan| plan.object()).collect::<Vec<_>>()});
    crate::world::PLANE.kubectl().apply(&plans.to_string()).await.unwrap();
    tokio::select! {
        () = run.watched.run(&run.world) => unreachable!("watching does not end"),
        () = run.all(&sequences) => {}
    }
    println!("seed {seed}: {} sequences in {:.1} s", sequences.len(), begun.elapsed().as_secs_f64());
}

impl Run {
    /// The operator's time.
    pub fn now(&self) -> Timestamp {
        time(self.ahead.load(Ordering::SeqCst))
    }

    async fn all(&self, sequences: &[Sequence]) {
        let started = Instant::now();
        let told = |what: &str| println!("{:6.1} s: {what}", started.elapsed().as_secs_f64());
        let each = |round: usize| {
            stream::iter(sequences).for_each_concurrent(AT_ONCE, move |sequence| self.turn(sequence, round))
        };
        // Some are held before they are there, and some are changed before they are handed out.
        stream::iter(sequences).for_each_concurrent(AT_ONCE, |sequence| self.begin(sequence)).await;
        for (round, weather) in weather(self.seed).into_iter().enumerate() {
            self.begun.send_replace(0);
            tokio::join!(each(round), self.weather(weather, sequences.len()));
            if round == 0 {
                stream::iter(sequences)
                    .for_each_concurrent(AT_ONCE, |sequence| self.handed_out(sequence))
                    .await;
            }
            told(&format!("round {round}: {weather:?}"));
        }
        join_all(sequences.iter().map(|sequence| self.settled(sequence))).await;
        told("settled");
        stream::iter(sequences).for_each_concurrent(AT_ONCE, |sequence| self.fresh(sequence)).await;
        told("fresh ones");
        self.are_alike(sequences).await;
        told("compared");
        self.passwords(sequences).await;
        self.watched.lives(&self.world).await;
        self.nothing_found(sequences);
        println!("looked {} times", self.watched.looks.load(Ordering::SeqCst));
    }

    fn nothing_found(&self, sequences: &[Sequence]) {
        let found = self.watched.found.lock().unwrap();
        let whose =
            sequences.iter().filter(|sequence| found.iter().any(|found| found.contains(&sequence.name)));
        let told: Vec<_> = whose.map(Sequence::told).collect();
        assert!(
            found.is_empty(),
            "{}\n{}",
            found.iter().cloned().collect::<Vec<_>>().join("\n"),
            told.join("\n")
        );
    }

    /// Time passes, and the operator is started again, in the middle of a round.
    async fn weather(&self, weather: Weather, of: usize) {
        let after = weather.after * of / 100;
        self.begun.subscribe().wait_for(|begun| *begun >= after).await.unwrap();
        let ahead = self.ahead.fetch_add(weather.jump * 3600, Ordering::SeqCst) + weather.jump * 3600;
        self.world.ahead(ahead);
        let operator = self.world.installation.operator();
        match weather.restart {
            None => return,
            Some(Restart::Ended) => operator.stop().await.unwrap(),
            Some(Restart::Killed) => {
                operator.kill().await.unwrap();
                // Nobody waits for the Lease of one that was killed: that is another test's.
                self.world.free_the_lease().await;
            }
        }
        operator.start().await.unwrap();
    }

    async fn begin(&self, sequence: &Sequence) {
        if sequence.number.is_multiple_of(3)
            && matches!(sequence.turns[0], Some(Turn { operation: Operation::Hold(..), .. }))
        {
            return;
        }
        self.apply(sequence).await;
        if sequence.number.is_multiple_of(2) {
            self.settled(sequence).await;
        }
    }

    async fn handed_out(&self, sequence: &Sequence) {
        if sequence.applied.borrow().is_none() {
            self.apply(sequence).await;
        }
        self.settled(sequence).await;
        let password = self.world.fleet.secret(&format!("{}-db", sequence.name), "password").await;
        sequence.password.replace(Some(password));
    }

    async fn apply(&self, sequence: &Sequence) {
        let spec = sequence.model.borrow().spec();
        let applied = self.world.apply(&sequence.name, spec).await;
        sequence.applied.replace(Some((applied.metadata.uid, applied.metadata.generation)));
    }

    /// A tenant's operation of a round.
    async fn turn(&self, sequence: &Sequence, round: usize) {
        self.begun.send_modify(|begun| *begun += 1);
        let Some(turn) = &sequence.turns[round] else { return };
        let (fleet, name) = (&self.world.fleet, sequence.name.as_str());
        match turn.operation {
            Operation::Delete => self.recorded(sequence).await,
            Operation::LoseSecret | Operation::SpoilSecret | Operation::ByHand(_) | Operation::Connect => {
                self.settled(sequence).await;
            }
            _ => {}
        }
        let lives = !sequence.model.borrow().leaves();
        sequence.model.borrow_mut().apply(&turn.operation, self.now());
        let secret = format!("{name}-db");
        match &turn.operation {
            Operation::Hold(party, narrowing) => {
                drop(fleet.hold(&format!("{}-{name}", PARTIES[*party]), name, narrowing.json()).await);
            }
            Operation::Unhold(party) => fleet.unhold(&format!("{}-{name}", PARTIES[*party])).await,
            Operation::Delete => fleet.delete(name).await,
            Operation::LoseSecret => {
                fleet.secrets.delete(&secret, &DeleteParams::default()).await.unwrap();
                if lives {
                    self.world
                        .until(&format!("{secret} is there again"), async || {
                            fleet.secrets.get_opt(&secret).await.unwrap().is_some()
                        })
                        .await;
                }
            }
            Operation::SpoilSecret => {
                let spoiled = json!({"stringData": {"password": "spoiled"}});
                fleet.secrets.patch(&secret, &PatchParams::default(), &Patch::Merge(spoiled)).await.unwrap();
                self.world
                    .until(&format!("{secret} is as it was"), async || {
                        fleet.secret(&secret, "password").await != "spoiled"
                    })
                    .await;
            }
            Operation::ByHand(drift) => self.watched.by_hand(name, self.by_hand(name, *drift)).await,
            Operation::Connect => self.watched.connect(&self.world, name).await,
            _ => self.apply(sequence).await,
        }
        let by_hand = matches!(turn.operation, Operation::ByHand(_));
        if turn.wait && !by_hand && sequence.applied.borrow().is_some() {
            self.settled(sequence).await;
        }
    }

    async fn by_hand(&self, name: &str, drift: Drift) {
        let database = format!("tenant_{}", name.replace('-', "_"));
        let statement = match drift {
            Drift::Widened => format!("GRANT tenantry_rw TO {database}_app"),
            Drift::LoginTaken => format!("ALTER ROLE {database}_app NOLOGIN"),
            Drift::ConnectTaken => format!("REVOKE CONNECT ON DATABASE {database} FROM {database}_app"),
            Drift::OpenedToAll => format!("GRANT CONNECT ON DATABASE {database} TO PUBLIC"),
        };
        let statement = sqlx::raw_sql(sqlx::AssertSqlSafe(statement));
        self.world.superuser("postgres").await.execute(statement).await.unwrap();
    }

    /// The registry knows of the holds that are there: none is lost with the Tenant.
    async fn recorded(&self, sequence: &Sequence) {
        let model = sequence.model.borrow().clone();
        let wanted: Vec<_> = model
            .recorded
            .iter()
            .map(|(party, hold)| {
                let mut hold = hold.json();
                hold["name"] = json!(format!("{}-{}", PARTIES[*party], sequence.name));
                hold
            })
            .collect();
        let query = "SELECT holds @> $2 AND jsonb_array_length(holds) = jsonb_array_length($2) FROM tenants WHERE slug = $1";
        let mut session = self.world.superuser("tenantry_system").await;
        let recorded = async || -> bool {
            let found = sqlx::query_scalar(query).bind(&sequence.name).bind(sqlx::types::Json(&wanted));
            found.fetch_one(&mut session).await.unwrap()
        };
        self.world.until(&format!("the holds are {wanted:?}: {}", sequence.told()), recorded).await;
    }

    /// Waits until what was asked for is in force, or rests.
    async fn settled(&self, sequence: &Sequence) {
        let applied = sequence.applied.borrow().clone();
        let model = sequence.model.borrow().clone();
        self.settles(&sequence.name, &model, applied, &|| sequence.told()).await;
    }

    /// Waits until that is so of any tenant.
    pub async fn settles(
        &self,
        name: &str,
        model: &Model,
        applied: Option<(Option<String>, Option<i64>)>,
        told: &dyn Fn() -> String,
    ) {
        let waiting = async {
            let mut changes = self.watched.changes.subscribe();
            while !self.is_settled(name, model, applied.as_ref()) {
                // Time alone may change what is waited for.
                let _ = tokio::time::timeout(Duration::from_millis(250), changes.changed()).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            let whose = [Whose { name: name.to_owned(), leaves: model.leaves(), own_trial: false }];
            panic!(
                "{name} does not settle: {:?}\n{:#?}; found: {:#?}\n{}\n{}",
                model.expected(self.now()),
                self.world.left_of_many(&whose).await,
                self.watched.found.lock().unwrap(),
                told(),
                self.world.fleet.operator_log()
            );
        }
    }

    fn is_settled(&self, name: &str, model: &Model, applied: Option<&(Option<String>, Option<i64>)>) -> bool {
        let tenants = self.watched.tenants.lock().unwrap();
        let (Some(tenant), true) = (tenants.get(name), model.present) else {
            return !model.present && !tenants.contains_key(name);
        };
        let known = applied.is_none_or(|(uid, generation)| {
            *uid == tenant.metadata.uid && *generation <= tenant.metadata.generation
        });
        let Some(status) = tenant.status.as_ref().filter(|_| known) else { return false };
        let Some(ready) = find_condition(&status.conditions, READY) else { return false };
        let current = status.observed_generation == tenant.metadata.generation;
        if model.paused {
            return current && (ready.status == "True" || ready.reason == reason::PAUSED);
        }
        let expected = model.expected(self.now());
        let suffix = format!("-{name}");
        let holds: Vec<_> = status
            .holds
            .iter()
            .filter_map(|hold| Some((hold.name.strip_suffix(&suffix)?, hold.mode)))
            .collect();
        let plan = model.leaves() || status.plan.as_deref() == Some(expected.plan);
        current
            && ready.status == "True"
            && (status.access, status.state) == (Some(expected.access), Some(expected.state))
            && holds == expected.holds
            && plan
            && self.watched.is_put_right(name)
    }

    /// A password is another only where its Secret was touched.
    async fn passwords(&self, sequences: &[Sequence]) {
        for sequence in sequences {
            let (model, fleet) = (sequence.model.borrow().clone(), &self.world.fleet);
            let digests = self.watched.digests.lock().unwrap()[&sequence.name].len();
            let secret = format!("{}-db", sequence.name);
            let same = model.touched > 0
                || Some(fleet.secret(&secret, "password").await) == *sequence.password.borrow();
            if digests > 1 + model.touched || !same {
                let what =
                    format!("it had {digests} passwords, and its Secret was touched {} times", model.touched);
                self.watched.find(&sequence.name, what);
            }
        }
    }
}

#[tokio::test]
async fn a_hold_that_is_put_while_nobody_looks_is_in_force_after_the_start() {
    let world = World::new("unwatched").await;
    let names: Vec<String> = (0..10).map(|number| format!("unwatched-{number}")).collect();
    join_all(names.iter().map(|name| world.apply(name, json!({})))).await;
    join_all(names.iter().map(|name| world.fleet.ready(name))).await;
    world.installation.operator().stop().await.unwrap();
    for name in &names {
        world.fleet.hold(&format!("legal-{name}"), name, json!({})).await;
    }
    world.installation.operator().start().await.unwrap();
    join_all(names.iter().map(|name| world.fleet.may(name, Access::Blocked))).await;
}

#[tokio::test]
async fn a_hold_is_lifted_of_a_tenant_that_came_back_and_waits() {
    let world = World::new("waits").await;
    world.apply("waiting", json!({})).await;
    world.fleet.ready("waiting").await;
    world.fleet.hold("legal", "waiting", json!({})).await;
    world.fleet.may("waiting", Access::Blocked).await;
    world.fleet.delete("waiting").await;
    world.apply("waiting", json!({"paused": true})).await;
    world.fleet.reason("waiting", READY, reason::PAUSED).await;
    world.fleet.unhold("legal").await;
    world.apply("waiting", json!({})).await;
    world.fleet.may("waiting", Access::ReadWrite).await;
}
