//! Changes of plans in the activity log. Modules and servers are recorded by the same code.

use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tenantry::api::plan::TenantPlan;
use tenantry_test_support::{
    Fleet,
    shared_operator::{ENVIRONMENT, superuser},
};

async fn history(name: &str) -> Vec<(String, String, Value)> {
    sqlx::query_as(
        "SELECT action, actor, details #> '{fields,limits}' FROM object_activity
         WHERE kind = 'TenantPlan' AND name = $1 ORDER BY id",
    )
    .bind(name)
    .fetch_all(&mut superuser("tenantry_system").await)
    .await
    .unwrap()
}

#[tokio::test]
async fn each_change_of_a_plan_is_in_the_activity_log() {
    let fleet = Fleet::new("object-log").await;
    let by = async |user: &str| fleet.by(ENVIRONMENT.control_plane(), user).await;
    let logged = async |count: usize| {
        let wait = fleet.until(format!("{count} rows of the plan"));
        wait.observe(async || {
            let found = history("object-log").await;
            if found.len() < count { Err(found) } else { Ok(found) }
        })
        .await
    };
    by("ada").await.apply_plan("object-log", json!({"limits": {"users": 5}})).await;
    logged(1).await;
    // Only metadata: no change.
    let plans = Api::<TenantPlan>::all(fleet.client.clone());
    let label = json!({"metadata": {"labels": {"team": "billing"}}});
    plans.patch("object-log", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    by("bob").await.apply_plan("object-log", json!({"limits": {"users": 7}})).await;
    logged(2).await;
    plans.delete("object-log", &DeleteParams::default()).await.unwrap();
    let log = logged(3).await;
    let expected = [
        ("Created", "ada", json!({"to": {"users": 5}})),
        ("Updated", "bob", json!({"from": {"users": 5}, "to": {"users": 7}})),
        ("Deleted", "unknown (deletion)", json!({"from": {"users": 7}})),
    ];
    let expected = expected.map(|(action, actor, limits)| (action.to_owned(), actor.to_owned(), limits));
    assert_eq!(log, expected);
}
