//! Health, readiness and metrics, over real HTTP.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};

use tenantry::{
    api::reason::Reason,
    domain::health::{HealthCause, HealthState},
    metrics::{Metrics, catalog::document},
    web::{Health, Pages, Readiness, WebServer},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

struct Running {
    address: SocketAddr,
    readiness: Readiness,
    health: Health,
    metrics: Metrics,
    shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

async fn running() -> Running {
    running_at("127.0.0.1:0").await
}

async fn running_at(address: &str) -> Running {
    let server = WebServer::bind(address.parse().unwrap()).await.unwrap();
    let address = server.address().unwrap();
    let (readiness, metrics, shutdown) = (Readiness::default(), Metrics::new(), CancellationToken::new());
    let health = Health::default();
    let pages = Pages { readiness: readiness.clone(), health: health.clone(), metrics: metrics.clone() };
    let serving = tokio::spawn(server.serve(pages, shutdown.clone().cancelled_owned()));
    Running { address, readiness, health, metrics, shutdown, serving }
}

/// Status, headers in lower case, body.
async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn readiness_follows_its_gates_and_names_closed_ones() {
    let running = running().await;
    let (leader, registry) = (running.readiness.gate("leader"), running.readiness.gate("registry"));
    let (status, _, body) = ask(running.address, "GET", "/readyz").await;
    assert_eq!((status, body.as_str()), (503, "not ready\nleader: not yet\nregistry: not yet\n"));
    leader.open();
    registry.close("no answer");
    let (status, _, body) = ask(running.address, "GET", "/readyz").await;
    assert_eq!((status, body.as_str()), (503, "not ready\nregistry: no answer\n"));
    registry.open();
    let (status, _, body) = ask(running.address, "GET", "/readyz").await;
    assert_eq!((status, body.as_str()), (200, "ready\n"));
    registry.close("gone");
    assert_eq!(ask(running.address, "GET", "/readyz").await.0, 503);
    assert_eq!(ask(running.address, "GET", "/livez").await.0, 200, "alive, ready or not");
}

#[tokio::test]
async fn health_is_the_worst_of_its_causes_and_turns_back() {
    let running = running().await;
    let page = async || {
        let (status, head, body) = ask(running.address, "GET", "/health").await;
        assert!(head.contains("content-type: application/json"), "{head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        (status, body)
    };
    let registry = running.readiness.gate("registry");
    let (status, body) = page().await;
    assert_eq!((status, &body["status"], &body["role"]), (503, &json!("failed"), &json!("standby")));
    assert_eq!(body["causes"][0]["message"], "this replica is not ready: registry: not yet");
    registry.open();
    let (status, body) = page().await;
    assert_eq!((status, &body["status"], &body["causes"]), (200, &json!("ready"), &json!([])));
    let cause = |state, reason| HealthCause { state, reason, count: 2, message: "eu, us".into() };
    let degraded = cause(HealthState::Degraded, Reason::RolloutHalted);
    running.health.report(vec![degraded.clone()]);
    let (status, body) = page().await;
    assert_eq!((status, &body["status"], &body["role"]), (200, &json!("degraded"), &json!("leader")));
    let shown = json!([{"status": "degraded", "reason": "RolloutHalted", "count": 2, "message": "eu, us"}]);
    assert_eq!(body["causes"], shown);
    running.health.report(vec![cause(HealthState::Failed, Reason::ServerNotReady), degraded]);
    let (status, body) = page().await;
    assert_eq!((status, &body["status"]), (503, &json!("failed")));
    running.health.report(Vec::new());
    let (status, body) = page().await;
    assert_eq!((status, &body["status"], &body["role"]), (200, &json!("ready"), &json!("leader")));
}

#[tokio::test]
async fn metrics_are_current_openmetrics() {
    let running = running().await;
    running.metrics.leader(true);
    running.metrics.step("Verify", "succeeded", Duration::from_millis(5));
    let (status, head, body) = ask(running.address, "GET", "/metrics").await;
    assert_eq!(status, 200);
    let content_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.lines().any(|line| line == content_type), "{head}");
    assert!(body.contains("\ntenantry_leader 1\n"), "{body}");
    assert!(body.contains("tenantry_steps_total{step=\"Verify\",outcome=\"succeeded\"} 1"), "{body}");
    assert!(body.contains("\nprocess_resident_memory_bytes "), "{body}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    running.metrics.leader(false);
    assert!(ask(running.address, "GET", "/metrics").await.2.contains("\ntenantry_leader 0\n"));
}

#[test]
fn document_of_metrics_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, document()).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == document(), "docs/metrics.md is stale: UPDATE=1 cargo test --test web");
}

#[tokio::test]
async fn root_lists_paths_and_other_paths_do_not_exist() {
    let running = running().await;
    let (status, _, body) = ask(running.address, "GET", "/").await;
    assert_eq!(status, 200);
    for path in ["/livez", "/readyz", "/health", "/metrics"] {
        assert!(body.contains(path), "{body}");
        assert_eq!(ask(running.address, "POST", path).await.0, 405);
    }
    assert_eq!(ask(running.address, "GET", "/elsewhere").await.0, 404);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_idle_clients() {
    // An address of its own: on that of the other tests, one of them may get the port as soon as it is free.
    let running = running_at("127.0.0.2:0").await;
    // As Prometheus does: one request, and the connection stays open.
    let mut idle = BufReader::new(TcpStream::connect(running.address).await.unwrap());
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut line = String::new();
    while line != "ok\n" {
        line.clear();
        assert_ne!(idle.read_line(&mut line).await.unwrap(), 0, "closed too early");
    }
    running.shutdown.cancel();
    let served = tokio::time::timeout(Duration::from_secs(60), running.serving).await;
    served.expect("it ends in time").unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "its connection is closed");
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn probe_succeeds_only_if_the_answer_is_200() {
    let running = running().await;
    let gate = running.readiness.gate("registry");
    let probe = async |url: String| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenantry"));
        let output = command.args(["probe", &url]).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let url = format!("http://{}/readyz", running.address);
    let (succeeded, said) = probe(url.clone()).await;
    assert!(!succeeded && said.contains("answers 503: not ready\nregistry"), "{said}");
    gate.open();
    assert_eq!(probe(url).await, (true, "ready\n".to_owned()));
    let (succeeded, said) = probe("https://127.0.0.1/".to_owned()).await;
    assert!(!succeeded && said.contains("is not http://HOST:PORT/PATH"), "{said}");
}
