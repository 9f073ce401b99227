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

use crate::candidate::{NAMESPACE, PLANE, Process, QUICK, election, holder, leases, stand, within};

#[tokio::test]
async fn a_lease_that_is_given_back_is_taken_within_three_seconds() {
    let first = stand("given-back", "first", Timing::default()).await;
    within(Duration::from_secs(5), "the first leads", first.wait()).await;
    assert!(first.is_current());
    assert_eq!(first.predecessor(), None);
    let second = stand("given-back", "second", Timing::default()).await;
    assert!(!second.is_current());
    assert_eq!(holder("given-back").await, "first");

    first.release().await;
    let released = Instant::now();
    assert!(!first.is_current() && first.age().is_none());
    assert_eq!(first.lost().await, "released");
    within(Duration::from_secs(3), "the second leads", second.wait()).await;
    println!("taken {:?} after it was given back", released.elapsed());
    assert!(second.is_current());
    assert_eq!(second.predecessor(), None, "nobody's sessions need be ended");
    let spec = leases().await.get("given-back").await.unwrap().spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("second"), Some(1)));
    assert_eq!(spec.lease_duration_seconds, Some(15));
    second.release().await;
    assert_eq!(holder("given-back").await, "");
}

#[tokio::test]
async fn a_leader_that_dies_is_followed_within_twenty_seconds_and_not_before_its_lease_is_over() {
    let first = Process::start(election("orphaned", "first", Timing::default())).await;
    within(Duration::from_secs(5), "the first leads", first.leadership.wait()).await;
    let second = stand("orphaned", "second", Timing::default()).await;
    first.kill();
    let killed = Instant::now();
    within(Duration::from_secs(20), "the second leads", second.wait()).await;
    println!("taken {:?} after the leader was killed", killed.elapsed());
    // It had renewed two seconds before it died, at the most, and whatever a request takes.
    assert!(killed.elapsed() > Duration::from_millis(12_500), "taken after {:?}", killed.elapsed());
    assert_eq!(second.predecessor().as_deref(), Some("first"));
    second.release().await;
}

#[tokio::test]
async fn a_container_that_is_started_again_takes_the_lease_of_its_pod_before_others_may() {
    let in_pod = |identity, pod: &str| {
        let pod = Some(pod.to_owned());
        Election { pod, ..election("started-again", identity, Timing::default()) }
    };
    let first = Process::start(in_pod("first", "pod-1")).await;
    within(Duration::from_secs(5), "the first leads", first.leadership.wait()).await;
    let other = in_pod("other", "pod-2").start(PLANE.client().await.unwrap());
    first.kill();
    let killed = Instant::now();
    let again = in_pod("again", "pod-1").start(PLANE.client().await.unwrap());
    within(Duration::from_secs(10), "it leads again", again.wait()).await;
    println!("taken {:?} after its pod's process was killed", killed.elapsed());
    assert!(killed.elapsed() > Duration::from_secs(4), "it was given two tries");
    assert_eq!(again.predecessor().as_deref(), Some("first"), "whose sessions are to be ended");
    assert!(!other.is_current());
    again.release().await;
    within(Duration::from_secs(3), "the other leads", other.wait()).await;
    other.release().await;
}

#[tokio::test]
async fn of_many_one_leads_at_a_time_and_each_has_its_turn() {
    let mut waiting = Vec::new();
    for n in 0..5 {
        waiting.push(stand("crowded", &format!("candidate-{n}"), QUICK).await);
    }
    let all = waiting.clone();
    for turn in 0..5 {
        let (_, leads, _) = within(
            Duration::from_secs(10),
            "somebody leads",
            select_all(waiting.iter().map(|candidate| candidate.wait().boxed())),
        )
        .await;
        assert_eq!(all.iter().filter(|candidate| candidate.is_current()).count(), 1);
        let transitions = leases().await.get("crowded").await.unwrap().spec.unwrap().lease_transitions;
        assert_eq!(transitions, Some(turn));
        waiting.remove(leads).release().await;
        assert!(all.iter().filter(|candidate| candidate.is_current()).count() <= 1);
    }
}

#[tokio::test]
async fn the_times_in_a_lease_do_not_matter() {
    // Left behind by a machine whose clock is a century ahead, with a lease of one second.
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
    let candidate = stand("ahead", "of-today", QUICK).await;
    within(Duration::from_secs(5), "it is taken", candidate.wait()).await;
    assert!(started.elapsed() > Duration::from_secs(1), "it was given its second");
    assert_eq!(candidate.predecessor().as_deref(), Some("of-the-future"));
    let spec = leases().await.get("ahead").await.unwrap().spec.unwrap();
    assert_eq!(spec.lease_transitions, Some(42));
    candidate.release().await;
}

#[tokio::test]
async fn get_create_and_update_on_leases_are_all_it_needs() {
    let client = PLANE.client().await.unwrap();
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
    let config = PLANE.service_account_config(NAMESPACE, "elected").await.unwrap();

    let mut elected = election("permitted", "elected", QUICK);
    elected.name = "permitted".to_owned();
    let leadership = elected.start(kube::Client::try_from(config).unwrap());
    within(Duration::from_secs(10), "it leads", leadership.wait()).await;
    let first_age = leadership.age().unwrap();
    // Renewed: the age has become less.
    within(Duration::from_secs(5), "it renews", async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let mut oldest = first_age;
        loop {
            let age = leadership.age().unwrap();
            if age < oldest {
                break;
            }
            oldest = age;
            tick.tick().await;
        }
    })
    .await;
    leadership.release().await;
    assert_eq!(holder("permitted").await, "");
}

#[test]
fn identities_are_unlike_each_other_and_fit_into_an_application_name() {
    let host = "a-very-long-pod-name-of-the-kind-that-deployments-make-7d4b9c6f5-x2x4z";
    let (one, two) = (identity(host), identity(host));
    assert_ne!(one, two);
    assert!(one.len() <= 63, "{one}");
    assert!(one.starts_with("a-very-long-pod-name"), "{one}");
    assert!(identity("spaces and 'quotes'").chars().all(|c| c.is_ascii_graphic()));
}
