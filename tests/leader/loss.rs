//! How a leader notices that it does not lead any more.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, Patch, PatchParams};
use tenantry::leader::Timing;
use tenantry_dev::{ControlPlane, ControlPlaneOptions};

use crate::candidate::{Process, QUICK, election, holder, leases, stand, within};

#[tokio::test]
async fn a_leader_that_was_frozen_knows_it_the_moment_it_wakes() {
    let frozen = Process::start(election("frozen", "frozen", QUICK)).await;
    within(Duration::from_secs(5), "it leads", frozen.leadership.wait()).await;
    let next = stand("frozen", "next", QUICK).await;
    let thaw = frozen.freeze();
    within(Duration::from_secs(10), "the next leads", next.wait()).await;
    assert_eq!(next.predecessor().as_deref(), Some("frozen"));
    // None of its tasks has run: this is the clock alone, which a step asks before it does anything.
    assert!(frozen.leadership.age().unwrap() > QUICK.renew_deadline);
    assert!(!frozen.leadership.is_current());

    drop(thaw);
    let why = within(Duration::from_secs(5), "it notices", frozen.leadership.lost()).await;
    assert!(why.contains("not renewed for 2 s"), "{why}");
    assert!(next.is_current());
    assert_eq!(holder("frozen").await, "next", "it has not written into the other's lease");
    // Not even now: it has nothing to give back.
    frozen.leadership.release().await;
    assert_eq!(holder("frozen").await, "next");
    next.release().await;
    frozen.kill();
}

#[tokio::test]
async fn a_leader_that_cannot_reach_the_api_server_gives_up_before_another_may_lead() {
    let plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let timing = Timing::default();
    let leader = election("unreachable", "leader", timing).start(plane.client().await.unwrap());
    within(Duration::from_secs(5), "it leads", leader.wait()).await;
    plane.kill_api_server().await.unwrap();
    let killed = Instant::now();
    let why = within(Duration::from_secs(13), "it gives up", leader.lost()).await;
    println!("given up {:?} after the API server was killed", killed.elapsed());
    assert!(why.contains("not renewed for 10 s"), "{why}");
    assert!(killed.elapsed() > Duration::from_secs(7), "a short absence is not a loss");
    assert!(!leader.is_current());

    plane.start_api_server().await.unwrap();
    let other = election("unreachable", "other", timing).start(plane.client().await.unwrap());
    within(Duration::from_secs(30), "another leads", other.wait()).await;
    assert_eq!(other.predecessor().as_deref(), Some("leader"));
    other.release().await;
}

#[tokio::test]
async fn a_short_absence_of_the_api_server_is_survived() {
    let plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let leader = election("patient", "leader", Timing::default()).start(plane.client().await.unwrap());
    within(Duration::from_secs(5), "it leads", leader.wait()).await;
    plane.kill_api_server().await.unwrap();
    // Candidates that start while it is away wait for it too.
    let other = election("patient", "other", Timing::default()).start(plane.client().await.unwrap());
    plane.start_api_server().await.unwrap();
    let back = Instant::now();
    within(Duration::from_secs(10), "it has renewed", async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while leader.age().unwrap() > back.elapsed() {
            tick.tick().await;
        }
    })
    .await;
    assert!(leader.is_current() && !other.is_current());
    leader.release().await;
    within(Duration::from_secs(5), "the other leads", other.wait()).await;
    other.release().await;
}

#[tokio::test]
async fn a_lease_that_somebody_else_was_written_into_is_lost_at_once() {
    let leader = stand("stolen", "leader", Timing::default()).await;
    within(Duration::from_secs(5), "it leads", leader.wait()).await;
    let thief = serde_json::json!({"spec": {"holderIdentity": "thief"}});
    let leases = leases().await;
    leases.patch("stolen", &PatchParams::default(), &Patch::Merge(&thief)).await.unwrap();
    let why = within(Duration::from_secs(5), "it is lost", leader.lost()).await;
    assert_eq!(why, "taken over by thief");
    assert!(!leader.is_current());
    assert_eq!(holder("stolen").await, "thief");
}

#[tokio::test]
async fn a_lease_that_was_deleted_is_made_again_by_its_holder() {
    let leader = stand("deleted", "leader", QUICK).await;
    within(Duration::from_secs(5), "it leads", leader.wait()).await;
    let leases = leases().await;
    let uid = leases.get("deleted").await.unwrap().metadata.uid;
    leases.delete("deleted", &DeleteParams::default()).await.unwrap();
    let again = within(Duration::from_secs(5), "it is there again", async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            if let Some(lease) = leases.get_opt("deleted").await.unwrap() {
                break lease;
            }
            tick.tick().await;
        }
    })
    .await;
    assert_ne!(again.metadata.uid, uid);
    assert_eq!(again.spec.unwrap().holder_identity.as_deref(), Some("leader"));
    assert!(leader.is_current());
    leader.release().await;
}
