//! The fresh tenant that another one is compared with: created with the last spec and the last holds, and changed no
//! more than necessary.

use std::time::{Duration, Instant};

use kube::api::DeleteParams;
use tenantry::api::tenant::DesiredState;
use tenantry_test_support::PATIENCE;

use crate::{
    model::{Model, PARTIES},
    random::{Run, Sequence},
    snapshot::{Snapshot, Subject, snapshots},
};

impl Run {
    /// Creates a tenant with the last spec and the last holds of a sequence.
    pub async fn fresh(&self, sequence: &Sequence) {
        let model = sequence.model.borrow().clone();
        let (fleet, name) = (&self.world.fleet, fresh_name(&sequence.name));
        let hold = |party: usize| format!("{}-{name}", PARTIES[party]);
        for (party, narrowing) in &model.recorded {
            fleet.apply_hold(&hold(*party), &name, narrowing.json()).await;
        }
        let description = || format!("fresh for {}", sequence.description());
        let mut fresh = model.clone();
        (fresh.present, fresh.bound, fresh.paused, fresh.holds) = (true, true, false, model.recorded.clone());
        if model.state == DesiredState::Deprovisioned {
            fresh.state = DesiredState::Active;
        }
        self.world.apply(&name, fresh.spec()).await;
        self.settles(&name, &fresh, None, &description).await;
        if !model.is_deprovisioned() {
            let expected = model.expected(self.now()).access;
            fleet.access(&name, expected).await;
            for party in model.recorded.keys() {
                fleet.hold_reason(&hold(*party), "Verified").await;
            }
            return;
        }
        if model.state == DesiredState::Deprovisioned {
            fresh.state = model.state;
            self.world.apply(&name, fresh.spec()).await;
            self.settles(&name, &fresh, None, &description).await;
        }
        if model.present && !model.paused {
            return self.lose(&model, &name).await;
        }
        if model.paused {
            self.world.apply(&name, model.spec()).await;
        }
        fleet.delete(&name).await;
        self.lose(&model, &name).await;
        // Holds that changed while no Tenant existed.
        for party in model.recorded.keys().filter(|party| !model.holds.contains_key(party)) {
            fleet.delete_hold(&hold(*party)).await;
        }
        for (party, narrowing) in &model.holds {
            fleet.apply_hold(&hold(*party), &name, narrowing.json()).await;
        }
    }

    async fn lose(&self, model: &Model, name: &str) {
        if model.secret_lost {
            self.world.fleet.secrets.delete(&format!("{name}-db"), &DeleteParams::default()).await.unwrap();
        }
    }

    /// Every tenant equals its fresh one.
    pub async fn are_alike(&self, sequences: &[Sequence]) {
        let subject = |name: String, model: &Model| Subject {
            name,
            deprovisioned: model.is_deprovisioned(),
            own_trial: model.trial_is_planned(),
        };
        let mut different: Vec<(&str, String)> =
            sequences.iter().map(|sequence| (sequence.name.as_str(), String::new())).collect();
        // A finished workflow may still be recorded: differences are checked again.
        let begun = Instant::now();
        let mut changes = self.watched.changes.subscribe();
        loop {
            let of = |name: &str| sequences.iter().find(|sequence| sequence.name == name);
            let open = different.iter().filter_map(|(name, _)| of(name));
            let pair = |sequence: &Sequence| {
                let model = sequence.model.borrow();
                [subject(sequence.name.clone(), &model), subject(fresh_name(&sequence.name), &model)]
            };
            let open: Vec<&Sequence> = open.collect();
            let all: Vec<Subject> = open.iter().flat_map(|sequence| pair(sequence)).collect();
            let snapshot = snapshots(&self.world, &all).await;
            let unlike = snapshot.chunks(2).zip(open).filter(|(pair, _)| !are_alike(&pair[0], &pair[1]));
            different = unlike.map(|(pair, sequence)| (sequence.name.as_str(), difference(pair))).collect();
            if different.is_empty() || begun.elapsed() > PATIENCE {
                break;
            }
            let _ = tokio::time::timeout(Duration::from_millis(250), changes.changed()).await;
        }
        for (name, difference) in different {
            self.watched.find(name, format!("it is not like its fresh one: {difference}"));
        }
    }
}

fn fresh_name(name: &str) -> String {
    name.replace("rand", "same")
}

/// Whether the first equals the second. A recorded hold may have no object: then only the fresh one has an object.
fn are_alike(one: &Snapshot, fresh: &Snapshot) -> bool {
    one.iter().all(|(place, snapshot)| match (snapshot.as_array(), fresh[place].as_array()) {
        (Some(holds), Some(of_fresh)) if *place == "holds" => {
            holds.iter().all(|hold| of_fresh.contains(hold))
        }
        _ => *snapshot == fresh[place],
    })
}

fn difference(pair: &[Snapshot]) -> String {
    let unlike = pair[0].iter().filter(|(place, snapshot)| **snapshot != pair[1][*place]);
    let lines =
        unlike.map(|(place, snapshot)| format!("{place}\n   {snapshot}\n   fresh: {}", pair[1][place]));
    lines.collect::<Vec<_>>().join("\n")
}
