//! Tests of declarations and the rows about their changes.

use super::*;
use crate::domain::attribution::UnknownActor;

const KEY: &[u8] = b"key";

fn tenant(generation: i64, spec: Value) -> Tenant {
    let mut all = json!({"slug": "acme", "displayName": "Acme", "plan": "starter"});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
        "metadata": {"name": "acme", "namespace": "customers", "uid": "one", "generation": generation}, "spec": all,
    }))
    .unwrap()
}

/// The rows of a change from one spec to another.
fn rows(before: (i64, Value), now: (i64, Value), annotation: &str) -> Vec<ChangeRow> {
    let before = Declaration::of(&tenant(before.0, before.1), KEY, None);
    let now = tenant(now.0, now.1);
    let changes = RecordedChanges::of(annotation, now.metadata.generation.unwrap());
    change_rows(Before::Recorded(&before), &Declaration::of(&now, KEY, None), &now, &changes)
}

fn actors(rows: &[ChangeRow]) -> Vec<(&str, &str)> {
    rows.iter().map(|row| (row.action, row.actor.as_str())).collect()
}

#[test]
fn new_tenant_is_created_by_its_creator() {
    let now = tenant(1, json!({}));
    let declaration = Declaration::of(&now, KEY, None);
    let created = change_rows(Before::Nothing, &declaration, &now, &RecordedChanges::of("1 * ada", 1));
    assert_eq!(actors(&created), [("Created", "ada")]);
    assert_eq!(created[0].details["fields"]["plan"], json!({"to": "starter"}));
    // Without a record of the creation, what is known of later changes stays.
    let now = tenant(3, json!({}));
    let declaration = Declaration::of(&now, KEY, None);
    let late = change_rows(Before::Nothing, &declaration, &now, &RecordedChanges::of("3 plan bob", 3));
    assert_eq!(actors(&late), [("Created", "unknown (not recorded)"), ("Updated", "bob")]);
    assert!(late[0].details["fields"].get("plan").is_none());
}

#[test]
fn unchanged_spec_has_no_row() {
    assert!(rows((1, json!({})), (1, json!({})), "1 * ada").is_empty());
    // The deletion raises the generation.
    assert!(rows((1, json!({})), (2, json!({})), "1 * ada").is_empty());
}

#[test]
fn old_and_new_values_go_with_each_user() {
    let after = json!({"displayName": "Acme Corp", "state": "Suspended", "stateReason": "unpaid"});
    let found = rows((1, json!({})), (3, after), "3 state,stateReason bob\n2 displayName ada\n1 * ada");
    assert_eq!(actors(&found), [("Updated", "ada"), ("Updated", "bob")]);
    let expected = json!({"generation": 2, "fields": {"displayName": {"from": "Acme", "to": "Acme Corp"}}});
    assert_eq!(found[0].details, expected);
    // The reason is that of the suspension, and of no other change.
    assert_eq!((found[0].reason.as_deref(), found[1].reason.as_deref()), (None, Some("unpaid")));
    assert_eq!(found[1].details["fields"]["state"], json!({"to": "Suspended"}));
}

#[test]
fn overwritten_value_is_not_invented() {
    let found =
        rows((1, json!({})), (3, json!({"plan": "free"})), "3 plan bob\n2 plan,displayName ada\n1 * ada");
    assert_eq!(found[0].details["fields"]["plan"], json!({"from": "starter"}));
    assert_eq!(found[1].details["fields"]["plan"], json!({"to": "free"}));
    // A value that is as before: it was changed and changed back.
    assert_eq!(found[0].details["fields"]["displayName"], json!({"from": "Acme", "to": "Acme"}));
}

#[test]
fn change_without_record_is_that_of_an_unknown_user() {
    let found = rows((1, json!({})), (3, json!({"plan": "free", "displayName": "B"})), "3 plan bob\n1 * ada");
    assert_eq!(actors(&found), [("Updated", "bob"), ("Updated", "unknown (not recorded)")]);
    assert_eq!(found[1].details["fields"], json!({"displayName": {"from": "Acme", "to": "B"}}));
}

#[test]
fn tenant_of_an_earlier_release_has_no_old_values() {
    let now = tenant(4, json!({"plan": "free"}));
    let declaration = Declaration::of(&now, KEY, None);
    let of = |since, changes: &RecordedChanges| {
        change_rows(Before::NotRecorded(since), &declaration, &now, changes)
    };
    let changes = RecordedChanges::of("4 plan bob\n3 plan ada", 4);
    assert!(of(4, &changes).is_empty());
    let found = of(3, &changes);
    assert_eq!(actors(&found), [("Updated", "bob")]);
    assert_eq!(found[0].details["fields"]["plan"], json!({"to": "free"}));
    let found = of(3, &RecordedChanges::unknown(4, UnknownActor::NoPolicy));
    assert_eq!(actors(&found), [("Updated", "unknown (no admission policy)")]);
}

#[test]
fn recreated_object_is_no_new_tenant() {
    let before = Declaration { object: "former".into(), ..Declaration::of(&tenant(7, json!({})), KEY, None) };
    let of = |now: &Tenant| {
        let changes = RecordedChanges::of("1 * ada", 1);
        change_rows(Before::Recorded(&before), &Declaration::of(now, KEY, None), now, &changes)
    };
    assert!(of(&tenant(1, json!({}))).is_empty());
    let changed = of(&tenant(1, json!({"plan": "free"})));
    assert_eq!(actors(&changed), [("Updated", "ada")]);
    assert_eq!(changed[0].details["fields"], json!({"plan": {"from": "starter", "to": "free"}}));
}

#[test]
fn secrets_people_and_long_values_are_digests() {
    let settings = |token: &str| json!({"settings": {"token": token, "theme": "dark"}});
    let declaration = Declaration::of(&tenant(1, settings("s3cret")), KEY, None);
    let other = Declaration::of(&tenant(1, settings("s3cret")), b"another key", None);
    assert_ne!(declaration.spec["settings"], other.spec["settings"], "anyone could guess the values");
    let found = rows((1, settings("s3cret")), (2, settings("n3w")), "2 settings bob");
    assert_eq!(
        found[0].details["fields"]["settings"],
        json!({"added": [], "changed": ["token"], "removed": []})
    );
    let admins = |email: &str| json!({"admins": [{"email": email, "name": "Ada Lovelace"}]});
    let found = rows((1, admins("ada@acme.example")), (2, admins("bob@acme.example")), "2 admins carol");
    let text = json!([found, declaration]).to_string();
    assert!(!text.contains("s3cret") && !text.contains("ada@") && !text.contains("Lovelace"), "{text}");
    assert!(text.contains("a…@acme.example #") && text.contains("b…@acme.example #"), "{text}");
    let long = json!({"gates": (0..20).map(|n| json!({"name": format!("gate-{n}-{}", "x".repeat(40))})).collect::<Vec<_>>()});
    let kept = &Declaration::of(&tenant(1, long), KEY, None).spec["gates"];
    assert!(kept["bytes"].as_u64().unwrap() > 512 && kept.to_string().len() < 100, "{kept}");
}

#[test]
fn names_are_bounded() {
    let settings: Map<String, Value> = (0..200).map(|n| (format!("key-{n:03}"), json!(n))).collect();
    let found = rows((1, json!({})), (2, json!({"settings": settings})), "2 settings bob");
    let added = found[0].details["fields"]["settings"]["added"].as_array().unwrap();
    assert_eq!((added.len(), added.last().unwrap()), (51, &json!("and 150 more")));
}

/// A Tenant with this slug.
fn with_slug(slug: &str, more: &Value) -> Tenant {
    let mut spec = more.clone();
    spec["slug"] = json!(slug);
    tenant(1, spec)
}

/// The reason of the state after each of these specs, each recorded before the next.
fn reasons(specs: &[(&str, Value)]) -> Vec<Option<String>> {
    let mut recorded: Option<Declaration> = None;
    let mut reasons = Vec::new();
    for (slug, spec) in specs {
        let tenant = with_slug(slug, spec);
        let reason = Declaration::state_reason(&tenant, recorded.as_ref());
        let declaration = Declaration::of(&tenant, KEY, recorded.as_ref());
        // The same before and after it is recorded.
        assert_eq!(Declaration::state_reason(&tenant, Some(&declaration)), reason, "{slug} {spec}");
        reasons.push(reason);
        recorded = Some(declaration);
    }
    reasons
}

#[test]
fn reason_of_a_slug_change_is_not_that_of_the_suspension_before_it() {
    let suspended = |reason: &str| json!({"state": "Suspended", "stateReason": reason});
    let found = reasons(&[
        ("acme", suspended("unpaid")),
        ("initech", suspended("new brand")),
        ("initech", json!({"state": "Suspended", "stateReason": "new brand", "plan": "free"})),
        ("hooli", suspended("newer brand")),
        ("hooli", suspended("still unpaid")),
    ]);
    let unpaid = Some("unpaid".to_owned());
    let expected = [unpaid.clone(), unpaid.clone(), unpaid.clone(), unpaid, Some("still unpaid".to_owned())];
    assert_eq!(found, expected);
}

#[test]
fn reason_of_a_slug_change_is_not_that_of_a_later_state() {
    let found = reasons(&[
        ("acme", json!({})),
        ("initech", json!({"stateReason": "new brand"})),
        ("initech", json!({"state": "Suspended", "stateReason": "new brand"})),
        ("initech", json!({"state": "Suspended", "stateReason": "unpaid"})),
    ]);
    assert_eq!(found, [None, None, None, Some("unpaid".to_owned())]);
}

#[test]
fn reason_of_a_slug_and_a_state_at_once_is_that_of_both() {
    let both = json!({"state": "Suspended", "stateReason": "sold to initech"});
    let found = reasons(&[("acme", json!({})), ("initech", both)]);
    assert_eq!(found[1].as_deref(), Some("sold to initech"));
}

#[test]
fn reason_goes_with_its_own_change_when_two_are_seen_at_once() {
    let before = Declaration::of(&with_slug("acme", &json!({})), KEY, None);
    let seen = |lines: &str, given: &str| {
        let mut now = with_slug("initech", &json!({"state": "Suspended", "stateReason": given}));
        now.metadata.generation = Some(3);
        now.metadata.annotations = Some([(ANNOTATION_CHANGES.to_owned(), lines.to_owned())].into());
        let declaration = Declaration::of(&now, KEY, Some(&before));
        let changes = RecordedChanges::of(lines, 3);
        let rows = change_rows(Before::Recorded(&before), &declaration, &now, &changes);
        let reasons: Vec<_> = rows.into_iter().map(|row| (row.actor, row.reason)).collect();
        assert_eq!(
            Declaration::state_reason(&now, Some(&declaration)),
            Declaration::state_reason(&now, Some(&before))
        );
        (Declaration::state_reason(&now, Some(&before)), reasons)
    };
    let given = |reason: &str| Some(reason.to_owned());
    let (of_state, rows) = seen("3 slug,stateReason alice\n2 state,stateReason bob", "new brand");
    assert_eq!(of_state, None);
    assert_eq!(rows, [("bob".to_owned(), None), ("alice".to_owned(), given("new brand"))]);
    let (of_state, rows) = seen("3 state alice\n2 slug,stateReason bob", "new brand");
    assert_eq!(of_state, None);
    assert_eq!(rows, [("bob".to_owned(), given("new brand")), ("alice".to_owned(), None)]);
    let (of_state, rows) = seen("3 state,stateReason alice\n2 slug,stateReason bob", "unpaid");
    assert_eq!(of_state, given("unpaid"));
    assert_eq!(rows, [("bob".to_owned(), None), ("alice".to_owned(), given("unpaid"))]);
}

#[test]
fn changes_that_are_not_in_the_list_any_more_leave_a_row() {
    let lines = "6 displayName bob\n5 displayName bob";
    let found = rows((1, json!({"displayName": "a"})), (6, json!({"displayName": "b"})), lines);
    let seen: Vec<_> = found.iter().map(|row| row.actor.as_str()).collect();
    assert_eq!(seen, ["unknown (not recorded)", "bob", "bob"]);
    assert_eq!(found[0].details["generations"], json!({"from": 2, "to": 4}));
}

#[test]
fn without_a_record_the_reason_is_as_given() {
    let found = reasons(&[("acme", json!({"state": "Suspended", "stateReason": "unpaid"}))]);
    assert_eq!(found[0].as_deref(), Some("unpaid"));
    assert_eq!(reasons(&[("acme", json!({"stateReason": ""}))]), [None]);
}
