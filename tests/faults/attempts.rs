//! A restart neither resets nor loses what a failed tenant waits for.

use k8s_openapi::{
    api::core::v1::Secret,
    jiff::{SignedDuration, Timestamp},
};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use sqlx::Executor;
use tenantry::api::{
    conditions::{READY, reason},
    tenant::Tenant,
    tenant_status::WorkflowStatus,
};

use crate::{reasons::workflow, world::World};

/// How far ahead the operator's clock is in the end.
const AHEAD: SignedDuration = SignedDuration::from_secs(120);

fn waits(workflow: &WorkflowStatus, since: Timestamp) -> SignedDuration {
    workflow.next_attempt_at.as_ref().map_or(SignedDuration::ZERO, |next| next.0.duration_since(since))
}

async fn restart(world: &World) {
    let operator = world.installation.operator();
    operator.kill().await.unwrap();
    world.free_the_lease().await;
    operator.start().await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_the_attempts_and_the_time_of_the_next() {
    let world = World::new("attempts").await;
    let workflow_of = async |name: &str| workflow(&world.fleet.tenants.get(name).await.unwrap());
    // One that waits for a person.
    let foreign: Secret =
        serde_json::from_value(json!({"metadata": {"name": "stuck-db"}, "stringData": {"mine": "yes"}}))
            .unwrap();
    world.fleet.secrets.create(&PostParams::default(), &foreign).await.unwrap();
    world.apply("stuck", json!({})).await;
    let stuck = workflow(&world.fleet.reason("stuck", READY, reason::SECRET_CONFLICT).await);
    // One that is tried again and again, by now every half minute or so: as if it had failed often.
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": world.name}, "spec": {"hard": {"count/secrets": "0"}}});
    world.kubectl().apply(&quota.to_string()).await.unwrap();
    world.apply("acme", json!({})).await;
    world.fleet.reason("acme", READY, reason::QUOTA_EXCEEDED).await;
    let often = "UPDATE workflows SET failures = 8 WHERE next_attempt_at < now() + interval '10 seconds'";
    world.superuser("tenantry_system").await.execute(often).await.unwrap();
    let waits_long = |tenant: Option<&Tenant>| {
        let workflow = tenant.and_then(|tenant| tenant.status.as_ref()?.workflow.as_ref());
        workflow.is_some_and(|workflow| waits(workflow, Timestamp::now()).as_secs() > 25)
    };
    let acme = workflow(&world.fleet.wait("acme", "waiting for long", waits_long).await);

    restart(&world).await;
    // One that fails at once shows that the new process is at work.
    world.apply("new", json!({})).await;
    world.fleet.reason("new", READY, reason::QUOTA_EXCEEDED).await;
    assert!(waits(&acme, Timestamp::now()).is_positive(), "too late to see anything");
    assert_eq!((workflow_of("acme").await, workflow_of("stuck").await), (acme.clone(), stuck.clone()));

    // At its time it is tried, and its pause is as long as it would have been.
    world.ahead(AHEAD.as_secs());
    restart(&world).await;
    let attempt = acme.attempt + 1;
    let tried = move |tenant: Option<&Tenant>| {
        let workflow = tenant.and_then(|tenant| tenant.status.as_ref()?.workflow.as_ref());
        workflow.is_some_and(|workflow| workflow.attempt == attempt && workflow.next_attempt_at.is_some())
    };
    let again = workflow(&world.fleet.wait("acme", "tried once more", tried).await);
    assert_eq!(again.id, acme.id);
    assert!(waits(&again, Timestamp::now() + AHEAD).as_secs() > 15, "{again:?}");

    // The one that waits for a person was not tried, and goes on as soon as its cause is gone.
    assert_eq!(workflow_of("stuck").await, stuck);
    world.kubectl().run(&["delete", "resourcequota", "none", "-n", world.name]).await.unwrap();
    world.fleet.secrets.delete("stuck-db", &DeleteParams::default()).await.unwrap();
    world.fleet.ready("stuck").await;
}
