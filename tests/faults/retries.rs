//! A restart neither resets nor loses the retries of a failed tenant.

use k8s_openapi::{api::core::v1::Secret, jiff::SignedDuration};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use sqlx::Executor;
use tenantry::api::{
    conditions::READY,
    tenant::Tenant,
    tenant_status::{StepState, WorkflowStatus},
};
use tenantry_test_support::World;

use crate::reasons::{admits_no_secret, workflow};

/// How far ahead the operator's clock is in the end: one of the two next attempts is due then.
const AHEAD: SignedDuration = SignedDuration::from_hours(2);
/// The next attempts as the registry has them, so far away that no step of the test is too slow.
const POSTPONED: &str = "UPDATE workflows SET next_attempt_at = now() + CASE failure_reason
        WHEN 'QuotaExceeded' THEN interval '1 hour' ELSE interval '1 day' END WHERE finished_at IS NULL";

/// How long after its last failure a workflow is tried again; none if it did not fail.
fn backoff(workflow: &WorkflowStatus) -> Option<SignedDuration> {
    let failed = workflow.steps.iter().find(|step| step.state == StepState::Failed)?;
    Some(workflow.next_attempt_at.as_ref()?.0.duration_since(failed.finished_at.as_ref()?.0))
}

/// Kills the operator, does something, and starts another process.
async fn restart(world: &World, meanwhile: impl Future<Output = ()>) {
    let operator = world.installation.operator();
    operator.kill().await.unwrap();
    meanwhile.await;
    world.delete_lease().await;
    operator.start().await.unwrap();
}

#[tokio::test]
async fn restart_keeps_attempts_and_time_of_next_attempt() {
    let world = World::new("attempts").await;
    let workflow_of = async |name: &str| workflow(&world.fleet.tenants.get(name).await.unwrap());
    // One that needs a user's action.
    let foreign: Secret =
        serde_json::from_value(json!({"metadata": {"name": "stuck-db"}, "stringData": {"mine": "yes"}}))
            .unwrap();
    world.fleet.secrets.create(&PostParams::default(), &foreign).await.unwrap();
    world.apply("stuck", json!({})).await;
    let stuck = workflow(&world.fleet.reason("stuck", READY, "SecretConflict").await);
    // One that is retried about every half minute: as if it had failed often.
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": world.name}, "spec": {"hard": {"count/secrets": "0"}}});
    world.kubectl().apply(&quota.to_string()).await.unwrap();
    admits_no_secret(&world).await;
    world.apply("acme", json!({})).await;
    world.fleet.reason("acme", READY, "QuotaExceeded").await;
    let often = "UPDATE workflows SET failures = 8 WHERE next_attempt_at < now() + interval '10 seconds'";
    world.superuser("tenantry_system").await.execute(often).await.unwrap();
    let waits_long = |tenant: Option<&Tenant>| {
        let workflow = tenant.and_then(|tenant| tenant.status.as_ref()?.workflow.as_ref());
        workflow.and_then(backoff).is_some_and(|backoff| backoff.as_secs() > 25)
    };
    let acme = workflow(&world.fleet.wait("acme", "waiting for long", waits_long).await);

    let postpone = async {
        let changed = world.superuser("tenantry_system").await.execute(POSTPONED).await.unwrap();
        assert_eq!(changed.rows_affected(), 2);
    };
    restart(&world, postpone).await;
    // A new tenant that fails at once shows that the new process works.
    world.apply("new", json!({})).await;
    world.fleet.reason("new", READY, "QuotaExceeded").await;
    assert_eq!((workflow_of("acme").await, workflow_of("stuck").await), (acme.clone(), stuck.clone()));

    // It is retried when due, and its next backoff is as long as without the restart.
    restart(&world, async { world.set_clock_ahead(AHEAD.as_secs()) }).await;
    let attempt = acme.attempt + 1;
    let tried = move |tenant: Option<&Tenant>| {
        let workflow = tenant.and_then(|tenant| tenant.status.as_ref()?.workflow.as_ref());
        workflow.is_some_and(|workflow| workflow.attempt == attempt && workflow.next_attempt_at.is_some())
    };
    let again = workflow(&world.fleet.wait("acme", "tried once more", tried).await);
    assert_eq!(again.id, acme.id);
    assert!(backoff(&again).is_some_and(|backoff| backoff.as_secs() > 15), "{again:?}");

    // The other was not retried, and continues when its cause is removed.
    assert_eq!(workflow_of("stuck").await, stuck);
    world.kubectl().run(&["delete", "resourcequota", "none", "-n", world.name]).await.unwrap();
    world.fleet.secrets.delete("stuck-db", &DeleteParams::default()).await.unwrap();
    world.fleet.ready("stuck").await;
}
