//! The proxy for the API server: what it forwards and counts, and its faults.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use http::{Request, StatusCode, header};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::client::Body;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tenantry_dev::interposer::{ApiFault, EffectKind, Effects, Fault};

use crate::{PLANE, api_proxy, client, never, within};

/// Creates a namespace for the test; returns a client of its ConfigMaps without the proxy.
async fn namespace(name: &str) -> Api<ConfigMap> {
    let client = PLANE.client().await.expect("a client");
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
    Api::namespaced(client, name)
}

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

/// The names of the ConfigMaps in a watch that starts now, without the cluster's own.
async fn watch(maps: &Api<ConfigMap>) -> impl Stream<Item = String> + Unpin + use<> {
    let events = maps.watch(&WatchParams::default(), "0").await.expect("a watch");
    let names = events.filter_map(async |event| match event.expect("an event") {
        WatchEvent::Added(map) => Some(map.name_any()).filter(|name| name != "kube-root-ca.crt"),
        _ => None,
    });
    Box::pin(names)
}

#[tokio::test]
async fn writes_are_counted_and_a_watch_passes() {
    let real = namespace("counted").await;
    let effects = Effects::new();
    let proxy = api_proxy(&effects).await;
    let client = client(&proxy).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "counted");
    let mut watched = watch(&maps).await;
    maps.create(&PostParams::default(), &map("one")).await.expect("created");
    assert_eq!(within("an event", watched.next()).await.as_deref(), Some("one"));
    let patch = json!({"data": {"text": "x".repeat(200_000)}});
    maps.patch("one", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("changed");
    let data = maps.get("one").await.expect("read").data.expect("data");
    assert_eq!(data["text"].len(), 200_000);

    // A Lease shows that the operator is alive, and nothing of its work.
    let lease = serde_json::from_value(json!({"metadata": {"name": "mine"}})).expect("a Lease");
    let leases: Api<Lease> = Api::namespaced(client, "counted");
    leases.create(&PostParams::default(), &lease).await.expect("created");
    maps.delete("one", &DeleteParams::default()).await.expect("deleted");
    let path = "/api/v1/namespaces/counted/configmaps";
    let done: Vec<String> = effects.recorded().into_iter().map(|effect| effect.what).collect();
    assert_eq!(done, [format!("POST {path}"), format!("PATCH {path}/one"), format!("DELETE {path}/one")]);
    assert!(effects.recorded().iter().all(|effect| effect.kind == EffectKind::Write));
    let totals = proxy.totals();
    assert_eq!((totals.requests, totals.writes), (6, 3));
    assert!(totals.connections >= 1);

    effects.count_writes(|write| write.name.as_deref() == Some("two") && write.resource == "configmaps");
    effects.reset();
    maps.create(&PostParams::default(), &map("two")).await.expect("created");
    assert_eq!(within("an event", watched.next()).await.as_deref(), Some("two"));
    maps.delete("two", &DeleteParams::default()).await.expect("deleted");
    assert_eq!(effects.recorded().len(), 1);
    assert!(real.get_opt("two").await.expect("an answer").is_none());
}

#[tokio::test]
async fn kubectl_works_through_the_kubeconfig() {
    let proxy = api_proxy(&Effects::new()).await;
    let mode = std::fs::metadata(proxy.kubeconfig()).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kubectl = PLANE.kubectl().with_kubeconfig(proxy.kubeconfig());
    let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "by-kubectl"}});
    kubectl.apply(&manifest.to_string()).await.expect("applied");
    let names = kubectl.run(&["get", "namespaces", "-o", "name"]).await.expect("a list");
    assert!(names.contains("namespace/by-kubectl"), "{names}");
    assert_eq!(proxy.totals().writes, 1);
}

/// A GET request: returns the status, the value of `Retry-After` and the body.
async fn get(client: &Client, path: &str) -> (StatusCode, Option<String>, Value) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let answer = client.send(request).await.expect("an answer");
    let retry_after =
        answer.headers().get(header::RETRY_AFTER).map(|value| value.to_str().expect("text").into());
    let status = answer.status();
    let body = answer.into_body().collect_bytes().await.expect("a body");
    (status, retry_after, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn requests_are_refused_and_existing_watch_continues() {
    let real = namespace("refused").await;
    let proxy = api_proxy(&Effects::new()).await;
    let client = client(&proxy).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "refused");
    let mut watched = watch(&maps).await;

    proxy.set(ApiFault::Throttle { retry_after: Duration::from_millis(1500) });
    let (status, retry_after, body) = get(&client, "/api/v1/namespaces/refused/configmaps").await;
    assert_eq!((status, retry_after.as_deref()), (StatusCode::TOO_MANY_REQUESTS, Some("2")));
    assert_eq!(
        (&body["kind"], &body["code"], &body["reason"]),
        (&json!("Status"), &json!(429), &json!("TooManyRequests"))
    );
    assert_eq!(body["details"]["retryAfterSeconds"], 2);
    maps.create(&PostParams::default(), &map("refused")).await.expect_err("refused");
    real.create(&PostParams::default(), &map("seen")).await.expect("created");
    assert_eq!(within("an event", watched.next()).await.as_deref(), Some("seen"));

    proxy.set(ApiFault::Fail(StatusCode::SERVICE_UNAVAILABLE));
    let error = maps.get("seen").await.expect_err("refused");
    let kube::Error::Api(status) = error else { panic!("not a Status: {error}") };
    assert_eq!((status.code, &*status.reason), (503, "ServiceUnavailable"));

    proxy.set(Fault::Pass);
    maps.get("seen").await.expect("healed");
    assert!(maps.get_opt("refused").await.expect("an answer").is_none());
    assert_eq!(proxy.totals().writes, 0);
}

#[tokio::test]
async fn hang_holds_requests_and_watches() {
    let real = namespace("hanging").await;
    let effects = Effects::new();
    let proxy = api_proxy(&effects).await;
    let maps: Api<ConfigMap> = Api::namespaced(client(&proxy).await, "hanging");
    let mut watched = watch(&maps).await;
    proxy.set(Fault::Hang);
    real.create(&PostParams::default(), &map("one")).await.expect("created");
    never("an event", watched.next()).await;
    let mut request = tokio::spawn({
        let maps = maps.clone();
        async move { maps.create(&PostParams::default(), &map("two")).await }
    });
    never("an answer", &mut request).await;
    assert!(effects.recorded().is_empty() && real.get_opt("two").await.expect("an answer").is_none());
    proxy.set(Fault::Pass);
    within("an answer", request).await.expect("a task").expect("created");
    let names = within("both events", watched.by_ref().take(2).collect::<Vec<_>>()).await;
    assert_eq!(names, ["one", "two"]);
}

#[tokio::test]
async fn filtered_fault_does_not_affect_other_requests() {
    let real = namespace("some").await;
    let proxy = api_proxy(&Effects::new()).await;
    let client = client(&proxy).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "some");
    let mut watched = watch(&maps).await;
    proxy.set_for(|path| path.ends_with("/secrets"), Fault::Hang);
    real.create(&PostParams::default(), &map("one")).await.expect("created");
    assert_eq!(within("an event", watched.next()).await.as_deref(), Some("one"));
    let mut request = tokio::spawn({
        let client = client.clone();
        async move { get(&client, "/api/v1/namespaces/some/secrets").await }
    });
    never("an answer", &mut request).await;
    proxy.set(Fault::Pass);
    within("an answer", request).await.expect("a task");
}

#[tokio::test]
async fn refuse_ends_watches_and_delay_slows_requests() {
    namespace("cut").await;
    let proxy = api_proxy(&Effects::new()).await;
    let maps: Api<ConfigMap> = Api::namespaced(client(&proxy).await, "cut");
    let mut events = Box::pin(maps.watch(&WatchParams::default(), "0").await.expect("a watch"));
    proxy.set(Fault::Refuse);
    within("the watch ends", async { while matches!(events.next().await, Some(Ok(_))) {} }).await;
    within("a refusal", maps.get_opt("none")).await.expect_err("refused");
    let delay = Duration::from_millis(200);
    proxy.set(Fault::Delay(delay));
    let started = Instant::now();
    maps.get_opt("none").await.expect("an answer");
    assert!(started.elapsed() >= delay);
    proxy.set(Fault::Pass);
    maps.get_opt("none").await.expect("an answer");
}
