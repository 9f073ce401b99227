//! Random sequences of operations, on a hundred tenants at once under one operator, subject clock jumps and which is
//! stopped and killed meanwhile. Each tenant ends like a fresh one with the last spec and the last holds, and no
//! invariant is ever violated (see `invariants`).
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
    conditions::{READY, find_condition},
    tenant_status::Access,
};
use tenantry_test_support::{PATIENCE, World};
use tokio::sync::watch;

use crate::{
    invariants::{Watched, time},
    model::{Model, PARTIES, PLANS},
    sequence::{Dice, Drift, Operation, Restart, Turn, Weather, sequence, weather},
    snapshot::{Subject, snapshots},
};

/// How many sequences a run in the gate has, and one of all tests.
const FEW: u64 = 40;
const MANY: u64 = 100;
/// The seed of every run.
const SEED: u64 = 20_261_121;
/// How many tenants are changed at once.
const AT_ONCE: usize = 16;

/// One tenant, and its operations.
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

    /// A description with which it can be run again.
    pub fn description(&self) -> String {
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

/// The world, the watch of its invariants, and how far its clock is ahead.
pub struct Run {
    pub world: World,
    pub watched: Watched,
    ahead: AtomicI64,
    seed: u64,
    /// How many operations were begun in this round.
    begun: watch::Sender<usize>,
}

#[tokio::test]
async fn any_sequence_ends_like_fresh_tenant_with_last_spec_and_holds() {
    end_alike("random", FEW).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn any_of_many_sequences_ends_like_fresh_tenant_with_last_spec_and_holds() {
    end_alike("random-many", MANY).await;
}

async fn end_alike(name: &'static str, many: u64) {
    let asked = std::env::var("TENANTRY_RANDOM").unwrap_or_default();
    let (seed, alone) = match asked.split_once('/') {
        Some((seed, number)) => (seed.parse().unwrap(), Some(number.parse().unwrap())),
        None => (asked.parse().unwrap_or(SEED), None),
    };
    let numbers: Vec<u64> = alone.map_or((0..many).collect(), |number| vec![number]);
    let sequences: Vec<_> = numbers.into_iter().map(|number| Sequence::new(seed, number)).collect();
    let begun = Instant::now();
    let run = Run {
        world: World::new(name).await,
        watched: Watched::new(),
        ahead: AtomicI64::new(0),
        seed,
        begun: watch::Sender::new(0),
    };
    let plans = json!({"apiVersion": "v1", "kind": "List", "items": PLANS[1..].iter().map(|plan| plan.object()).collect::<Vec<_>>()});
    tenantry_test_support::CONTROL_PLANE.kubectl().apply(&plans.to_string()).await.unwrap();
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
        let log = |what: &str| println!("{:6.1} s: {what}", started.elapsed().as_secs_f64());
        let each = |round: usize| {
            stream::iter(sequences).for_each_concurrent(AT_ONCE, move |sequence| self.turn(sequence, round))
        };
        // Some are held before they exist, and some are changed before they are activated.
        stream::iter(sequences).for_each_concurrent(AT_ONCE, |sequence| self.begin(sequence)).await;
        for (round, weather) in weather(self.seed).into_iter().enumerate() {
            self.begun.send_replace(0);
            tokio::join!(each(round), self.weather(weather, sequences.len()));
            if round == 0 {
                stream::iter(sequences)
                    .for_each_concurrent(AT_ONCE, |sequence| self.activated(sequence))
                    .await;
            }
            log(&format!("round {round}: {weather:?}"));
        }
        join_all(sequences.iter().map(|sequence| self.settled(sequence))).await;
        log("settled");
        stream::iter(sequences).for_each_concurrent(AT_ONCE, |sequence| self.fresh(sequence)).await;
        log("fresh ones");
        self.are_alike(sequences).await;
        log("compared");
        self.passwords(sequences).await;
        self.watched.lives(&self.world).await;
        self.nothing_found(sequences);
        println!("checked {} times", self.watched.looks.load(Ordering::SeqCst));
    }

    fn nothing_found(&self, sequences: &[Sequence]) {
        let found = self.watched.found.lock().unwrap();
        let subject =
            sequences.iter().filter(|sequence| found.iter().any(|found| found.contains(&sequence.name)));
        let description: Vec<_> = subject.map(Sequence::description).collect();
        assert!(
            found.is_empty(),
            "{}\n{}",
            found.iter().cloned().collect::<Vec<_>>().join("\n"),
            description.join("\n")
        );
    }

    /// Time passes, and the operator is restarted, in the middle of a round.
    async fn weather(&self, weather: Weather, of: usize) {
        let after = weather.after * of / 100;
        self.begun.subscribe().wait_for(|begun| *begun >= after).await.unwrap();
        let ahead = self.ahead.fetch_add(weather.jump * 3600, Ordering::SeqCst) + weather.jump * 3600;
        self.world.set_clock_ahead(ahead);
        let operator = self.world.installation.operator();
        match weather.restart {
            None => return,
            Some(Restart::Ended) => operator.stop().await.unwrap(),
            Some(Restart::Killed) => {
                operator.kill().await.unwrap();
                // The Lease of the killed operator is not waited for: that is tested in leaders.rs.
                self.world.delete_lease().await;
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

    async fn activated(&self, sequence: &Sequence) {
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
        let is_active = !sequence.model.borrow().is_deprovisioned();
        sequence.model.borrow_mut().apply(&turn.operation, self.now());
        let secret = format!("{name}-db");
        match &turn.operation {
            Operation::Hold(party, narrowing) => {
                drop(fleet.apply_hold(&format!("{}-{name}", PARTIES[*party]), name, narrowing.json()).await);
            }
            Operation::Unhold(party) => fleet.delete_hold(&format!("{}-{name}", PARTIES[*party])).await,
            Operation::Delete => fleet.delete(name).await,
            Operation::LoseSecret => {
                fleet.secrets.delete(&secret, &DeleteParams::default()).await.unwrap();
                if is_active {
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

    /// Waits until the registry has the holds: none is lost with the Tenant.
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
        self.world.until(&format!("the holds are {wanted:?}: {}", sequence.description()), recorded).await;
    }

    /// Waits until what was applied is in force, or paused.
    async fn settled(&self, sequence: &Sequence) {
        let applied = sequence.applied.borrow().clone();
        let model = sequence.model.borrow().clone();
        self.settles(&sequence.name, &model, applied, &|| sequence.description()).await;
    }

    /// The same, of any tenant.
    pub async fn settles(
        &self,
        name: &str,
        model: &Model,
        applied: Option<(Option<String>, Option<i64>)>,
        description: &dyn Fn() -> String,
    ) {
        let waiting = async {
            let mut changes = self.watched.changes.subscribe();
            while !self.is_settled(name, model, applied.as_ref()) {
                // Time alone may change the expected state.
                let _ = tokio::time::timeout(Duration::from_millis(250), changes.changed()).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            let subject = [Subject {
                name: name.to_owned(),
                deprovisioned: model.is_deprovisioned(),
                own_trial: false,
            }];
            panic!(
                "{name} does not settle: {:?}\n{:#?}; found: {:#?}\n{}\n{}",
                model.expected(self.now()),
                snapshots(&self.world, &subject).await,
                self.watched.found.lock().unwrap(),
                description(),
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
            return current && (ready.status == "True" || ready.reason == "Paused");
        }
        let expected = model.expected(self.now());
        let suffix = format!("-{name}");
        let holds: Vec<_> = status
            .holds
            .iter()
            .filter_map(|hold| Some((hold.name.strip_suffix(&suffix)?, hold.mode)))
            .collect();
        let plan = model.is_deprovisioned() || status.plan.as_deref() == Some(expected.plan);
        current
            && ready.status == "True"
            && (status.access, status.state) == (Some(expected.access), Some(expected.state))
            && holds == expected.holds
            && plan
            && self.watched.is_repaired(name)
    }

    /// A password changed only where its Secret was changed.
    async fn passwords(&self, sequences: &[Sequence]) {
        for sequence in sequences {
            let (model, fleet) = (sequence.model.borrow().clone(), &self.world.fleet);
            let digests = self.watched.digests.lock().unwrap()[&sequence.name].len();
            let secret = format!("{}-db", sequence.name);
            let same = model.touched > 0
                || Some(fleet.secret(&secret, "password").await) == *sequence.password.borrow();
            if digests > 1 + model.touched || !same {
                let what =
                    format!("it had {digests} passwords, and its Secret was changed {} times", model.touched);
                self.watched.find(&sequence.name, what);
            }
        }
    }
}

#[tokio::test]
async fn hold_placed_without_operator_is_in_force_after_start() {
    let world = World::new("unwatched").await;
    let names: Vec<String> = (0..10).map(|number| format!("unwatched-{number}")).collect();
    join_all(names.iter().map(|name| world.apply(name, json!({})))).await;
    join_all(names.iter().map(|name| world.fleet.ready(name))).await;
    world.installation.operator().stop().await.unwrap();
    for name in &names {
        world.fleet.apply_hold(&format!("legal-{name}"), name, json!({})).await;
    }
    world.installation.operator().start().await.unwrap();
    join_all(names.iter().map(|name| world.fleet.access(name, Access::Blocked))).await;
}

#[tokio::test]
async fn hold_of_restored_paused_tenant_can_be_lifted() {
    let world = World::new("waits").await;
    world.apply("waiting", json!({})).await;
    world.fleet.ready("waiting").await;
    world.fleet.apply_hold("legal", "waiting", json!({})).await;
    world.fleet.access("waiting", Access::Blocked).await;
    world.fleet.delete("waiting").await;
    world.apply("waiting", json!({"paused": true})).await;
    world.fleet.reason("waiting", READY, "Paused").await;
    world.fleet.delete_hold("legal").await;
    world.apply("waiting", json!({})).await;
    world.fleet.access("waiting", Access::ReadWrite).await;
}
