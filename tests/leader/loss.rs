//! How a leader notices that it does not lead any more.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, Patch, PatchParams};
use tenantry::leader::Timing;
use tenantry_dev::{ControlPlane, ControlPlaneOptions};
use tenantry_test_support::Wait;

use crate::candidate::{PATIENT, Process, QUICK, election, holder, leads, leases, stand};

#[tokio::test]
async fn frozen_leader_knows_its_loss_when_it_resumes() {
    let frozen = Process::start(election("frozen", "frozen", QUICK)).await;
    leads(&frozen.leadership).await;
    let next = stand("frozen", "next", PATIENT).await;
    let thaw = frozen.freeze();
    leads(&next).await;
    assert_eq!(next.predecessor().as_deref(), Some("frozen"));
    // None of its tasks has run: this is the clock alone, which is read before each step.
    assert!(frozen.leadership.age().unwrap() > QUICK.renew_deadline);
    assert!(!frozen.leadership.is_current());

    drop(thaw);
    let why = Wait::until("the frozen leader notices its loss").future(frozen.leadership.lost()).await;
    let seconds = QUICK.renew_deadline.as_secs();
    assert!(why.contains(&format!("not renewed for {seconds} s")), "{why}");
    assert!(next.is_current());
    assert_eq!(holder("frozen").await, "next", "the other's Lease is not overwritten");
    // It has no Lease to release.
    frozen.leadership.release().await;
    assert_eq!(holder("frozen").await, "next");
    next.release().await;
    frozen.kill();
}

#[tokio::test]
async fn leader_without_api_server_stops_before_another_may_lead() {
    unreachable(QUICK).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn leader_without_api_server_stops_after_10_seconds() {
    unreachable(Timing::default()).await;
}

async fn unreachable(timing: Timing) {
    let plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let leader = election("unreachable", "leader", timing).start(plane.client().await.unwrap());
    leads(&leader).await;
    let renewed = Instant::now() - leader.age().unwrap();
    plane.kill_api_server().await.unwrap();
    let killed = Instant::now();
    // A machine that is busy may delay it, but not beyond the Lease, and a second more for the message.
    let limit = timing.lease + Duration::from_secs(1);
    let why = Wait::until("the leader stops").within(limit).future(leader.lost()).await;
    println!("stopped {:?} after the API server was killed", killed.elapsed());
    let seconds = timing.renew_deadline.as_secs();
    assert!(why.contains(&format!("not renewed for {seconds} s")), "{why}");
    assert!(renewed.elapsed() >= timing.renew_deadline, "a short outage is not a loss");
    assert!(!leader.is_current());

    plane.start_api_server().await.unwrap();
    let other = election("unreachable", "other", timing).start(plane.client().await.unwrap());
    leads(&other).await;
    assert_eq!(other.predecessor().as_deref(), Some("leader"));
    other.release().await;
}

#[tokio::test]
async fn leader_survives_short_api_server_outage() {
    // Longer than the API server takes to start on a busy machine.
    let timing = PATIENT;
    let plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let leader = election("patient", "leader", timing).start(plane.client().await.unwrap());
    leads(&leader).await;
    plane.kill_api_server().await.unwrap();
    // A candidate that starts during the outage waits for its end too.
    let other = election("patient", "other", timing).start(plane.client().await.unwrap());
    plane.start_api_server().await.unwrap();
    let back = Instant::now();
    Wait::until("the leader has renewed")
        .observe(async || {
            let age = leader.age().unwrap();
            if age < back.elapsed() { Ok(()) } else { Err(age) }
        })
        .await;
    assert!(leader.is_current() && !other.is_current());
    leader.release().await;
    leads(&other).await;
    other.release().await;
}

#[tokio::test]
async fn lease_overwritten_by_another_is_lost_at_once() {
    let leader = stand("stolen", "leader", Timing::default()).await;
    leads(&leader).await;
    let thief = serde_json::json!({"spec": {"holderIdentity": "thief"}});
    let leases = leases().await;
    leases.patch("stolen", &PatchParams::default(), &Patch::Merge(&thief)).await.unwrap();
    let limit = Timing::default().renew_deadline;
    let why = Wait::until("the Lease is lost").within(limit).future(leader.lost()).await;
    assert_eq!(why, "taken over by thief");
    assert!(!leader.is_current());
    assert_eq!(holder("stolen").await, "thief");
}

#[tokio::test]
async fn deleted_lease_is_recreated_by_its_holder() {
    let leader = stand("deleted", "leader", PATIENT).await;
    leads(&leader).await;
    let leases = leases().await;
    let uid = leases.get("deleted").await.unwrap().metadata.uid;
    leases.delete("deleted", &DeleteParams::default()).await.unwrap();
    let again = Wait::until("the Lease exists")
        .observe(async || leases.get_opt("deleted").await.unwrap().ok_or("no Lease"))
        .await;
    assert_ne!(again.metadata.uid, uid);
    assert_eq!(again.spec.unwrap().holder_identity.as_deref(), Some("leader"));
    assert!(leader.is_current());
    leader.release().await;
}
