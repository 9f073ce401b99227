//! The access evaluation, over combinations of its inputs.

use super::*;
use crate::{
    api::{plan::TenantPlanSpec, tenant::Tenant, tenant_hold::TenantHoldMode},
    domain::access::holds::{Hold, LegalHold, Party},
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

fn hold(name: &str, mode: Option<TenantHoldMode>) -> Hold {
    let (party, preserve) = (Party::TenantHold, None);
    Hold { name: name.into(), mode, preserve, trigger: None, reason: "because".into(), since: NOW, party }
}

fn inputs<'a>(tenant: &'a Tenant, plan: Option<&'a TenantPlanSpec>) -> AccessInputs<'a> {
    AccessInputs {
        tenant,
        state_reason: tenant.spec.state_reason.as_deref(),
        plan,
        holds: &[],
        activated_at: None,
        default_gates: None,
        recorded_gates: &[],
        gates_done_at: None,
        known_trial_end: None,
    }
}

fn evaluate(
    spec: Value,
    plan_spec: Value,
    holds: &[Hold],
    activated: i64,
    now: Timestamp,
) -> AccessEvaluation {
    let (tenant, plan) = (tenant(spec), plan(plan_spec));
    let activated_at = Some(at(activated));
    evaluate_access(AccessInputs { holds, activated_at, ..inputs(&tenant, Some(&plan)) }, now)
}

#[test]
fn unrestricted_tenant_has_full_access() {
    let full = evaluate(json!({}), json!({}), &[], 0, NOW);
    assert_eq!((full.access, full.state), (AccessLevel::ReadWrite, RegistryStatus::Active));
    assert_eq!((full.summary(), full.changes_at, full.warning), (None, None, None));
}

#[test]
fn strictest_restriction_applies_in_every_combination() {
    let levels = [None, Some(AccessLevel::ReadOnly), Some(AccessLevel::Blocked)];
    let text = |level: AccessLevel| level.as_str();
    for state in levels {
        for held in levels {
            for second in levels {
                for trial in levels {
                    for valid in [true, false] {
                        let mut spec = json!({});
                        if let Some(level) = state {
                            spec["state"] = json!("Suspended");
                            spec["suspension"] = json!({"mode": text(level)});
                        }
                        if !valid {
                            spec["validity"] = json!({"notAfter": at(-1).to_string()});
                        }
                        let mut plan = json!({});
                        if let Some(level) = trial {
                            spec["trial"] = json!({"endsAt": at(-5).to_string()});
                            plan["trialEnd"] = json!({"action": "Suspend", "mode": text(level)});
                        }
                        let mode = |level| match level {
                            AccessLevel::Blocked => TenantHoldMode::Blocked,
                            _ => TenantHoldMode::ReadOnly,
                        };
                        let holds: Vec<Hold> = [("a", held), ("b", second)]
                            .into_iter()
                            .filter_map(|(name, level)| Some(hold(name, Some(mode(level?)))))
                            .collect();
                        let all = [state, held, second, trial, (!valid).then_some(AccessLevel::Blocked)];
                        let wanted = all.into_iter().flatten().min();
                        let got = evaluate(spec, plan, &holds, -DAY, NOW);
                        assert_eq!(got.access, wanted.unwrap_or(AccessLevel::ReadWrite));
                        assert_eq!(got.state == RegistryStatus::Suspended, wanted.is_some());
                        assert_eq!(got.restrictions.len(), all.into_iter().flatten().count());
                    }
                }
            }
        }
    }
}

#[test]
fn missing_mode_defaults_to_plan_then_blocked() {
    let suspended = |suspension: Value, plan: Value| {
        evaluate(json!({"state": "Suspended", "suspension": suspension}), plan, &[], 0, NOW).access
    };
    let plan = json!({"suspensionMode": {"PaymentFailure": "ReadOnly"}});
    assert_eq!(suspended(json!({"trigger": "PaymentFailure"}), plan.clone()), AccessLevel::ReadOnly);
    assert_eq!(suspended(json!({"trigger": "TermsViolation"}), plan.clone()), AccessLevel::Blocked);
    let stated = json!({"mode": "Blocked", "trigger": "PaymentFailure"});
    assert_eq!(suspended(stated, plan), AccessLevel::Blocked);
    assert_eq!(suspended(json!({}), json!({})), AccessLevel::Blocked);
}

#[test]
fn trial_length_is_from_tenant_else_plan() {
    let plan = json!({"trialDays": 14});
    let in_trial = evaluate(json!({}), plan.clone(), &[], 0, NOW);
    assert_eq!((in_trial.state, in_trial.trial_ends_at), (RegistryStatus::Trial, Some(at(14 * DAY))));
    let own = evaluate(json!({"trial": {"endsAt": at(60).to_string()}}), plan.clone(), &[], 0, NOW);
    assert_eq!((own.state, own.trial_ends_at), (RegistryStatus::Trial, Some(at(60))));
    // To the second.
    assert_eq!(evaluate(json!({}), plan.clone(), &[], 0, at(14 * DAY - 1)).state, RegistryStatus::Trial);
    assert_eq!(evaluate(json!({}), plan, &[], 0, at(14 * DAY)).state, RegistryStatus::Suspended);
}

#[test]
fn trial_end_follows_the_plan() {
    let spec = json!({"trial": {"endsAt": at(-1).to_string()}});
    let suspend = json!({"trialEnd": {"action": "Suspend", "mode": "ReadOnly"}});
    let ended = evaluate(spec.clone(), suspend, &[], -DAY, NOW);
    assert_eq!((ended.access, ended.state), (AccessLevel::ReadOnly, RegistryStatus::Suspended));
    assert!(ended.is_automatic() && ended.plan == "starter");
    let change = json!({"trialEnd": {"action": "ChangePlan", "plan": "free"}});
    let changed = evaluate(spec.clone(), change, &[], -DAY, NOW);
    assert_eq!((changed.access, changed.plan.as_str()), (AccessLevel::ReadWrite, "free"));
    assert_eq!(changed.state, RegistryStatus::Active);
    assert_eq!(evaluate(spec, json!({}), &[], -DAY, NOW).access, AccessLevel::Blocked);
}

#[test]
fn deleted_plan_does_not_extend_the_trial() {
    let tenant = tenant(json!({}));
    let known_trial_end = Some(at(10));
    let inputs = AccessInputs { activated_at: Some(NOW), known_trial_end, ..inputs(&tenant, None) };
    assert_eq!(evaluate_access(inputs, at(9)).state, RegistryStatus::Trial);
    assert_eq!(evaluate_access(inputs, at(10)).access, AccessLevel::Blocked);
}

#[test]
fn open_gates_block_access_and_plan_gates_apply_to_new_tenants() {
    let plan = plan(json!({"gates": [{"name": "contract"}, {"name": "sso"}]}));
    let done = tenant(json!({"gates": [{"name": "contract", "done": true}, {"name": "sso", "done": true}]}));
    let half = tenant(json!({"gates": [{"name": "contract", "done": true}]}));
    let evaluation = evaluate_access(inputs(&half, Some(&plan)), NOW);
    assert_eq!((evaluation.access, evaluation.state), (AccessLevel::Blocked, RegistryStatus::Suspended));
    assert_eq!(evaluation.summary().unwrap(), "gates (Blocked): not done yet: sso");
    assert_eq!(evaluate_access(inputs(&done, Some(&plan)), NOW).access, AccessLevel::ReadWrite);
    // The plan's gates do not block a tenant that was activated without them.
    let in_use =
        AccessInputs { activated_at: Some(NOW), default_gates: Some(&[]), ..inputs(&half, Some(&plan)) };
    assert_eq!(evaluate_access(in_use, NOW).access, AccessLevel::ReadWrite);
}

#[test]
fn trial_of_plan_begins_when_last_gate_is_done() {
    let plan = plan(json!({"trialDays": 14}));
    let gated = |done: bool| tenant(json!({"gates": [{"name": "contract", "done": done}]}));
    let (open, done) = (gated(false), gated(true));
    let was_open = [EffectiveGate { name: "contract".into(), done: false }];
    let begun = Some(at(-30 * DAY));
    let waiting =
        AccessInputs { activated_at: begun, recorded_gates: &was_open, ..inputs(&open, Some(&plan)) };
    assert_eq!(evaluate_access(waiting, NOW).trial_ends_at, None);
    let all_done = AccessInputs { tenant: &done, ..waiting };
    assert_eq!(evaluate_access(all_done, NOW).trial_ends_at, Some(at(14 * DAY)));
    let later = AccessInputs { gates_done_at: Some(NOW), recorded_gates: &[], ..all_done };
    assert_eq!(evaluate_access(later, at(DAY)).trial_ends_at, Some(at(14 * DAY)));
    // A gate that is reopened later does not extend the trial.
    let reopened = AccessInputs { tenant: &open, ..later };
    assert_eq!(evaluate_access(reopened, at(DAY)).trial_ends_at, Some(at(14 * DAY)));
}

#[test]
fn full_storage_allows_reading_and_deleting() {
    let quota = Hold { party: Party::Quota { maximum: 7 }, ..hold("quota", None) };
    let full = evaluate(json!({}), json!({}), std::slice::from_ref(&quota), 0, NOW);
    assert_eq!((full.access, full.state), (AccessLevel::ShrinkOnly, RegistryStatus::Suspended));
    let stricter =
        evaluate(json!({}), json!({}), &[quota, hold("a", Some(TenantHoldMode::ReadOnly))], 0, NOW);
    assert_eq!(stricter.access, AccessLevel::ReadOnly);
}

#[test]
fn tenant_outside_validity_is_blocked() {
    let spec = json!({"validity": {"notBefore": at(0).to_string(), "notAfter": at(100).to_string()}});
    let access = |now| evaluate(spec.clone(), json!({}), &[], -DAY, now).access;
    for (seconds, level) in
        [(-1, AccessLevel::Blocked), (0, AccessLevel::ReadWrite), (99, AccessLevel::ReadWrite)]
    {
        assert_eq!(access(at(seconds)), level, "{seconds}");
    }
    assert_eq!(access(at(100)), AccessLevel::Blocked);
    assert_eq!(evaluate(spec.clone(), json!({}), &[], -DAY, at(-1)).changes_at, Some(at(0)));
}

#[test]
fn warning_is_three_days_or_half_before_expiry() {
    let ends = |seconds: i64| json!({"trial": {"endsAt": at(seconds).to_string()}});
    let long = evaluate(ends(30 * DAY), json!({}), &[], 0, NOW);
    assert_eq!(long.warning.unwrap().from, at(27 * DAY));
    assert_eq!(long.changes_at, Some(at(27 * DAY)));
    let short = evaluate(ends(DAY), json!({}), &[], 0, NOW);
    assert_eq!(short.warning.unwrap().from, at(DAY / 2));
    // The next change after the warning is the expiry.
    assert_eq!(evaluate(ends(DAY), json!({}), &[], 0, at(DAY / 2)).changes_at, Some(at(DAY)));
    assert_eq!(evaluate(ends(DAY), json!({}), &[hold("a", None)], 0, NOW).warning, None);
}

#[test]
fn legal_hold_without_mode_none_is_the_only_one_that_restricts() {
    let open = Hold {
        preserve: Some(LegalHold::of("uid".into(), None, false)),
        ..hold("legal", Some(TenantHoldMode::None))
    };
    let found = evaluate(json!({}), json!({}), std::slice::from_ref(&open), 0, NOW);
    assert_eq!((found.access, found.state), (AccessLevel::ReadWrite, RegistryStatus::Active));
    assert_eq!(found.summary(), None);
    let closed = Hold { mode: None, ..open };
    assert_eq!(evaluate(json!({}), json!({}), &[closed], 0, NOW).access, AccessLevel::Blocked);
}
