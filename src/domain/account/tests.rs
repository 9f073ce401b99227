//! Tests of accounts: what counts, what is refused, what is granted, and what a customer sees.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        conditions::{READY, find_condition},
        reason::Reason,
        tenant_account::RequestState,
        tenant_status::TenantStatus,
    },
    domain::{
        attribution::RecordedChanges,
        declaration::account_rows,
        usage::entitlements::{Amounts, Entitlements},
    },
};

fn tenant(more: Value) -> Tenant {
    let mut spec = json!({"slug": "acme", "displayName": "Acme", "plan": "starter",
        "accountNamespace": "acme", "settings": {"theme": "light", "region": "eu"}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
        "metadata": {"name": "acme", "namespace": "customers"}, "spec": spec,
    }))
    .unwrap()
}

fn account(generation: i64, spec: Value) -> TenantAccount {
    serde_json::from_value(json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantAccount",
        "metadata": {"name": "acme", "namespace": "acme", "uid": "one", "generation": generation}, "spec": spec,
    }))
    .unwrap()
}

fn allowed() -> Allowed {
    Allowed { settings: vec!["theme".into(), "logo".into()], plans: vec!["gold".into()], export: true }
}

fn accepted(spec: Value, before: &AccountRecord) -> (AccountRecord, Vec<Refusal>) {
    accept(&account(2, spec).spec, before, &tenant(json!({})), &allowed())
}

/// The settings that count.
fn settings(record: &AccountRecord, tenant: &Tenant) -> Value {
    let counted = record.with_values(Cow::Borrowed(tenant), &allowed().settings);
    json!(counted.spec.settings)
}

#[test]
fn account_wins_where_the_plan_allows_and_nowhere_else() {
    let tenant = tenant(json!({}));
    let spec = json!({"displayName": "Acme Inc", "settings": {"theme": "dark", "region": "us"}});
    let (record, refusals) = accepted(spec, &AccountRecord::default());
    assert_eq!(refusals, [Refusal::NotEditable("region".into())]);
    assert_eq!(settings(&record, &tenant), json!({"theme": "dark", "region": "eu"}));
    let counted = record.with_values(Cow::Borrowed(&tenant), &allowed().settings);
    assert_eq!(counted.spec.display_name, "Acme Inc");
    // A plan that allows less has less of it in force, and loses nothing.
    let counted = record.with_values(Cow::Borrowed(&tenant), &[]);
    assert_eq!(json!(counted.spec.settings), json!({"theme": "light", "region": "eu"}));
    assert_eq!(settings(&record, &tenant)["theme"], "dark");
    // What is removed from the account is that of the Tenant again.
    let (record, refusals) = accepted(json!({}), &record);
    assert_eq!((settings(&record, &tenant)["theme"].clone(), refusals), (json!("light"), vec![]));
}

#[test]
fn tenant_without_account_namespace_counts_as_it_is_written() {
    let (record, _) = accepted(json!({"displayName": "Acme Inc"}), &AccountRecord::default());
    for namespace in [json!({"accountNamespace": ""}), json!({"accountNamespace": null})] {
        let tenant = tenant(namespace);
        assert!(matches!(record.with_values(record.with_plan(&tenant), &[]), Cow::Borrowed(_)));
    }
    let same = tenant(json!({}));
    assert!(matches!(AccountRecord::default().with_values(Cow::Borrowed(&same), &[]), Cow::Borrowed(_)));
}

#[test]
fn impossible_value_leaves_the_one_before() {
    let (before, _) = accepted(json!({"settings": {"theme": "dark"}}), &AccountRecord::default());
    let of = |value: Value| accepted(json!({"settings": {"theme": value}}), &before);
    for value in [json!({"a": null}), json!(9_007_199_254_740_993_i64), json!(["\0"])] {
        let (after, refusals) = of(value);
        assert_eq!(refusals, [Refusal::Impossible("theme".into())]);
        assert_eq!(after.settings["theme"], "dark");
    }
    let (after, refusals) = of(json!("x".repeat(20_000)));
    assert_eq!((after.settings["theme"].clone(), refusals), (json!("dark"), vec![Refusal::TooLarge]));
    // The Tenant's own settings leave no room: they are not refused for those of the account.
    let full = tenant(json!({"settings": {"all": "x".repeat(64_000)}}));
    let spec = account(2, json!({"settings": {"theme": "y".repeat(2000)}})).spec;
    let (after, refusals) = accept(&spec, &AccountRecord::default(), &full, &allowed());
    assert_eq!((after.settings, refusals), (BTreeMap::new(), vec![Refusal::TooLarge]));
}

#[test]
fn settings_of_the_account_never_make_the_tenant_invalid() {
    let (record, refusals) = accepted(
        json!({"displayName": "Acme Inc", "settings": {"logo": "y".repeat(15_000)}}),
        &AccountRecord::default(),
    );
    assert_eq!(refusals, []);
    let editable = allowed().settings;
    assert!(!record.has_no_room(&tenant(json!({})), &editable));
    // The Tenant's own grew since.
    let grown = tenant(json!({"settings": {"all": "x".repeat(60_000)}}));
    let counted = record.with_values(Cow::Borrowed(&grown), &editable);
    assert_eq!((&counted.spec.settings, &*counted.spec.display_name), (&grown.spec.settings, "Acme Inc"));
    assert!(record.has_no_room(&grown, &editable) && !record.has_no_room(&grown, &[]));
    // One that is invalid by itself is not the customer's fault.
    let invalid = tenant(json!({"settings": {"all": "x".repeat(70_000)}}));
    assert_eq!(record.with_values(Cow::Borrowed(&invalid), &editable).spec.settings, invalid.spec.settings);
    assert!(!record.has_no_room(&invalid, &editable));
}

#[test]
fn account_that_is_created_again_is_as_it_was_accepted() {
    let spec = json!({"displayName": "Acme Inc", "settings": {"theme": "dark"}, "planRequest": {"plan": "gold"},
        "exportRequest": {"name": "2026-11"}});
    let (record, refusals) = accepted(spec.clone(), &AccountRecord::default());
    assert_eq!((json!(record.spec()), refusals), (spec, vec![]));
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<AccountRecord>(&text).unwrap(), record);
    assert_eq!(serde_json::from_str::<AccountRecord>("{}").unwrap(), AccountRecord::default());
    assert_eq!(record.open_requests(&allowed()), [r#"plan "gold""#, r#"export "2026-11""#]);
}

fn request(plan: &str, answered: bool) -> RecordedPlanRequest {
    RecordedPlanRequest { plan: plan.into(), answered }
}

#[test]
fn request_is_answered_once() {
    let answer = |request: RecordedPlanRequest, fits| request.answer("starter", &allowed(), || fits);
    assert_eq!(answer(request("gold", false), true), PlanAnswer::Grant);
    assert_eq!(answer(request("gold", false), false), PlanAnswer::Wait);
    assert_eq!(answer(request("platinum", false), true), PlanAnswer::Wait);
    assert_eq!(answer(request("starter", false), true), PlanAnswer::InForce);
    assert_eq!(answer(request("gold", true), true), PlanAnswer::Nothing);
    // It stays answered while it is the same, and not when another one takes its place.
    let before = AccountRecord { plan_request: Some(request("gold", true)), ..AccountRecord::default() };
    let after = |plan: &str| accepted(json!({"planRequest": {"plan": plan}}), &before).0.plan_request;
    assert_eq!(after("gold"), Some(request("gold", true)));
    assert_eq!(after("platinum"), Some(request("platinum", false)));
    assert_eq!(accepted(json!({}), &before).0.plan_request, None);
}

#[test]
fn granted_plan_counts_until_the_tenant_names_another() {
    let mut record = AccountRecord::default();
    let by = Actor::User("owner@acme.example".into());
    let row = record.grant_plan("gold", "starter", &tenant(json!({})), &by);
    assert_eq!((row.action, &*row.actor), ("PlanGranted", "owner@acme.example"));
    assert_eq!(row.details, json!({"from": "starter", "to": "gold"}));
    assert_eq!(record.with_plan(&tenant(json!({}))).spec.plan, "gold");
    assert_eq!(record.with_plan(&tenant(json!({"plan": "free"}))).spec.plan, "free");
    assert_eq!(record.with_plan(&tenant(json!({"accountNamespace": ""}))).spec.plan, "starter");
    assert!(record.has_ended_grant(&tenant(json!({"plan": "free"}))));
    assert!(
        !record.has_ended_grant(&tenant(json!({})))
            && !AccountRecord::default().has_ended_grant(&tenant(json!({})))
    );
    // It is granted as long as it is asked for.
    let grant = |spec: Value| accepted(spec, &record).0.grant;
    assert_eq!(grant(json!({"planRequest": {"plan": "gold"}})), record.grant);
    assert_eq!(grant(json!({"planRequest": {"plan": "platinum"}})), None);
    assert_eq!(grant(json!({})), None);
    // Back to the Tenant's own.
    record.grant_plan("starter", "gold", &tenant(json!({})), &by);
    assert_eq!(record.grant, None);
}

#[test]
fn plan_that_is_too_small_does_not_fit() {
    let offered =
        |maximum| Entitlements { limits: [("users".to_owned(), maximum)].into(), ..Entitlements::default() };
    let usage = Amounts::from([("users".to_owned(), 5), ("projects".to_owned(), 9)]);
    assert!(fits(&offered(Some(5)), &usage) && fits(&offered(None), &usage));
    assert!(!fits(&offered(Some(4)), &usage));
}

#[test]
fn older_copy_of_the_object_is_recognised() {
    let recorded = Declaration::of_account(&account(5, json!({})), b"key");
    let record = AccountRecord { declaration: Some(recorded), ..AccountRecord::default() };
    assert!(record.is_newer_than(&account(4, json!({}))));
    assert!(!record.is_newer_than(&account(5, json!({}))));
    let mut other = account(1, json!({}));
    other.metadata.uid = Some("two".into());
    assert!(!record.is_newer_than(&other));
}

#[test]
fn changes_of_the_account_are_rows_with_their_users() {
    let rows = |before: Option<&TenantAccount>, now: &TenantAccount, annotation: &str| {
        let before = before.map(|before| Declaration::of_account(before, b"key"));
        let changes = RecordedChanges::of(annotation, now.metadata.generation.unwrap());
        account_rows(before.as_ref(), &Declaration::of_account(now, b"key"), &changes)
    };
    // As the operator created it.
    assert!(rows(None, &account(1, json!({})), "1 * operator").is_empty());
    let edited = account(2, json!({"displayName": "Acme Inc", "settings": {"token": "s3cret"}}));
    let found = rows(None, &edited, "2 displayName,settings owner\n1 * operator");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].action, &*found[0].actor), ("AccountUpdated", "owner"));
    assert_eq!(found[0].details["fields"]["displayName"], json!({"to": "Acme Inc"}));
    assert!(!json!(found).to_string().contains("s3cret"));
    let renamed = account(3, json!({"displayName": "Acme Ltd", "settings": {"token": "s3cret"}}));
    let found =
        rows(Some(&edited), &renamed, "3 displayName boss\n2 displayName,settings owner\n1 * operator");
    assert_eq!(&*found[0].actor, "boss");
    assert_eq!(found[0].details["fields"], json!({"displayName": {"from": "Acme Inc", "to": "Acme Ltd"}}));
}

#[test]
fn name_that_is_too_long_or_cannot_be_stored_is_recorded_as_its_digest() {
    let (long, longest) = ("é".repeat(64), "é".repeat(63));
    let edited = account(2, json!({"settings": {"a\0b": 1, &*long: 2, &*longest: 3, "theme": 4}}));
    let recorded = Declaration::of_account(&edited, b"key");
    let names: Vec<&String> = recorded.spec["settings"].as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 4);
    assert!(names.contains(&&longest) && names.iter().any(|name| *name == "theme"), "{names:?}");
    for start in ["3 bytes #", "128 bytes #"] {
        assert!(names.iter().any(|name| name.starts_with(start)), "{names:?}");
    }
    let changes = RecordedChanges::of("2 settings owner\n1 * operator", 2);
    let rows = json!(account_rows(None, &recorded, &changes)).to_string();
    assert!(!rows.contains("\\u0000") && !rows.contains(&long), "{rows}");
}

/// The status of an account of a tenant with this status.
fn shown(record: &AccountRecord, refusals: Vec<Refusal>, tenant: &TenantStatus) -> Value {
    let account = account(3, json!({}));
    let view = AccountView {
        situation: AccountSituation::Shown(Box::new(account.clone())),
        refusals,
        allowed: allowed(),
    };
    let facts = AccountFacts {
        account: &account,
        record,
        view: &view,
        display_name: "Acme",
        tenant_id: "id",
        tenant,
    };
    let status = account_status(facts, Timestamp::UNIX_EPOCH);
    let ready = find_condition(&status.conditions, READY).unwrap();
    assert!(Reason::parse(&ready.reason).is_some());
    json!(status)
}

#[test]
fn customer_sees_nothing_of_the_provider() {
    let status: TenantStatus = serde_json::from_value(json!({
        "state": "Suspended", "plan": "starter", "access": "Blocked", "tenantId": "id",
        "server": "MARKER-server", "database": "MARKER_database", "binding": {"name": "MARKER-secret"},
        "limits": {"users": 5}, "usage": {"users": 2, "measuredAt": "2026-11-30T00:00:00Z"},
        "holds": [{"name": "MARKER-hold", "mode": "Blocked", "reason": "MARKER reason"}],
        "stateUpdatedBy": "MARKER-user", "purgeAfter": "2026-12-30T00:00:00Z", "openGates": ["MARKER-gate"],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Suspended", "message": "MARKER message",
            "lastTransitionTime": "2026-11-30T00:00:00Z"}],
    }))
    .unwrap();
    let found = shown(&AccountRecord::default(), vec![], &status);
    assert!(!found.to_string().contains("MARKER"), "{found:#}");
    assert_eq!(found["state"], "Suspended");
    assert_eq!(found["limits"], json!({"users": 5}));
    assert_eq!(found["usage"]["users"], 2);
    assert_eq!(found["purgeAfter"], "2026-12-30T00:00:00Z");
    assert_eq!(found["observedGeneration"], 3);
    assert_eq!(found["conditions"][0]["status"], "True");
    let refused = shown(&AccountRecord::default(), vec![Refusal::NotEditable("region".into())], &status);
    assert_eq!(refused["conditions"][0]["reason"], "NotAllowed");
    let failed = shown(&AccountRecord::default(), vec![], &TenantStatus::default());
    assert_eq!(failed["conditions"][0]["reason"], "AccountPending");
}

#[test]
fn requests_show_what_became_of_them() {
    let of = |request, plan: &str| {
        let record = AccountRecord {
            plan_request: Some(request),
            export_request: Some("2026-11".into()),
            ..AccountRecord::default()
        };
        let ready = json!([{"type": "Ready", "status": "True", "reason": "Active", "message": "",
            "lastTransitionTime": "2026-11-30T00:00:00Z"}]);
        let status = serde_json::from_value(json!({"plan": plan, "conditions": ready})).unwrap();
        let found = shown(&record, vec![], &status);
        assert_eq!(found["exportRequest"]["state"], RequestState::Pending.as_str());
        found["planRequest"]["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(of(request("gold", false), "starter"), "Pending");
    assert_eq!(of(request("gold", true), "gold"), "Granted");
    assert_eq!(of(request("gold", true), "free"), "Superseded");
}
