//! What a customer asks for: another plan, an export.

use serde_json::{Value, json};
use tenantry::api::{
    conditions::{ACCOUNT_SHOWN, READY, find_condition},
    plan::TenantPlan,
    tenant::Tenant,
    tenant_account::{RequestState, TenantAccount},
};
use tenantry_test_support::users::actors;

use super::Stage;

/// Whether the request for another plan has this state, and the tenant has this plan.
fn is(state: RequestState, plan: &'static str) -> impl Fn(&TenantAccount) -> bool {
    move |account: &TenantAccount| {
        let status = account.status.clone().unwrap_or_default();
        status.plan.as_deref() == Some(plan)
            && status.plan_request.is_some_and(|request| request.state == state)
    }
}

impl Stage {
    /// Waits until the Tenant has this plan in force.
    async fn has_plan(&self, plan: &'static str) -> Tenant {
        let has = move |tenant: Option<&Tenant>| {
            tenant.and_then(|tenant| tenant.status.as_ref()?.plan.as_deref()) == Some(plan)
        };
        self.fleet.wait(self.name, plan, has).await
    }

    async fn request(&self, plan: &str) {
        self.edit(json!({"planRequest": {"plan": plan}})).await;
    }
}

#[tokio::test]
async fn plan_of_the_list_is_granted_and_another_waits() {
    let stage = Stage::new("acc-plan").await;
    let plans = |list: &[&str]| json!({"plans": list});
    stage.fleet.apply_plan("acc-plan-gold", json!({"limits": {"users": 50}})).await;
    stage.fleet.apply_plan("acc-plan-tiny", json!({"limits": {"users": "custom"}})).await;
    stage.apply(plans(&["acc-plan-gold", "acc-plan-tiny"]), json!({})).await;
    stage.fleet.ready("acc-plan").await;
    assert_eq!(stage.current().await.status.unwrap().available_plans, ["acc-plan-gold", "acc-plan-tiny"]);
    // One that does not fit, and one that does not exist, look alike.
    for plan in ["acc-plan-tiny", "acc-plan-secret"] {
        stage.request(plan).await;
        let waits = |account: &TenantAccount| {
            let request = account.status.as_ref().and_then(|status| status.plan_request.as_ref());
            request.is_some_and(|request| request.plan == plan && request.state == RequestState::Pending)
        };
        stage.shown("a request that waits", waits).await;
        let asks = move |tenant: Option<&Tenant>| {
            let conditions = tenant.and_then(|tenant| Some(&tenant.status.as_ref()?.conditions));
            conditions.and_then(|conditions| find_condition(conditions, ACCOUNT_SHOWN)).is_some_and(|shown| {
                shown.reason == "AccountRequest"
                    && shown.message.ends_with(&format!("asks for plan {plan:?}"))
            })
        };
        stage.fleet.wait("acc-plan", "asking", asks).await;
    }

    stage.request("acc-plan-gold").await;
    stage.shown("a request that is granted", is(RequestState::Granted, "acc-plan-gold")).await;
    let tenant = stage.has_plan("acc-plan-gold").await;
    assert_eq!(tenant.spec.plan, "acc-plan", "the spec is the platform operator's");
    let status = stage.fleet.ready("acc-plan").await.status.unwrap();
    assert_eq!(status.granted_plan.as_deref(), Some("acc-plan-gold"));
    assert_eq!(json!(status.limits["users"]), json!(50));
    // Both plans are settled, although the Tenant names the one and has the other.
    let settled = |plan: Option<&TenantPlan>| {
        let status = plan.and_then(|plan| plan.status.as_ref());
        status.is_some_and(|status| {
            status.pending == Some(0)
                && find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "True")
        })
    };
    let all = kube::Api::<TenantPlan>::all(stage.fleet.client.clone());
    for plan in ["acc-plan", "acc-plan-gold"] {
        stage.fleet.until(format!("{plan} is settled")).object(&all, plan, settled).await;
    }
    // Applied again as it is written, it keeps the granted plan. Another plan there is the platform operator's word, which
    // the same request does not revert.
    stage.apply(plans(&["acc-plan-gold"]), json!({"displayName": "Again"})).await;
    stage.fleet.ready("acc-plan").await;
    stage.has_plan("acc-plan-gold").await;
    stage.fleet.apply_plan("acc-plan-other", json!({"selfService": {"plans": ["acc-plan-gold"]}})).await;
    stage.apply(plans(&["acc-plan-tiny"]), json!({"plan": "acc-plan-other"})).await;
    stage.shown("a request that is over", is(RequestState::Superseded, "acc-plan-other")).await;
    let status = stage.fleet.ready("acc-plan").await.status.unwrap();
    assert_eq!((status.plan.as_deref(), status.granted_plan), (Some("acc-plan-other"), None));
    // With the former plan there again, what was granted is over nevertheless.
    stage.apply(plans(&["acc-plan-gold"]), json!({})).await;
    stage.shown("a request that stays over", is(RequestState::Superseded, "acc-plan")).await;
    let status = stage.fleet.ready("acc-plan").await.status.unwrap();
    assert_eq!((status.plan.as_deref(), status.granted_plan), (Some("acc-plan"), None));

    let log = stage.log().await;
    let owner = "owner@acme.example".to_owned();
    assert_eq!(actors(&log, &["PlanGranted"]), [("PlanGranted".to_owned(), owner.clone())]);
    let changed = log.iter().find(|row| row.action == "PlanChanged").unwrap();
    assert_eq!(changed.actor, owner, "{log:#?}");

    // Asked for again, it is granted again, until that is taken back.
    stage.edit(json!({"planRequest": Value::Null})).await;
    let has_none =
        |account: &TenantAccount| account.status.as_ref().is_some_and(|status| status.plan_request.is_none());
    stage.shown("no request", has_none).await;
    stage.request("acc-plan-gold").await;
    stage.shown("a request that is granted again", is(RequestState::Granted, "acc-plan-gold")).await;
    stage.edit(json!({"planRequest": Value::Null})).await;
    stage.has_plan("acc-plan").await;
    let status = stage.fleet.ready("acc-plan").await.status.unwrap();
    assert_eq!((status.plan.as_deref(), status.granted_plan), (Some("acc-plan"), None));
}

#[tokio::test]
async fn platform_operator_grants_and_export_is_recorded() {
    let stage = Stage::new("acc-ask").await;
    stage.fleet.apply_plan("acc-ask-gold", json!({"selfService": {"export": true}})).await;
    stage.apply(json!({}), json!({})).await;
    stage.fleet.ready("acc-ask").await;
    stage.current().await;
    stage.edit(json!({"planRequest": {"plan": "acc-ask-gold"}, "exportRequest": {"name": "2026-11"}})).await;
    stage.shown("a request that waits", is(RequestState::Pending, "acc-ask")).await;
    let export =
        |account: &TenantAccount| account.status.clone()?.export_request.map(|request| request.state);
    stage.shown("a refused export", |found| export(found) == Some(RequestState::Refused)).await;
    stage.apply(json!({}), json!({"plan": "acc-ask-gold"})).await;
    stage.shown("a request that is granted", is(RequestState::Granted, "acc-ask-gold")).await;
    stage.shown("an export that waits", |found| export(found) == Some(RequestState::Pending)).await;
    let tenant = stage.fleet.reason("acc-ask", ACCOUNT_SHOWN, "AccountRequest").await;
    let message = find_condition(&tenant.status.unwrap().conditions, ACCOUNT_SHOWN).unwrap().message.clone();
    assert_eq!(message, "the customer's administrator asks for export \"2026-11\"");
    let log = stage.log().await;
    let row = log.iter().find(|row| row.action == "AccountUpdated").unwrap();
    let expected = json!({"exportRequest": {"to": {"name": "2026-11"}}, "planRequest": {"to": {"plan": "acc-ask-gold"}}});
    assert_eq!(row.details["fields"], expected);
    // A platform operator has made it, and removes the request.
    stage.patch_as("alice", json!({"spec": {"exportRequest": Value::Null}})).await.unwrap();
    stage.fleet.reason("acc-ask", ACCOUNT_SHOWN, "AccountCurrent").await;
}
