//! The standing of a tenant that was, or is about to be, handed out: what it may do, and why not more. Everything that
//! narrows access meets here, and the strictest wins; what time will change is said with the time.

use jiff::{SignedDuration, Timestamp};

use super::{
    access::AccessLevel,
    gates::{self, Gate},
    given::Given,
    hold::{INACTIVITY, QUOTA, is_lifted},
    lifecycle::{Guard, State},
};
use crate::api::{
    plan::TrialEndAction,
    tenant::{DesiredState, SuspensionTrigger},
};

/// A warning comes this long before an end, or after half the time if that is less.
const WARNING: SignedDuration = SignedDuration::from_hours(72);

/// What narrows a tenant's access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `spec.state: Suspended`.
    State,
    /// A hold of this name.
    Hold(String),
    /// Gates of the onboarding are not done.
    Gates,
    /// The trial ended.
    TrialEnded(Timestamp),
    /// `spec.validity.notBefore` has not come.
    NotYetValid(Timestamp),
    /// `spec.validity.notAfter` has passed.
    Expired(Timestamp),
}

/// One reason why a tenant does not have full access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// Which.
    pub cause: Cause,
    /// What the tenant may still do.
    pub level: AccessLevel,
    /// What led to it.
    pub trigger: Option<SuspensionTrigger>,
    /// Why, in somebody's words.
    pub reason: String,
}

/// What ends a tenant's access, or changes its plan, by time alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The trial.
    Trial,
    /// The validity.
    Validity,
}

/// An end that comes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What ends.
    pub of: Ending,
    /// When.
    pub at: Timestamp,
    /// From when on somebody should know.
    pub from: Timestamp,
}

/// Where a tenant stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it may do.
    pub access: AccessLevel,
    /// `Trial`, `Active` or `Suspended`.
    pub state: State,
    /// Its plan: the spec's, or the one that a trial's end has put in force.
    pub plan: String,
    /// When its trial ends, or ended.
    pub trial_ends_at: Option<Timestamp>,
    /// The gates of its onboarding, by name.
    pub gates: Vec<Gate>,
    /// What narrows its access, strictest first.
    pub restrictions: Vec<Restriction>,
    /// When time alone changes any of this.
    pub changes_at: Option<Timestamp>,
    /// The next end, while nothing else keeps the tenant from noticing it.
    pub warning: Option<Warning>,
}

/// Judges where a tenant stands at a time.
pub fn standing(given: Given<'_>, now: Timestamp) -> Standing {
    let spec = &given.tenant.spec;
    let mut restrictions = Vec::new();
    let mut plan = spec.plan.clone();
    if spec.state == Some(DesiredState::Suspended) {
        let suspension = spec.suspension.as_ref();
        let trigger = suspension.and_then(|suspension| suspension.trigger);
        restrictions.push(Restriction {
            cause: Cause::State,
            level: given.level(suspension.and_then(|suspension| suspension.mode), trigger),
            trigger,
            reason: spec.state_reason.clone().unwrap_or_default(),
        });
    }
    for hold in given.holds.iter().filter(|hold| !is_lifted(hold, given.tenant)) {
        restrictions.push(Restriction {
            cause: Cause::Hold(hold.name.clone()),
            level: given.level_of(hold),
            trigger: hold.trigger,
            reason: hold.reason.clone(),
        });
    }
    let gates = given.gates();
    let open = gates::open(&gates);
    if !open.is_empty() {
        restrictions.push(Restriction {
            cause: Cause::Gates,
            level: AccessLevel::Blocked,
            trigger: None,
            reason: format!("not done yet: {}", open.join(", ")),
        });
    }
    let trial_ends_at = given.trial_end(&gates, now);
    if let Some(at) = trial_ends_at.filter(|at| *at <= now) {
        let end = given.plan.and_then(|plan| plan.trial_end.as_ref());
        let next =
            end.filter(|end| end.action == TrialEndAction::ChangePlan).and_then(|end| end.plan.clone());
        match next {
            Some(next) => plan = next,
            None => restrictions.push(Restriction {
                cause: Cause::TrialEnded(at),
                level: given.level(end.and_then(|end| end.mode), None),
                trigger: None,
                reason: format!("the trial ended at {at}"),
            }),
        }
    }
    let validity = spec.validity.as_ref();
    let not_before = validity.and_then(|validity| validity.not_before.as_ref()).map(|at| at.0);
    let not_after = validity.and_then(|validity| validity.not_after.as_ref()).map(|at| at.0);
    let closed = |cause, reason| Restriction { cause, level: AccessLevel::Blocked, trigger: None, reason };
    if let Some(at) = not_before.filter(|at| now < *at) {
        restrictions.push(closed(Cause::NotYetValid(at), format!("valid from {at} on")));
    }
    if let Some(at) = not_after.filter(|at| *at <= now) {
        restrictions.push(closed(Cause::Expired(at), format!("valid until {at}")));
    }
    restrictions.sort_by_key(|restriction| restriction.level);
    let in_trial = trial_ends_at.is_some_and(|at| now < at);
    let state = match (restrictions.is_empty(), in_trial) {
        (false, _) => State::Suspended,
        (true, true) => State::Trial,
        (true, false) => State::Active,
    };
    let endings = [(Ending::Trial, trial_ends_at), (Ending::Validity, not_after)];
    let begun = given.activated_at.unwrap_or(now);
    let warning = endings
        .into_iter()
        .filter_map(|(of, at)| {
            at.filter(|at| now < *at).map(|at| Warning { of, at, from: warn_from(begun, at) })
        })
        .min_by_key(|warning| warning.at)
        .filter(|_| restrictions.is_empty());
    let times = [trial_ends_at, not_before, not_after, warning.map(|warning| warning.from)];
    Standing {
        access: restrictions.first().map_or(AccessLevel::ReadWrite, |strictest| strictest.level),
        state,
        plan,
        trial_ends_at,
        gates,
        restrictions,
        changes_at: times.into_iter().flatten().filter(|at| now < *at).min(),
        warning,
    }
}

fn warn_from(begun: Timestamp, at: Timestamp) -> Timestamp {
    let half = at.duration_since(begun) / 2;
    at.checked_sub(WARNING.min(half.max(SignedDuration::ZERO))).unwrap_or(Timestamp::MIN)
}

impl Standing {
    /// Whether a guard of the lifecycle's table lets the tenant through.
    pub fn passes(&self, guard: Guard) -> bool {
        match guard {
            Guard::Always => true,
            Guard::InTrial => self.state == State::Trial,
            Guard::Free => self.state == State::Active,
            Guard::Narrowed => self.state == State::Suspended,
            Guard::WasHandedOut | Guard::NeverHandedOut | Guard::NothingLeft => false,
        }
    }

    /// Why, for people and the audit trail; none while nothing narrows access.
    pub fn why(&self) -> Option<String> {
        let says = |restriction: &Restriction| {
            let what = match &restriction.cause {
                Cause::State => "spec.state is Suspended".to_owned(),
                Cause::Hold(name) => format!("hold {name:?}"),
                Cause::Gates => "gates".to_owned(),
                Cause::TrialEnded(_) => "trial".to_owned(),
                Cause::NotYetValid(_) | Cause::Expired(_) => "validity".to_owned(),
            };
            let trigger = restriction.trigger.map(|trigger| format!(", {trigger}")).unwrap_or_default();
            format!("{what} ({}{trigger}): {}", restriction.level, restriction.reason)
        };
        (!self.restrictions.is_empty())
            .then(|| self.restrictions.iter().map(says).collect::<Vec<_>>().join("; "))
    }

    /// Whether nobody asked for what narrows access: time came, or the operator put a hold of its own.
    pub fn is_automatic(&self) -> bool {
        !self.restrictions.is_empty()
            && self.restrictions.iter().all(|restriction| match &restriction.cause {
                Cause::State | Cause::Gates => false,
                // Names that nobody else's hold can have.
                Cause::Hold(name) => [INACTIVITY, QUOTA].contains(&name.as_str()),
                Cause::TrialEnded(_) | Cause::NotYetValid(_) | Cause::Expired(_) => true,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{
            plan::TenantPlanSpec,
            tenant::{SuspensionMode, Tenant},
        },
        domain::hold::{Hold, Party},
    };
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp::constant(1_000_000_000, 0);
    const DAY: i64 = 86_400;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(NOW.as_second() + seconds).unwrap()
    }

    fn tenant(more: Value) -> Tenant {
        let mut spec = json!({"slug": "acme", "displayName": "Acme", "plan": "starter"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": spec,
        }))
        .unwrap()
    }

    fn plan(spec: Value) -> TenantPlanSpec {
        serde_json::from_value(spec).unwrap()
    }

    fn hold(name: &str, mode: Option<SuspensionMode>) -> Hold {
        let party = Party::TenantHold;
        Hold { name: name.into(), mode, trigger: None, reason: "because".into(), since: NOW, party }
    }

    fn given<'a>(tenant: &'a Tenant, plan: Option<&'a TenantPlanSpec>) -> Given<'a> {
        Given {
            tenant,
            plan,
            holds: &[],
            activated_at: None,
            default_gates: None,
            recorded_gates: &[],
            gates_done_at: None,
            known_trial_end: None,
        }
    }

    fn judge(spec: Value, plan_spec: Value, holds: &[Hold], activated: i64, now: Timestamp) -> Standing {
        let (tenant, plan) = (tenant(spec), plan(plan_spec));
        let activated_at = Some(at(activated));
        standing(Given { holds, activated_at, ..given(&tenant, Some(&plan)) }, now)
    }

    #[test]
    fn nothing_in_the_way_is_full_access() {
        let free = judge(json!({}), json!({}), &[], 0, NOW);
        assert_eq!((free.access, free.state), (AccessLevel::ReadWrite, State::Active));
        assert_eq!((free.why(), free.changes_at, free.warning), (None, None, None));
    }

    #[test]
    fn the_strictest_wins_in_every_combination() {
        let levels = [None, Some(AccessLevel::ReadOnly), Some(AccessLevel::Blocked)];
        let word = |level: AccessLevel| level.as_str();
        for state in levels {
            for held in levels {
                for second in levels {
                    for trial in levels {
                        for valid in [true, false] {
                            let mut spec = json!({});
                            if let Some(level) = state {
                                spec["state"] = json!("Suspended");
                                spec["suspension"] = json!({"mode": word(level)});
                            }
                            if !valid {
                                spec["validity"] = json!({"notAfter": at(-1).to_string()});
                            }
                            let mut plan = json!({});
                            if let Some(level) = trial {
                                spec["trial"] = json!({"endsAt": at(-5).to_string()});
                                plan["trialEnd"] = json!({"action": "Suspend", "mode": word(level)});
                            }
                            let mode = |level| match level {
                                AccessLevel::Blocked => SuspensionMode::Blocked,
                                _ => SuspensionMode::ReadOnly,
                            };
                            let holds: Vec<Hold> = [("a", held), ("b", second)]
                                .into_iter()
                                .filter_map(|(name, level)| Some(hold(name, Some(mode(level?)))))
                                .collect();
                            let all = [state, held, second, trial, (!valid).then_some(AccessLevel::Blocked)];
                            let wanted = all.into_iter().flatten().min();
                            let got = judge(spec, plan, &holds, -DAY, NOW);
                            assert_eq!(got.access, wanted.unwrap_or(AccessLevel::ReadWrite));
                            assert_eq!(got.state == State::Suspended, wanted.is_some());
                            assert_eq!(got.restrictions.len(), all.into_iter().flatten().count());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_mode_that_is_not_said_is_the_plans_for_the_trigger_else_the_strictest() {
        let suspended = |suspension: Value, plan: Value| {
            judge(json!({"state": "Suspended", "suspension": suspension}), plan, &[], 0, NOW).access
        };
        let plan = json!({"suspensionMode": {"PaymentFailure": "ReadOnly"}});
        assert_eq!(suspended(json!({"trigger": "PaymentFailure"}), plan.clone()), AccessLevel::ReadOnly);
        assert_eq!(suspended(json!({"trigger": "TermsViolation"}), plan.clone()), AccessLevel::Blocked);
        let said = json!({"mode": "Blocked", "trigger": "PaymentFailure"});
        assert_eq!(suspended(said, plan), AccessLevel::Blocked);
        assert_eq!(suspended(json!({}), json!({})), AccessLevel::Blocked);
    }

    #[test]
    fn a_trial_lasts_as_long_as_the_tenant_says_else_as_its_plan() {
        let plan = json!({"trialDays": 14});
        let in_trial = judge(json!({}), plan.clone(), &[], 0, NOW);
        assert_eq!((in_trial.state, in_trial.trial_ends_at), (State::Trial, Some(at(14 * DAY))));
        let own = judge(json!({"trial": {"endsAt": at(60).to_string()}}), plan.clone(), &[], 0, NOW);
        assert_eq!((own.state, own.trial_ends_at), (State::Trial, Some(at(60))));
        // To the second.
        assert_eq!(judge(json!({}), plan.clone(), &[], 0, at(14 * DAY - 1)).state, State::Trial);
        assert_eq!(judge(json!({}), plan, &[], 0, at(14 * DAY)).state, State::Suspended);
    }

    #[test]
    fn the_end_of_a_trial_is_what_the_plan_says() {
        let spec = json!({"trial": {"endsAt": at(-1).to_string()}});
        let suspend = json!({"trialEnd": {"action": "Suspend", "mode": "ReadOnly"}});
        let ended = judge(spec.clone(), suspend, &[], -DAY, NOW);
        assert_eq!((ended.access, ended.state), (AccessLevel::ReadOnly, State::Suspended));
        assert!(ended.is_automatic() && ended.plan == "starter");
        let change = json!({"trialEnd": {"action": "ChangePlan", "plan": "free"}});
        let changed = judge(spec.clone(), change, &[], -DAY, NOW);
        assert_eq!((changed.access, changed.plan.as_str()), (AccessLevel::ReadWrite, "free"));
        assert_eq!(changed.state, State::Active);
        assert_eq!(judge(spec, json!({}), &[], -DAY, NOW).access, AccessLevel::Blocked);
    }

    #[test]
    fn a_plan_that_is_gone_makes_no_trial_longer() {
        let tenant = tenant(json!({}));
        let known_trial_end = Some(at(10));
        let given = Given { activated_at: Some(NOW), known_trial_end, ..given(&tenant, None) };
        assert_eq!(standing(given, at(9)).state, State::Trial);
        assert_eq!(standing(given, at(10)).access, AccessLevel::Blocked);
    }

    #[test]
    fn open_gates_block_until_all_are_done_and_the_plans_count_only_for_new_tenants() {
        let plan = plan(json!({"gates": [{"name": "contract"}, {"name": "sso"}]}));
        let done =
            tenant(json!({"gates": [{"name": "contract", "done": true}, {"name": "sso", "done": true}]}));
        let half = tenant(json!({"gates": [{"name": "contract", "done": true}]}));
        let judged = standing(given(&half, Some(&plan)), NOW);
        assert_eq!((judged.access, judged.state), (AccessLevel::Blocked, State::Suspended));
        assert_eq!(judged.why().unwrap(), "gates (Blocked): not done yet: sso");
        assert_eq!(standing(given(&done, Some(&plan)), NOW).access, AccessLevel::ReadWrite);
        // A tenant in use is not held up by what its plan asks of new ones.
        let in_use = Given { activated_at: Some(NOW), default_gates: Some(&[]), ..given(&half, Some(&plan)) };
        assert_eq!(standing(in_use, NOW).access, AccessLevel::ReadWrite);
    }

    #[test]
    fn a_trial_that_the_plan_gives_begins_when_the_last_gate_is_done() {
        let plan = plan(json!({"trialDays": 14}));
        let gated = |done: bool| tenant(json!({"gates": [{"name": "contract", "done": done}]}));
        let (open, done) = (gated(false), gated(true));
        let was_open = [Gate { name: "contract".into(), done: false }];
        let begun = Some(at(-30 * DAY));
        let waiting = Given { activated_at: begun, recorded_gates: &was_open, ..given(&open, Some(&plan)) };
        assert_eq!(standing(waiting, NOW).trial_ends_at, None);
        let lets_in = Given { tenant: &done, ..waiting };
        assert_eq!(standing(lets_in, NOW).trial_ends_at, Some(at(14 * DAY)));
        let later = Given { gates_done_at: Some(NOW), recorded_gates: &[], ..lets_in };
        assert_eq!(standing(later, at(DAY)).trial_ends_at, Some(at(14 * DAY)));
        // A gate that is opened again later makes no trial longer.
        let reopened = Given { tenant: &open, ..later };
        assert_eq!(standing(reopened, at(DAY)).trial_ends_at, Some(at(14 * DAY)));
    }

    #[test]
    fn a_full_storage_leaves_reading_and_deleting() {
        let quota = Hold { party: Party::Quota { maximum: 7 }, ..hold("quota", None) };
        let full = judge(json!({}), json!({}), std::slice::from_ref(&quota), 0, NOW);
        assert_eq!((full.access, full.state), (AccessLevel::ShrinkOnly, State::Suspended));
        let stricter =
            judge(json!({}), json!({}), &[quota, hold("a", Some(SuspensionMode::ReadOnly))], 0, NOW);
        assert_eq!(stricter.access, AccessLevel::ReadOnly);
    }

    #[test]
    fn outside_of_its_validity_a_tenant_may_do_nothing() {
        let spec = json!({"validity": {"notBefore": at(0).to_string(), "notAfter": at(100).to_string()}});
        let access = |now| judge(spec.clone(), json!({}), &[], -DAY, now).access;
        for (seconds, level) in
            [(-1, AccessLevel::Blocked), (0, AccessLevel::ReadWrite), (99, AccessLevel::ReadWrite)]
        {
            assert_eq!(access(at(seconds)), level, "{seconds}");
        }
        assert_eq!(access(at(100)), AccessLevel::Blocked);
        assert_eq!(judge(spec.clone(), json!({}), &[], -DAY, at(-1)).changes_at, Some(at(0)));
    }

    #[test]
    fn a_warning_comes_three_days_before_an_end_or_after_half_of_a_short_time() {
        let ends = |seconds: i64| json!({"trial": {"endsAt": at(seconds).to_string()}});
        let long = judge(ends(30 * DAY), json!({}), &[], 0, NOW);
        assert_eq!(long.warning.unwrap().from, at(27 * DAY));
        assert_eq!(long.changes_at, Some(at(27 * DAY)));
        let short = judge(ends(DAY), json!({}), &[], 0, NOW);
        assert_eq!(short.warning.unwrap().from, at(DAY / 2));
        // The next thing that happens after the warning is the end.
        assert_eq!(judge(ends(DAY), json!({}), &[], 0, at(DAY / 2)).changes_at, Some(at(DAY)));
        assert_eq!(judge(ends(DAY), json!({}), &[hold("a", None)], 0, NOW).warning, None);
    }
}
