//! Holds: one party's reason each why a tenant may not have full access, as the registry stores them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{
    tenant::{SuspensionTrigger, Tenant},
    tenant_hold::TenantHoldMode,
    tenant_status::{HoldMode, HoldStatus},
};

/// The operator's own hold on an unused tenant.
pub const INACTIVITY: &str = "inactivity";

/// The operator's own hold on a tenant that has reached its storage limit.
pub const QUOTA: &str = "quota";

/// How many legal holds a message names.
const NAMED: usize = 5;

/// Who placed a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by")]
pub enum Party {
    /// A `TenantHold` of the same name. The hold stays in force when that object is lost.
    TenantHold,
    /// The operator, because the tenant's storage is full: ShrinkOnly, until there is free space again.
    Quota {
        /// The limit that was reached, in bytes.
        maximum: i64,
    },
    /// The operator, because the tenant is not used. Another plan than this one, or another request to resume, lifts
    /// it.
    Tenantry {
        /// The tenant's plan when the hold was placed.
        plan: String,
        /// The annotation that requests to resume, as it was then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<String>,
    },
}

/// Who placed a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldActor {
    /// As it was recorded.
    pub by: String,
    /// The time of the hold that it is about.
    pub since: Timestamp,
}

/// A legal hold: no purge begins while it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegalHold {
    /// The uid of the `TenantHold` that was applied last.
    pub object: String,
    /// That object was applied when the tenant had no object any more: deleting it lifts the hold from the tombstone. An
    /// older one may be deleted together with its Tenant, which is no request to delete the data.
    pub applied_to_tombstone: bool,
}

impl LegalHold {
    /// As an object asks for it. `recorded` is that of the same name.
    pub fn of(object: String, recorded: Option<&Self>, is_tombstone: bool) -> Self {
        let known = recorded.filter(|recorded| recorded.object == object && is_tombstone).cloned();
        known.unwrap_or(Self { object, applied_to_tombstone: is_tombstone })
    }
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The name, the key among a tenant's holds.
    pub name: String,
    /// The access that it allows; none where the plan decides by the trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TenantHoldMode>,
    /// It is a legal hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve: Option<LegalHold>,
    /// The cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<SuspensionTrigger>,
    /// The reason, as text.
    pub reason: String,
    /// When it was recorded first.
    pub since: Timestamp,
    /// Who placed it.
    #[serde(flatten)]
    pub party: Party,
}

impl Hold {
    /// The storage limit that the tenant had reached, in bytes, if that is the cause of the hold.
    pub fn quota(&self) -> Option<i64> {
        match self.party {
            Party::Quota { maximum } => Some(maximum),
            Party::TenantHold | Party::Tenantry { .. } => None,
        }
    }

    /// Whether it restricts no access.
    pub fn is_unrestricting(&self) -> bool {
        self.mode == Some(TenantHoldMode::None)
    }

    /// Whether two holds are equal, ignoring when they were recorded.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let Self { name, mode, preserve, trigger, reason, since: _, party } = self;
        (name, mode, preserve, trigger, reason, party)
            == (&other.name, &other.mode, &other.preserve, &other.trigger, &other.reason, &other.party)
    }
}

/// The hold that a status shows. None for the operator's own.
pub fn shown(status: &HoldStatus, now: Timestamp) -> Option<Hold> {
    let mode = match status.mode {
        HoldMode::Blocked => TenantHoldMode::Blocked,
        HoldMode::ReadOnly => TenantHoldMode::ReadOnly,
        HoldMode::None => TenantHoldMode::None,
        HoldMode::ShrinkOnly => return None,
    };
    // Which object asked for it is not shown: only one that is applied from now on can lift it.
    let legal = LegalHold { object: String::new(), applied_to_tombstone: false };
    let is_own = [INACTIVITY, QUOTA].contains(&status.name.as_str());
    (!is_own).then(|| Hold {
        name: status.name.clone(),
        mode: Some(mode),
        preserve: (status.preserve == Some(true)).then_some(legal),
        trigger: status.trigger,
        reason: status.reason.clone().unwrap_or_default(),
        since: status.since.as_ref().map_or(now, |since| since.0),
        party: Party::TenantHold,
    })
}

/// The holds with a new one. One of the same name is replaced and keeps its time, and stays a legal hold: only lifting it
/// ends that. None if nothing changes.
pub fn with(holds: &[Hold], new: Hold) -> Option<Vec<Hold>> {
    let mut holds = holds.to_vec();
    let recorded = holds.iter().find(|hold| hold.name == new.name).and_then(|hold| hold.preserve.clone());
    let new = Hold { preserve: new.preserve.or(recorded), ..new };
    match holds.iter_mut().find(|hold| hold.name == new.name) {
        Some(old) if old.is_same_as(&new) => return None,
        Some(old) => *old = Hold { since: old.since, ..new },
        None => holds.push(new),
    }
    holds.sort_by(|a, b| a.name.cmp(&b.name));
    Some(holds)
}

/// The legal holds among these, by name: a few, and the number of the others. None if there is none.
pub fn describe_legal_holds(holds: &[Hold]) -> Option<String> {
    let legal: Vec<&Hold> = holds.iter().filter(|hold| hold.preserve.is_some()).collect();
    let (named, more) = legal.split_at(legal.len().min(NAMED));
    let names: Vec<String> = named.iter().map(|hold| format!("{:?}", hold.name)).collect();
    match (legal.len(), more.len()) {
        (0, _) => None,
        (1, _) => Some(format!("legal hold {}", names.join(", "))),
        (_, 0) => Some(format!("legal holds {}", names.join(", "))),
        (_, more) => Some(format!("legal holds {} and {more} more", names.join(", "))),
    }
}

/// The holds without the one of this name; none if it does not exist.
pub fn without(holds: &[Hold], name: &str) -> Option<Vec<Hold>> {
    let left: Vec<Hold> = holds.iter().filter(|hold| hold.name != name).cloned().collect();
    (left.len() < holds.len()).then_some(left)
}

/// Whether a hold of the operator's own is lifted by the Tenant's present spec and annotations.
pub fn is_lifted(hold: &Hold, tenant: &Tenant) -> bool {
    match &hold.party {
        // One is lifted with its object, the other when there is free space again.
        Party::TenantHold | Party::Quota { .. } => false,
        // An annotation that was removed requests nothing.
        Party::Tenantry { plan, resume } => {
            let asked = requested_resume(tenant);
            *plan != tenant.spec.plan || asked.is_some() && asked != *resume
        }
    }
}

/// The value of the annotation that requests to resume.
pub fn requested_resume(tenant: &Tenant) -> Option<String> {
    let annotations = tenant.metadata.annotations.as_ref()?;
    annotations.get(crate::api::ANNOTATION_RESUME_REQUESTED_AT).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(name: &str, second: i64) -> Hold {
        Hold {
            name: name.into(),
            mode: Some(TenantHoldMode::ReadOnly),
            preserve: None,
            trigger: None,
            reason: "unpaid".into(),
            since: Timestamp::constant(second, 0),
            party: Party::TenantHold,
        }
    }

    #[test]
    fn shown_hold_is_recorded_unless_the_operator_places_it_itself() {
        let of = |name: &str, mode| HoldStatus {
            name: name.into(),
            mode,
            preserve: None,
            trigger: None,
            reason: Some("unpaid".into()),
            placed_by: None,
            since: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::constant(1, 0))),
        };
        let now = Timestamp::constant(9, 0);
        assert_eq!(shown(&of("billing", HoldMode::ReadOnly), now), Some(hold("billing", 1)));
        assert_eq!(shown(&of(INACTIVITY, HoldMode::ReadOnly), now), None);
        assert_eq!(shown(&of(QUOTA, HoldMode::ShrinkOnly), now), None);
        let legal = HoldStatus { preserve: Some(true), ..of("court", HoldMode::None) };
        assert!(shown(&legal, now).is_some_and(|hold| hold.preserve.is_some()));
    }

    #[test]
    fn hold_is_recorded_once_and_keeps_its_time() {
        let one = with(&[], hold("billing", 1)).unwrap();
        assert_eq!(with(&one, hold("billing", 9)), None);
        let stricter = Hold { mode: Some(TenantHoldMode::Blocked), ..hold("billing", 9) };
        let changed = with(&one, stricter).unwrap();
        assert_eq!((changed.len(), changed[0].since), (1, Timestamp::constant(1, 0)));
        let two = with(&one, hold("abuse", 2)).unwrap();
        assert_eq!(two.iter().map(|hold| hold.name.as_str()).collect::<Vec<_>>(), ["abuse", "billing"]);
        assert_eq!(without(&two, "abuse"), Some(one.clone()));
        assert_eq!(without(&one, "abuse"), None);
    }

    fn legal(object: &str) -> Hold {
        let preserve = Some(LegalHold::of(object.into(), None, false));
        Hold { mode: Some(TenantHoldMode::None), preserve, ..hold("legal", 1) }
    }

    #[test]
    fn every_legal_hold_is_named_up_to_a_bound() {
        let named = |count: usize| {
            let holds = (0..count).map(|n| Hold { name: format!("legal-{n}"), ..legal("one") });
            describe_legal_holds(&holds.chain([hold("billing", 1)]).collect::<Vec<_>>())
        };
        assert_eq!(named(0), None);
        assert_eq!(named(1).unwrap(), "legal hold \"legal-0\"");
        assert_eq!(named(2).unwrap(), "legal holds \"legal-0\", \"legal-1\"");
        let many = named(7).unwrap();
        assert!(many.ends_with("\"legal-4\" and 2 more"), "{many}");
    }

    #[test]
    fn legal_hold_ends_only_when_it_is_lifted() {
        let placed = with(&[], legal("one")).unwrap();
        assert_eq!(with(&placed, Hold { preserve: None, ..legal("one") }), None);
        // Its other fields follow the object.
        let stricter = Hold { mode: Some(TenantHoldMode::Blocked), preserve: None, ..legal("one") };
        let changed = with(&placed, stricter).unwrap();
        assert!(changed[0].preserve.is_some() && !changed[0].is_unrestricting());
        assert_eq!(without(&changed, "legal"), Some(vec![]));
        // A hold becomes a legal hold.
        let ordinary = Hold { preserve: None, ..legal("one") };
        assert!(with(&[ordinary], legal("one")).unwrap()[0].preserve.is_some());
    }

    #[test]
    fn only_an_object_that_was_applied_to_a_tombstone_lifts_from_it() {
        let before = LegalHold::of("one".into(), None, false);
        assert!(!before.applied_to_tombstone);
        // The same object, when its tenant is deprovisioned.
        assert_eq!(LegalHold::of("one".into(), Some(&before), true), before);
        let again = LegalHold::of("two".into(), Some(&before), true);
        assert!(again.applied_to_tombstone);
        assert_eq!(LegalHold::of("two".into(), Some(&again), true), again);
        // After the tenant was restored, it is like any other.
        assert!(!LegalHold::of("two".into(), Some(&again), false).applied_to_tombstone);
    }

    #[test]
    fn holds_survive_serialization() {
        let own = Hold {
            name: INACTIVITY.into(),
            party: Party::Tenantry { plan: "free".into(), resume: Some("2026-01-01".into()) },
            ..hold("x", 5)
        };
        let quota =
            Hold { name: QUOTA.into(), party: Party::Quota { maximum: 7 }, mode: None, ..hold("x", 6) };
        for hold in [hold("billing", 1), own, quota, legal("one")] {
            let text = serde_json::to_value(&hold).unwrap();
            assert_eq!(serde_json::from_value::<Hold>(text).unwrap(), hold);
        }
    }

    fn tenant(plan: &str) -> Tenant {
        let mut tenant = Tenant::default();
        tenant.spec.plan = plan.into();
        tenant
    }

    #[test]
    fn inactivity_hold_is_lifted_by_plan_change_or_new_request() {
        let own =
            Hold { party: Party::Tenantry { plan: "starter".into(), resume: None }, ..hold("inactivity", 1) };
        let mut asked = tenant("starter");
        assert!(!is_lifted(&own, &asked));
        assert!(is_lifted(&own, &tenant("free")));
        asked.metadata.annotations =
            Some([(crate::api::ANNOTATION_RESUME_REQUESTED_AT.to_owned(), "now".to_owned())].into());
        assert!(is_lifted(&own, &asked));
        assert!(!is_lifted(&hold("billing", 1), &asked));
        let again = Hold {
            party: Party::Tenantry { plan: "starter".into(), resume: Some("then".into()) },
            ..hold("inactivity", 1)
        };
        assert!(is_lifted(&again, &asked));
        assert!(!is_lifted(&again, &tenant("starter")), "a removed annotation requests nothing");
    }
}
