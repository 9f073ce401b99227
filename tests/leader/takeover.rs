//! Who leads, and after whom.

use std::time::{Duration, Instant};

use futures::future::{FutureExt, select_all};
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::ServiceAccount,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use tenantry::leader::{Election, Timing, identity};
use tenantry_test_support::{CONTROL_PLANE, Wait};

use crate::candidate::{NAMESPACE, PATIENT, Process, QUICK, election, holder, leads, leases, stand};

#[tokio::test]
async fn released_lease_is_acquired_without_waiting_for_its_end() {
    let timing = Timing::default();
    let first = stand("given-back", "first", timing).await;
    leads(&first).await;
    assert!(first.is_current());
    assert_eq!(first.predecessor(), None);
    let second = stand("given-back", "second", timing).await;
    assert!(!second.is_current());
    assert_eq!(holder("given-back").await, "first");

    first.release().await;
    let released = Instant::now();
    assert!(!first.is_current() && first.age().is_none());
    assert_eq!(first.lost().await, "released");
    Wait::until("the second leads").within(timing.renew_deadline).future(second.wait()).await;
    println!("acquired {:?} after the release", released.elapsed());
    assert!(second.is_current());
    assert_eq!(second.predecessor(), None, "no sessions have to be ended");
    let spec = leases().await.get("given-back").await.unwrap().spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("second"), Some(1)));
    assert_eq!(spec.lease_duration_seconds, Some(15));
    second.release().await;
    assert_eq!(holder("given-back").await, "");
}

#[tokio::test]
async fn lease_of_killed_leader_is_acquired_after_its_end() {
    killed_leader("orphaned", QUICK, Duration::from_secs(60)).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn killed_leader_is_replaced_within_20_seconds() {
    killed_leader("orphaned-15", Timing::default(), Duration::from_secs(20)).await;
}

async fn killed_leader(lease: &str, timing: Timing, limit: Duration) {
    let first = Process::start(election(lease, "first", timing)).await;
    leads(&first.leadership).await;
    let second = stand(lease, "second", timing).await;
    let renewed = Instant::now() - first.leadership.age().unwrap();
    first.kill();
    let killed = Instant::now();
    Wait::until("the second leads").within(limit).future(second.wait()).await;
    println!("acquired {:?} after the leader was killed", killed.elapsed());
    assert!(renewed.elapsed() >= timing.lease, "acquired {:?} after a renewal", renewed.elapsed());
    assert_eq!(second.predecessor().as_deref(), Some("first"));
    second.release().await;
}

#[tokio::test]
async fn restarted_container_acquires_lease_of_its_pod_first() {
    // The other one would wait for the end of the Lease, longer than this test does.
    let timing = PATIENT;
    let in_pod = |identity, pod: &str| {
        let pod = Some(pod.to_owned());
        Election { pod, ..election("started-again", identity, timing) }
    };
    let first = Process::start(in_pod("first", "pod-1")).await;
    leads(&first.leadership).await;
    let other = in_pod("other", "pod-2").start(CONTROL_PLANE.client().await.unwrap());
    first.kill();
    let killed = Instant::now();
    let again = in_pod("again", "pod-1").start(CONTROL_PLANE.client().await.unwrap());
    Wait::until("the restarted container leads").within(timing.renew_deadline).future(again.wait()).await;
    println!("acquired {:?} after the process of the pod was killed", killed.elapsed());
    assert!(killed.elapsed() > timing.retry * 2, "two retry periods are waited for");
    assert_eq!(again.predecessor().as_deref(), Some("first"), "whose sessions have to be ended");
    assert!(!other.is_current());
    again.release().await;
    leads(&other).await;
    other.release().await;
}

#[tokio::test]
async fn one_of_many_candidates_leads_at_a_time() {
    let mut waiting = Vec::new();
    for n in 0..5 {
        waiting.push(stand("crowded", &format!("candidate-{n}"), PATIENT).await);
    }
    let all = waiting.clone();
    for transition in 0..5 {
        let any = select_all(waiting.iter().map(|candidate| candidate.wait().boxed()));
        let (_, leader, _) = Wait::until("a candidate leads").future(any).await;
        assert_eq!(all.iter().filter(|candidate| candidate.is_current()).count(), 1);
        let transitions = leases().await.get("crowded").await.unwrap().spec.unwrap().lease_transitions;
        assert_eq!(transitions, Some(transition));
        waiting.remove(leader).release().await;
        assert!(all.iter().filter(|candidate| candidate.is_current()).count() <= 1);
    }
}

#[tokio::test]
async fn times_in_a_lease_do_not_matter() {
    // Left by a machine whose clock is a century ahead, with a Lease of one second.
    let ahead = MicroTime("2126-01-01T00:00:00Z".parse().unwrap());
    let left = Lease {
        metadata: ObjectMeta { name: Some("ahead".to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some("of-the-future".to_owned()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(ahead.clone()),
            renew_time: Some(ahead),
            lease_transitions: Some(41),
            ..LeaseSpec::default()
        }),
    };
    leases().await.create(&PostParams::default(), &left).await.unwrap();
    let started = Instant::now();
    let candidate = stand("ahead", "of-today", PATIENT).await;
    leads(&candidate).await;
    assert!(started.elapsed() > Duration::from_secs(1), "its second is waited for");
    assert_eq!(candidate.predecessor().as_deref(), Some("of-the-future"));
    let spec = leases().await.get("ahead").await.unwrap().spec.unwrap();
    assert_eq!(spec.lease_transitions, Some(42));
    candidate.release().await;
}

#[tokio::test]
async fn election_needs_only_get_create_and_update_on_leases() {
    let client = CONTROL_PLANE.client().await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let named = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata: named("elected"), ..ServiceAccount::default() };
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let role: Role = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "elected"},
        "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                   "verbs": ["get", "create", "update"]}],
    }))
    .unwrap();
    Api::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &role).await.unwrap();
    let binding: RoleBinding = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "elected"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "elected"},
        "subjects": [{"kind": "ServiceAccount", "name": "elected", "namespace": NAMESPACE}],
    }))
    .unwrap();
    Api::namespaced(client, NAMESPACE).create(&PostParams::default(), &binding).await.unwrap();
    let config = CONTROL_PLANE.service_account_config(NAMESPACE, "elected").await.unwrap();

    let mut elected = election("permitted", "elected", PATIENT);
    elected.name = "permitted".to_owned();
    let leadership = elected.start(kube::Client::try_from(config).unwrap());
    leads(&leadership).await;
    let first_age = leadership.age().unwrap();
    // The age is that of the last renewal: it decreases with the next.
    let mut oldest = first_age;
    Wait::until("the Lease is renewed")
        .observe(async || {
            let age = leadership.age().unwrap();
            let renewed = age < oldest;
            oldest = age;
            if renewed { Ok(()) } else { Err(age) }
        })
        .await;
    leadership.release().await;
    assert_eq!(holder("permitted").await, "");
}

#[test]
fn identities_are_unique_and_fit_application_name() {
    let host = "a-very-long-pod-name-of-the-kind-that-deployments-make-7d4b9c6f5-x2x4z";
    let (one, two) = (identity(host), identity(host));
    assert_ne!(one, two);
    assert!(one.len() <= 63, "{one}");
    assert!(one.starts_with("a-very-long-pod-name"), "{one}");
    assert!(identity("spaces and 'quotes'").chars().all(|c| c.is_ascii_graphic()));
}
