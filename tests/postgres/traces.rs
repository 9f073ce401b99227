//! The spans of statements: where they ran and whether they failed, and nothing of their content.

use std::{sync::Arc, time::Duration};

use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tenantry::{
    telemetry::{self, LogFormat, Statements},
    traces::{self, Settings, Traces, statement_failed, with_traced_statements},
};
use tenantry_test_support::traces::{ReceivedSpan, TraceReceiver};
use tracing::subscriber::set_global_default;

use crate::servers::start;

fn settings(receiver: &TraceReceiver) -> Settings {
    let variables = receiver.environment();
    let variable = |name: &str| Some(variables.iter().find(|(own, _)| own == name)?.1.clone());
    Settings { timeout: Duration::from_secs(10), ..Settings::read(variable).unwrap().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_statements_say_where_and_whether_and_not_what() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let postgres = start(18, vec![]).await;
    let receiver = TraceReceiver::start().await;
    let exported = Traces::start(&settings(&receiver), "test-1", Arc::new(|_, _| {})).unwrap();
    let options: PgConnectOptions = postgres.admin_url("postgres").parse().unwrap();
    let mut session = with_traced_statements(options, true).connect().await.unwrap();

    // For the whole process, as in the operator. With a subscriber for this thread alone, sqlx's report would be
    // switched off for all threads when another test's thread, which has no subscriber, is the first to reach it.
    let subscriber = telemetry::subscriber(LogFormat::Text, "off", std::io::sink, false, Statements::Traced);
    set_global_default(subscriber.unwrap()).unwrap();
    let statement_of_another_thread = std::thread::spawn({
        let options: PgConnectOptions = postgres.admin_url("postgres").parse().unwrap();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut session = with_traced_statements(options, true).connect().await.unwrap();
                sqlx::query("SELECT 'of another thread'").execute(&mut session).await.unwrap();
            });
        }
    });
    statement_of_another_thread.join().unwrap();
    sqlx::query("SELECT 'outside of a reconcile'").execute(&mut session).await.unwrap();
    let work = async {
        traces::note("tenantry.tenant.slug", "traces-noted");
        sqlx::query("SELECT 'hush', $1 FROM pg_roles").bind("hush").fetch_all(&mut session).await.unwrap();
        let refused = sqlx::raw_sql("ALTER ROLE traces_missing PASSWORD 'hush'").execute(&mut session).await;
        statement_failed(&refused.unwrap_err());
        sqlx::raw_sql("SET work_mem = '4MB'").execute(&mut session).await.unwrap();
        traces::failed("ServerUnreachable", "a message");
    };
    traces::reconcile("Tenant", "customers", "traced", work).await;
    exported.end().await;

    let spans = receiver.spans();
    assert!(!receiver.text().contains("hush"), "{}", receiver.text());
    assert!(receiver.text().contains("test-1"));
    let named = |name: &str| -> &ReceivedSpan {
        spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
    };
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let reconcile = named("reconcile Tenant");
    assert_eq!(reconcile.attribute("tenantry.tenant.slug"), "traces-noted");
    assert_eq!(reconcile.attribute("k8s.namespace.name"), "customers");
    assert_eq!(reconcile.error.as_deref(), Some("ServerUnreachable: a message"));
    for (name, state) in [("SELECT", None), ("ALTER ROLE", Some("42704")), ("SET", None)] {
        let span = named(name);
        assert_eq!((&span.parent, &span.trace), (&reconcile.id, &reconcile.trace));
        assert_eq!(span.attribute("db.namespace"), "postgres");
        assert_eq!(span.attribute("server.port"), postgres.port().to_string());
        assert_eq!(span.attribute("db.response.status_code"), state.unwrap_or_default());
        assert_eq!(span.error, state.map(|state| format!("SQLSTATE {state}")));
    }
    assert_ne!(named("SELECT").attribute("db.response.returned_rows"), "0");
}
