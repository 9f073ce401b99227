//! The fresh tenant that another one is compared with: made with the last spec and the last holds, and nothing else done
//! to it but what has to be.

use kube::api::DeleteParams;
use tenantry::api::{conditions::reason, tenant::DesiredState};

use crate::{
    left::{Left, Whose},
    model::{Model, PARTIES},
    random::{Run, Sequence},
};

/// How often all are compared before what differs counts.
const TRIES: usize = 20;

impl Run {
    /// Makes a tenant with the last spec and the last holds of a sequence.
    pub async fn fresh(&self, sequence: &Sequence) {
        let model = sequence.model.borrow().clone();
        let (fleet, name) = (&self.world.fleet, fresh_name(&sequence.name));
        let hold = |party: usize| format!("{}-{name}", PARTIES[party]);
        for (party, narrowing) in &model.recorded {
            fleet.hold(&hold(*party), &name, narrowing.json()).await;
        }
        let told = || format!("fresh for {}", sequence.told());
        let mut fresh = model.clone();
        (fresh.present, fresh.bound, fresh.paused, fresh.holds) = (true, true, false, model.recorded.clone());
        if model.state == DesiredState::Deprovisioned {
            fresh.state = DesiredState::Active;
        }
        self.world.apply(&name, fresh.spec()).await;
        self.settles(&name, &fresh, None, &told).await;
        if !model.leaves() {
            let expected = model.expected(self.now()).access;
            fleet.may(&name, expected).await;
            for party in model.recorded.keys() {
                fleet.hold_is(&hold(*party), reason::VERIFIED).await;
            }
            return;
        }
        if model.state == DesiredState::Deprovisioned {
            fresh.state = model.state;
            self.world.apply(&name, fresh.spec()).await;
            self.settles(&name, &fresh, None, &told).await;
        }
        if model.present && !model.paused {
            return self.lose(&model, &name).await;
        }
        if model.paused {
            self.world.apply(&name, model.spec()).await;
        }
        fleet.delete(&name).await;
        self.lose(&model, &name).await;
        // What was done to holds while there was no Tenant.
        for party in model.recorded.keys().filter(|party| !model.holds.contains_key(party)) {
            fleet.unhold(&hold(*party)).await;
        }
        for (party, narrowing) in &model.holds {
            fleet.hold(&hold(*party), &name, narrowing.json()).await;
        }
    }

    async fn lose(&self, model: &Model, name: &str) {
        if model.secret_lost {
            self.world.fleet.secrets.delete(&format!("{name}-db"), &DeleteParams::default()).await.unwrap();
        }
    }

    /// Every tenant is like its fresh one, and as it was computed without the operator.
    pub async fn are_alike(&self, sequences: &[Sequence]) {
        let whose = |name: String, model: &Model| Whose {
            name,
            leaves: model.leaves(),
            own_trial: model.trial_is_planned(),
        };
        let mut different: Vec<(&str, String)> =
            sequences.iter().map(|sequence| (sequence.name.as_str(), String::new())).collect();
        // A run that was done may still be written down: what differs is looked at again.
        for _ in 0..TRIES {
            let of = |name: &str| sequences.iter().find(|sequence| sequence.name == name);
            let open = different.iter().filter_map(|(name, _)| of(name));
            let pair = |sequence: &Sequence| {
                let model = sequence.model.borrow();
                [whose(sequence.name.clone(), &model), whose(fresh_name(&sequence.name), &model)]
            };
            let open: Vec<&Sequence> = open.collect();
            let all: Vec<Whose> = open.iter().flat_map(|sequence| pair(sequence)).collect();
            let left = self.world.left_of_many(&all).await;
            let unlike = left.chunks(2).zip(open).filter(|(pair, _)| !are_alike(&pair[0], &pair[1]));
            different = unlike.map(|(pair, sequence)| (sequence.name.as_str(), difference(pair))).collect();
            if different.is_empty() {
                break;
            }
        }
        for (name, difference) in different {
            self.watched.find(name, format!("it is not like its fresh one: {difference}"));
        }
    }
}

fn fresh_name(name: &str) -> String {
    name.replace("rand", "same")
}

/// Whether the first is like the second. A hold may have outlived its object: then the fresh one alone has one.
fn are_alike(one: &Left, fresh: &Left) -> bool {
    one.iter().all(|(place, left)| match (left.as_array(), fresh[place].as_array()) {
        (Some(holds), Some(of_fresh)) if *place == "holds" => {
            holds.iter().all(|hold| of_fresh.contains(hold))
        }
        _ => *left == fresh[place],
    })
}

fn difference(pair: &[Left]) -> String {
    let unlike = pair[0].iter().filter(|(place, left)| **left != pair[1][*place]);
    let told = unlike.map(|(place, left)| format!("{place}\n   {left}\n   fresh: {}", pair[1][place]));
    told.collect::<Vec<_>>().join("\n")
}
