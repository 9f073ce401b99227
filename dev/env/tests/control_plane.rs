//! The control plane of the environment.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use tenantry_dev::process::ProcessRecord;
use tenantry_dev::{ControlPlane, ControlPlaneOptions};

fn namespace(name: &str) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    namespace
}

#[tokio::test]
async fn control_plane_behaves_as_a_cluster_and_survives_an_api_server_crash() {
    let plane = ControlPlane::start(ControlPlaneOptions::default()).await.expect("a control plane");

    // kubectl and the client see the same cluster, whose version clients can parse.
    let version = plane.kubectl().run(&["version", "-o", "json"]).await.expect("kubectl works");
    assert!(version.contains("\"major\": \"1\""), "{version}");
    let client = plane.client().await.expect("a client");
    let served = client.apiserver_version().await.expect("a version");
    assert!(served.git_version.starts_with("v1."), "{}", served.git_version);

    // A new namespace gets its service account, whose token has no rights.
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace("trial")).await.expect("a namespace");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "trial");
    let published =
        kube::runtime::wait::await_condition(accounts, "default", |account: Option<&ServiceAccount>| {
            account.is_some()
        });
    published.await.expect("a service account");
    let config = plane.service_account_config("trial", "default").await.expect("a token");
    let account = Client::try_from(config).expect("a client");
    let attributes = ResourceAttributes {
        verb: Some("list".to_owned()),
        resource: Some("secrets".to_owned()),
        namespace: Some("trial".to_owned()),
        ..Default::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..Default::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(account);
    let answer = reviews.create(&PostParams::default(), &review).await.expect("a review");
    assert!(!answer.status.expect("a status").allowed);

    // The API server restarts at the same address with the same objects, and clients stay valid.
    plane.kill_api_server().await.expect("killed");
    assert!(namespaces.get("trial").await.is_err());
    plane.start_api_server().await.expect("started again");
    let kept = namespaces.get("trial").await.expect("the namespace still exists");

    // The namespace controller deletes namespaces.
    namespaces.delete("trial", &DeleteParams::default()).await.expect("deleting");
    let uid = kept.uid().expect("a uid");
    let deleted = kube::runtime::conditions::is_deleted(&uid);
    kube::runtime::wait::await_condition(namespaces, "trial", deleted).await.expect("deleted");
}

/// Not a test: the parent process that `killed_parent_leaves_no_control_plane` kills.
#[tokio::test]
#[ignore = "run by another test, which kills it"]
async fn parent_to_kill() {
    let plane = ControlPlane::start(ControlPlaneOptions::default()).await.expect("a control plane");
    let parts = [plane.etcd(), plane.api_server(), plane.controller_manager()];
    let records: Vec<ProcessRecord> = parts.iter().map(|part| part.record().expect("it runs")).collect();
    println!("parts {}", serde_json::to_string(&records).expect("JSON"));
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn killed_parent_leaves_no_control_plane() {
    let mut parent = Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", "parent_to_kill", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a parent");
    let lines = BufReader::new(parent.stdout.take().expect("piped")).lines();
    let records: Vec<ProcessRecord> = lines
        .map_while(Result::ok)
        .find_map(|line| line.split("parts ").nth(1).and_then(|json| serde_json::from_str(json).ok()))
        .expect("the parts' processes");
    assert!(records.iter().all(ProcessRecord::is_alive));
    parent.kill().expect("killed");
    parent.wait().expect("reaped");
    let started = Instant::now();
    while records.iter().any(ProcessRecord::is_alive) {
        assert!(started.elapsed() < Duration::from_secs(10), "a part outlived its parent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
