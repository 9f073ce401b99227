//! Tests of attribution.

use super::*;
use crate::domain::{
    access::{AccessLevel, evaluate::Restriction},
    observed::RegistryStatus,
};
use jiff::Timestamp;

fn user(name: &str) -> Actor {
    Actor::User(name.into())
}

fn evaluation(causes: &[RestrictionCause]) -> AccessEvaluation {
    let restriction = |cause: &RestrictionCause| Restriction {
        cause: cause.clone(),
        level: AccessLevel::Blocked,
        trigger: None,
        reason: String::new(),
    };
    AccessEvaluation {
        access: AccessLevel::Blocked,
        state: RegistryStatus::Suspended,
        plan: "starter".into(),
        trial_ends_at: None,
        gates: Vec::new(),
        restrictions: causes.iter().map(restriction).collect(),
        changes_at: None,
        warning: None,
    }
}

const CHANGES: &str =
    "5 displayName bob\n4 state,stateReason alice\n1 * system:serviceaccount:flux:kustomize controller";

#[test]
fn each_change_is_read_with_its_user() {
    let changes = RecordedChanges::of(CHANGES, 5);
    assert_eq!(changes.creator(), user("system:serviceaccount:flux:kustomize controller"));
    assert_eq!(changes.last_of_all(), user("bob"));
    assert_eq!(changes.last(&["state"]), user("alice"));
    // A new object has all its fields from its creator.
    assert_eq!(changes.last(&["settings"]), changes.creator());
    let since: Vec<i64> = changes.since(1).map(|change| change.generation).collect();
    assert_eq!(since, [4, 5]);
}

#[test]
fn what_is_no_change_of_this_object_is_ignored() {
    for wrong in
        ["", "\n", "x", "4", "4 state", "4 state ", "-1 * root", "0 * root", "9 * root", "a state root"]
    {
        let changes = RecordedChanges::of(wrong, 5);
        assert_eq!(changes.last_of_all(), Actor::Unknown(UnknownActor::NotRecorded), "{wrong:?}");
    }
    // One generation has one user: the first line.
    assert_eq!(RecordedChanges::of("2 * alice\n2 * root", 2).last_of_all(), user("alice"));
}

#[test]
fn unknown_actor_says_why_and_is_no_user() {
    let changes = RecordedChanges::unknown(3, UnknownActor::OldKubernetes);
    assert_eq!(changes.last(&["state"]).to_string(), "unknown (Kubernetes before 1.36)");
    assert_eq!(Actor::of_deletion(false).to_string(), "unknown (deletion)");
    assert_eq!(Actor::of_deletion(true).to_string(), "unknown (webhook not reached)");
    assert_eq!(user("unknown (deletion)").to_string(), r#""unknown (deletion)""#);
    assert_eq!(user("tenantry").to_string(), r#""tenantry""#);
    assert_eq!((user("ada").to_string().as_str(), Actor::Tenantry.to_string().as_str()), ("ada", "tenantry"));
}

#[test]
fn state_is_attributed_to_what_changed_it() {
    let changes = RecordedChanges::of(CHANGES, 5);
    let suspended = evaluation(&[RestrictionCause::SpecState]);
    let active = evaluation(&[]);
    let of =
        |evaluation: &AccessEvaluation, since, hold| changes.of_state(evaluation, since, hold).to_string();
    // bob's change came later, and did not change the state.
    assert_eq!(of(&suspended, Some(1), None), "alice");
    assert_eq!(of(&active, Some(1), None), "alice");
    // A hold was placed or lifted; the state in the spec was recorded before.
    let held = evaluation(&[RestrictionCause::Hold("billing".into())]);
    assert_eq!(of(&held, Some(5), Some("carol")), "carol");
    assert_eq!(of(&active, Some(5), Some("unknown (deletion)")), "unknown (deletion)");
    assert_eq!(of(&held, Some(1), Some("carol")), "carol");
    // Nothing was changed: the plan, or the time.
    assert_eq!(of(&active, Some(5), None), "tenantry");
    let ended = evaluation(&[RestrictionCause::TrialEnded(Timestamp::UNIX_EPOCH)]);
    assert_eq!(of(&ended, Some(1), None), "tenantry");
}

#[test]
fn change_that_leads_to_no_other_state_is_named_for_none() {
    let held = || RestrictionCause::Hold("billing".into());
    let cases: [(&str, &[RestrictionCause], Option<&str>, &str); 9] = [
        // A rename while a hold was in force; the hold is lifted.
        ("2 slug,stateReason alice", &[], Some("bob"), "bob"),
        ("2 suspension alice", &[], Some("bob"), "bob"),
        // A reason alone, then a gate.
        ("3 gates bob\n2 stateReason alice", &[RestrictionCause::OpenGates], None, "bob"),
        ("3 stateReason alice\n2 gates bob", &[RestrictionCause::OpenGates], None, "bob"),
        // A suspension, then a rename, and the other way around.
        ("3 slug,stateReason alice\n2 state,stateReason bob", &[RestrictionCause::SpecState], None, "bob"),
        ("3 state bob\n2 slug,stateReason alice", &[RestrictionCause::SpecState], None, "bob"),
        // A suspension that lasts has another reason, or is as strict as another hold.
        ("2 stateReason alice", &[RestrictionCause::SpecState], None, "alice"),
        ("2 suspension alice", &[RestrictionCause::SpecState, held()], Some("bob"), "bob"),
        // A rename, and the content of the plan.
        ("2 slug,stateReason alice", &[RestrictionCause::OpenGates], None, "tenantry"),
    ];
    for (lines, causes, hold, expected) in cases {
        let generation = lines[..1].parse().unwrap();
        let changes = RecordedChanges::of(lines, generation);
        let found = changes.of_state(&evaluation(causes), Some(1), hold).to_string();
        assert_eq!(found, expected, "{lines:?}");
    }
}

#[test]
fn what_is_not_in_the_list_any_more_is_named_for_none_of_those_in_it() {
    let later: Vec<String> = (4..=12).rev().map(|n| format!("{n} displayName alice")).collect();
    let changes = RecordedChanges::of(&format!("{}\n3 plan alice", later.join("\n")), 12);
    let suspended = evaluation(&[RestrictionCause::SpecState]);
    assert_eq!(changes.of_state(&suspended, Some(1), None).to_string(), "unknown (not recorded)");
    assert_eq!(changes.of_state(&evaluation(&[]), Some(1), None).to_string(), "unknown (not recorded)");
    assert_eq!(changes.of_state(&evaluation(&[]), Some(2), None).to_string(), "alice");
    assert_eq!((changes.gap(1), changes.gap(2)), (Some((2, 2)), None));
    // What decides is in the list.
    let changes = RecordedChanges::of(&format!("13 state bob\n{}", later.join("\n")), 13);
    assert_eq!(changes.of_state(&suspended, Some(1), None).to_string(), "bob");
}

#[test]
fn name_that_looks_like_ours_is_quoted() {
    for name in [
        "tenantry",
        "Tenantry",
        "tenantry ",
        "tenantry\u{200b}",
        "\"tenantry\"",
        "unknown user",
        "a\u{202e}b",
    ] {
        let shown = user(name).to_string();
        assert_eq!(shown, format!("{name:?}"));
    }
    for name in
        ["tenantry-dev", "system:serviceaccount:tenantry-system:tenantry", "CN=Jürgen, O=acme", r"ACME\ada"]
    {
        assert_eq!(user(name).to_string(), name);
    }
}

#[test]
fn incomplete_record_names_no_one() {
    let changes = RecordedChanges::unknown(5, UnknownActor::NoPolicy);
    let active = evaluation(&[]);
    assert_eq!(changes.of_state(&active, Some(4), None).to_string(), "unknown (no admission policy)");
    // The spec was not changed since then.
    assert_eq!(changes.of_state(&active, Some(5), None).to_string(), "tenantry");
    // The last change of state is that of an earlier object, or not on record.
    for since in [Some(9), None] {
        let changes = RecordedChanges::of("2 state alice\n1 * bob", 2);
        assert_eq!(changes.of_state(&active, since, None).to_string(), "alice");
    }
}

#[test]
fn entitlements_are_those_of_a_changed_spec_or_of_a_changed_plan() {
    let changes = RecordedChanges::of("3 limits bob\n2 plan alice\n1 * carol", 3);
    assert_eq!(changes.of_entitlements(Some(1), true), Some(user("alice")));
    assert_eq!(changes.of_entitlements(Some(2), false), Some(user("bob")));
    assert_eq!(changes.of_entitlements(Some(3), false), None);
    // Neither the Tenant nor what is not recorded: its account did.
    assert_eq!(changes.of_entitlements(Some(3), true), None);
}
