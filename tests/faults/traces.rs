//! Traces: the tree of a provisioning, a failed step, and collectors: a real one, and one that is down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use serde_json::json;
use tenantry_dev::{
    paths::RunDirectory,
    ports,
    process::{End, Launch, Lifetime},
    service::Service,
    tools,
};
use tenantry_test_support::{
    Options, Wait, World,
    traces::{ReceivedSpan, environment},
};

/// The span of the reconcile that ran a tenant's first workflow, once it has ended.
pub fn workflow_span<'a>(spans: &'a [ReceivedSpan], tenant: &str) -> Option<&'a ReceivedSpan> {
    spans.iter().find(|span| {
        span.name == "reconcile Tenant"
            && span.attribute("tenantry.object.name") == tenant
            && !span.attribute("tenantry.correlation_id").is_empty()
    })
}

/// The spans of a tenant's provisioning: a reconcile, with the steps under it, and the statements under those.
pub fn assert_provisioning(spans: &[ReceivedSpan], namespace: &str, tenant: &str) {
    let by_id: BTreeMap<&str, &ReceivedSpan> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let first = workflow_span(spans, tenant).unwrap();
    assert_eq!(first.attribute("k8s.namespace.name"), namespace);
    assert_eq!(first.attribute("tenantry.tenant.slug"), tenant);
    assert_eq!(first.attribute("tenantry.tenant.id").len(), 36, "{first:#?}");
    assert_eq!(first.parent, "", "a reconcile is the root of its trace");
    assert_eq!(first.error, None);

    let steps: Vec<_> = spans.iter().filter(|span| span.parent == first.id).collect();
    for step in ["CreateRoles", "CreateDatabase", "Seed", "PublishDatabase", "EnforceAccess", "Activate"] {
        let span = steps.iter().find(|span| span.attribute("tenantry.step") == step);
        let span = span.unwrap_or_else(|| panic!("no step {step} in {steps:#?}"));
        assert_eq!(span.name, format!("step {step}"));
        assert_eq!(span.attribute("tenantry.workflow.kind"), "Provision");
        assert_eq!(span.attribute("tenantry.correlation_id"), first.attribute("tenantry.correlation_id"));
        let statements = spans.iter().filter(|statement| statement.parent == span.id);
        assert!(statements.count() > 0, "{step} has no statement");
    }

    let of_trace = spans.iter().filter(|span| span.trace == first.trace);
    let requests: Vec<_> =
        of_trace.clone().filter(|span| span.attributes.contains_key("url.template")).collect();
    let secret = requests.iter().find(|span| {
        span.attribute("url.template").starts_with("/api/v1/namespaces/{namespace}/secrets")
            && steps.iter().any(|step| step.id == span.parent)
    });
    let secret = secret.unwrap_or_else(|| panic!("no Secret is written in {requests:#?}"));
    assert!(secret.attribute("http.response.status_code").starts_with("20"), "{secret:#?}");
    assert!(requests.iter().all(|span| span.attribute("http.request.method") != "GET"));
    let statements: Vec<_> =
        of_trace.filter(|span| span.attribute("db.system.name") == "postgresql").collect();
    for statement in &statements {
        let parent = by_id.get(statement.parent.as_str()).unwrap_or_else(|| panic!("orphan {statement:#?}"));
        assert_eq!(parent.trace, statement.trace);
        assert!(parent.attributes.contains_key("tenantry.object.kind") || parent.name.starts_with("step "));
        assert!(parent.time.0 <= statement.time.1 && statement.time.0 <= statement.time.1, "{statement:#?}");
        assert_eq!(statement.attribute("db.query.summary"), statement.name);
        assert_eq!(statement.attribute("server.address"), "127.0.0.1", "{statement:#?}");
        assert!(statement.attribute("server.port").parse::<u16>().is_ok(), "{statement:#?}");
        assert_ne!(statement.name, "OTHER", "{statement:#?}");
    }
    let of: BTreeSet<_> = statements
        .iter()
        .map(|span| (span.attribute("db.namespace"), span.attribute("db.operation.name")))
        .collect();
    assert!(of.contains(&("postgres", "CREATE DATABASE")), "{of:?}");
    // The tenant's own session.
    assert!(of.contains(&(format!("tenant_{tenant}").as_str(), "SELECT")), "{of:?}");
    // What changes a tenant adds its row to the activity log in the same statement.
    assert!(of.contains(&("tenantry_system", "WITH")), "{of:?}");
}

/// A real collector, which prints what it receives into its log.
struct Collector {
    url: String,
    service: Service,
    _run: RunDirectory,
}

impl Collector {
    async fn start() -> Self {
        let run = RunDirectory::new().unwrap();
        let address = format!("127.0.0.1:{}", ports::free().unwrap());
        let configuration = json!({
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": address}}}},
            "exporters": {"debug": {"verbosity": "detailed", "use_internal_logger": false}},
            "service": {
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
                "telemetry": {"metrics": {"level": "none"}},
            },
        });
        let file = run.path().join("otelcol.yaml");
        fs::write(&file, configuration.to_string()).unwrap();
        let service = Service::new(
            Launch {
                name: "otelcol".to_owned(),
                program: tools::find("otelcol").await.unwrap(),
                arguments: vec![format!("--config=file:{}", file.display())],
                environment: Vec::new(),
                log: run.path().join("otelcol.log"),
                user: None,
                end: End::Kill,
            },
            Lifetime::WithParent,
        );
        service.start().unwrap();
        Wait::until("the collector listens")
            .log(&service.log())
            .is_true(async || tokio::net::TcpStream::connect(&address).await.is_ok())
            .await;
        Self { url: format!("http://{address}"), service, _run: run }
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.service.log()).unwrap()
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn real_collector_receives_spans_also_those_at_the_end() {
    let collector = Collector::start().await;
    let mut environment = environment(&collector.url);
    // An hour: what waits is exported when the operator ends.
    environment.push(("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "3600000".to_owned()));
    environment.push(("OTEL_EXPORTER_OTLP_COMPRESSION".to_owned(), "gzip".to_owned()));
    environment.push(("OTEL_RESOURCE_ATTRIBUTES".to_owned(), "deployment.environment.name=tests".to_owned()));
    let world = World::with("traces-collector", Options { environment, ..Options::default() }).await;
    world.apply("traced", json!({})).await;
    world.fleet.ready("traced").await;
    world.installation.operator().stop().await.unwrap();
    let wanted = [
        "service.name: Str(tenantry)",
        "deployment.environment.name: Str(tests)",
        "Name           : reconcile Tenant",
        "Name           : reconcile DatabaseServer",
        "Name           : step CreateDatabase",
        "Name           : CREATE DATABASE",
        "Kind           : Client",
        "db.system.name: Str(postgresql)",
        "tenantry.outcome: Str(",
    ];
    Wait::until("the collector has the spans")
        .observe(async || {
            let printed = collector.printed();
            let missing: Vec<_> = wanted.iter().filter(|text| !printed.contains(**text)).collect();
            if missing.is_empty() { Ok(()) } else { Err(missing) }
        })
        .await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn tenants_become_ready_while_the_collector_is_down() {
    let url = format!("http://127.0.0.1:{}", ports::free().unwrap());
    let options = Options { environment: environment(&url), ..Options::default() };
    let world = World::with("traces-down", options).await;
    world.apply("untraced", json!({})).await;
    world.fleet.ready("untraced").await;
    let said = || {
        let log = fs::read_to_string(world.fleet.log()).unwrap();
        (log.matches("spans cannot be exported").count(), log)
    };
    // They are counted, and then the log says so.
    Wait::until("lost spans are counted")
        .observe(async || {
            let metrics = world.installation.operator().metrics().await.unwrap();
            let line = r#"tenantry_trace_spans_total{outcome="failed"}"#;
            if metrics.contains(line) && said().0 > 0 { Ok(()) } else { Err(metrics) }
        })
        .await;
    let (count, log) = said();
    assert_eq!(count, 1, "{log}");
    let began = Instant::now();
    world.installation.operator().stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}
