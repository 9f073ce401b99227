//! A model of a tenant: what was applied, and the state that follows. It shares no code with the operator's evaluation, so that
//! both can be compared.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};
use tenantry::api::{
    tenant::{DesiredState, OffboardingTrigger, SuspensionMode, SuspensionTrigger},
    tenant_status::{Access, HoldMode, TenantState},
};

use crate::sequence::{Operation, When};

/// The parties that place holds.
pub const PARTIES: [&str; 3] = ["billing", "legal", "security"];

/// The mode and the trigger of a suspension or a hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Narrowing {
    pub mode: Option<SuspensionMode>,
    pub trigger: Option<SuspensionTrigger>,
}

/// The plans of the tenants, with the fields that matter here.
pub const PLANS: [Plan; 4] = [
    Plan { name: "starter", lenient: &[], trial_end: SuspensionMode::Blocked, next: None, in_trial: false },
    Plan {
        name: "random-lenient",
        lenient: &[SuspensionTrigger::PaymentFailure, SuspensionTrigger::CustomerRequest],
        trial_end: SuspensionMode::ReadOnly,
        next: None,
        in_trial: false,
    },
    Plan {
        name: "random-falls",
        lenient: &[SuspensionTrigger::Inactivity],
        trial_end: SuspensionMode::Blocked,
        next: Some("free"),
        in_trial: false,
    },
    Plan {
        name: "random-trial",
        lenient: &[],
        trial_end: SuspensionMode::ReadOnly,
        next: None,
        in_trial: true,
    },
];

/// A plan.
#[derive(Debug)]
pub struct Plan {
    pub name: &'static str,
    /// The triggers whose mode is ReadOnly.
    lenient: &'static [SuspensionTrigger],
    trial_end: SuspensionMode,
    /// The plan after a trial.
    next: Option<&'static str>,
    /// It has a trial, longer than the test's time.
    in_trial: bool,
}

impl Plan {
    /// The `TenantPlan`.
    pub fn object(&self) -> Value {
        let modes: Map<String, Value> =
            self.lenient.iter().map(|trigger| (trigger.as_str().to_owned(), json!("ReadOnly"))).collect();
        let end = match self.next {
            Some(next) => json!({"action": "ChangePlan", "plan": next}),
            None => json!({"action": "Suspend", "mode": self.trial_end}),
        };
        let days = if self.in_trial { 400 } else { 0 };
        json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan", "metadata": {"name": self.name},
            "spec": {"limits": {"users": 5}, "suspensionMode": modes, "trialDays": days, "trialEnd": end}})
    }

    fn mode(&self, narrowing: Narrowing) -> SuspensionMode {
        let lenient = narrowing.trigger.is_some_and(|trigger| self.lenient.contains(&trigger));
        narrowing.mode.unwrap_or(if lenient { SuspensionMode::ReadOnly } else { SuspensionMode::Blocked })
    }
}

/// The expected state of a tenant.
#[derive(Debug, PartialEq)]
pub struct Expected {
    pub access: Access,
    pub state: TenantState,
    pub plan: &'static str,
    /// By party.
    pub holds: Vec<(&'static str, HoldMode)>,
}

/// What was applied to a tenant.
#[derive(Clone, Debug)]
pub struct Model {
    pub plan: usize,
    pub state: DesiredState,
    narrowing: Narrowing,
    grace: (Option<i64>, Option<OffboardingTrigger>),
    retain: bool,
    trial: Option<Timestamp>,
    validity: (Option<Timestamp>, Option<Timestamp>),
    declared: u64,
    pub paused: bool,
    /// Whether its object exists.
    pub present: bool,
    /// Whether the registry row is bound to this object: one applied again while paused is bound later.
    pub bound: bool,
    /// The existing TenantHolds.
    pub holds: BTreeMap<usize, Narrowing>,
    /// The holds that the registry has, or is about to have.
    pub recorded: BTreeMap<usize, Narrowing>,
    /// How often its Secret was changed.
    pub touched: usize,
    /// Its Secret was deleted during deprovisioning: it is recreated when the tenant is restored.
    pub secret_lost: bool,
}

impl Model {
    /// A new tenant.
    pub fn new(plan: usize) -> Self {
        Self {
            plan,
            state: DesiredState::Active,
            narrowing: Narrowing { mode: None, trigger: None },
            grace: (None, None),
            retain: false,
            trial: None,
            validity: (None, None),
            declared: 0,
            paused: false,
            present: true,
            bound: true,
            holds: BTreeMap::new(),
            recorded: BTreeMap::new(),
            touched: 0,
            secret_lost: false,
        }
    }

    pub fn plan(&self) -> &'static Plan {
        &PLANS[self.plan]
    }

    /// Whether the plan determines the end of its trial, from its activation on.
    pub fn trial_is_planned(&self) -> bool {
        self.plan().in_trial && self.trial.is_none()
    }

    /// Whether it is being deprovisioned, or its object is deleted.
    pub fn is_deprovisioned(&self) -> bool {
        !self.present || self.state == DesiredState::Deprovisioned
    }

    /// Its spec.
    pub fn spec(&self) -> Value {
        let mut spec = json!({
            "plan": self.plan().name, "state": self.state, "stateReason": "drawn", "displayName": format!("Number {}", self.declared),
            "deletionPolicy": if self.retain { "Retain" } else { "Purge" }, "paused": self.paused,
        });
        let mut put = |field: &str, value: Value| {
            let some = value.as_object().is_none_or(|value| !value.is_empty());
            spec[field] = if some { value } else { Value::Null };
        };
        put("suspension", self.narrowing.json());
        let days = self.grace.0.map(|days| days * 24 * 3600);
        put("offboarding", object([("gracePeriodSeconds", json!(days)), ("trigger", json!(self.grace.1))]));
        put("trial", object([("endsAt", json!(self.trial))]));
        put(
            "validity",
            object([("notBefore", json!(self.validity.0)), ("notAfter", json!(self.validity.1))]),
        );
        let (number, bits) = (self.declared / 8, self.declared % 8);
        if number > 0 {
            put("settings", json!({"number": number, format!("key-{}", number % 3): "x"}));
        }
        let admins =
            (0..3).filter(|n| bits & (1 << n) != 0).map(|n| json!({"email": format!("a{n}@acme.example")}));
        put("admins", admins.collect());
        spec
    }

    /// Applies an operation. Any change of the spec recreates a deleted object.
    pub fn apply(&mut self, operation: &Operation, now: Timestamp) {
        let at = |when: &Option<When>| when.map(|when| when.from(now));
        match operation {
            Operation::State(state, narrowing) => (self.state, self.narrowing) = (*state, *narrowing),
            Operation::PurgeTerms { days, trigger, retain } => {
                (self.grace, self.retain) = ((*days, *trigger), *retain)
            }
            Operation::Trial(ends) => self.trial = at(ends),
            Operation::Validity(from, to) => self.validity = (at(from), at(to)),
            Operation::Declare(number) => self.declared = *number,
            Operation::Pause(paused) => self.paused = *paused,
            Operation::Apply => {}
            Operation::Hold(party, narrowing) => {
                self.holds.insert(*party, *narrowing);
                if self.present && self.bound {
                    self.recorded.insert(*party, *narrowing);
                }
                return;
            }
            Operation::Unhold(party) => {
                self.holds.remove(party);
                if self.present {
                    self.recorded.remove(party);
                }
                return;
            }
            Operation::Delete => {
                (self.present, self.bound) = (false, false);
                return;
            }
            Operation::LoseSecret | Operation::SpoilSecret => {
                self.touched += 1;
                self.secret_lost |= self.is_deprovisioned();
                return;
            }
            Operation::ByHand(_) | Operation::Connect => return,
        }
        self.present = true;
        if !self.paused && !self.bound {
            self.bound = true;
        }
        if self.bound {
            self.recorded.extend(&self.holds);
        }
        if !self.paused && !self.is_deprovisioned() {
            self.secret_lost = false;
        }
    }

    /// The expected state, once settled: the strictest of all restrictions.
    pub fn expected(&self, now: Timestamp) -> Expected {
        let plan = self.plan();
        let holds: Vec<_> =
            self.recorded.iter().map(|(party, hold)| (PARTIES[*party], plan.mode(*hold))).collect();
        let over = self.trial.is_some_and(|ends| ends <= now);
        let open =
            self.validity.0.is_none_or(|from| from <= now) && self.validity.1.is_none_or(|to| now < to);
        let modes: Vec<SuspensionMode> = [
            (self.state == DesiredState::Suspended, plan.mode(self.narrowing)),
            (over && plan.next.is_none(), plan.trial_end),
            (!open, SuspensionMode::Blocked),
        ]
        .into_iter()
        .filter_map(|(narrows, mode)| narrows.then_some(mode))
        .chain(holds.iter().map(|(_, mode)| *mode))
        .collect();
        let in_trial = if self.trial.is_some() { !over } else { plan.in_trial };
        let (access, state) = match (modes.contains(&SuspensionMode::Blocked), modes.is_empty()) {
            _ if self.is_deprovisioned() => (Access::Blocked, TenantState::Deprovisioning),
            (true, _) => (Access::Blocked, TenantState::Suspended),
            (false, false) => (Access::ReadOnly, TenantState::Suspended),
            (false, true) if in_trial => (Access::ReadWrite, TenantState::Trial),
            (false, true) => (Access::ReadWrite, TenantState::Active),
        };
        let shown = |mode| match mode {
            SuspensionMode::Blocked => HoldMode::Blocked,
            SuspensionMode::ReadOnly => HoldMode::ReadOnly,
        };
        let holds = holds.into_iter().map(|(party, mode)| (party, shown(mode))).collect();
        Expected { access, state, plan: plan.next.filter(|_| over).unwrap_or(plan.name), holds }
    }
}

impl Narrowing {
    /// As `spec.suspension`, or as part of a TenantHold.
    pub fn json(self) -> Value {
        object([("mode", json!(self.mode)), ("trigger", json!(self.trigger))])
    }
}

/// An object without nulls.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
