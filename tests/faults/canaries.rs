//! Known secrets are in no log at trace level, no metric, no Event, no status, no span, not in the registry and not in PostgreSQL's
//! log.

use std::{collections::BTreeMap, fs};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tenantry_dev::{PostgresOptions, Stop};
use tenantry_test_support::{Options, Wait, World, traces::TraceReceiver};

use crate::traces::{assert_provisioning, workflow_span};

/// Keys of Secrets whose values are public.
const PUBLIC: [&str; 12] = [
    "type",
    "provider",
    "host",
    "port",
    "username",
    "database",
    "dbname",
    "sslmode",
    "plan",
    "features",
    "namespace",
    "ca.crt",
];

/// All of the operator, its libraries included; statements and parameters of PostgreSQL.
fn loud(receiver: &TraceReceiver) -> Options {
    let settings = [
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_min_messages", "debug1"),
        ("log_parameter_max_length", "-1"),
        ("log_parameter_max_length_on_error", "-1"),
        ("log_connections", "on"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Options {
        postgres: PostgresOptions { settings, ..PostgresOptions::default() },
        // A level alone would be Tenantry's own.
        arguments: vec!["--log-level=trace,tenantry=trace".to_owned()],
        environment: receiver.environment(),
        ..Options::default()
    }
}

/// What must stay secret, by what it is.
async fn canaries(world: &World) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for namespace in [world.name.to_owned(), format!("{}-system", world.name)] {
        let api = Api::<Secret>::namespaced(world.fleet.client.clone(), &namespace);
        for secret in api.list(&ListParams::default()).await.unwrap() {
            for (key, value) in secret.data.iter().flatten() {
                let public =
                    PUBLIC.contains(&key.as_str()) || key.starts_with("limit.") || key.starts_with("schema.");
                let value = String::from_utf8(value.0.clone()).unwrap();
                if !public && !value.is_empty() {
                    found.insert(format!("{}/{key}", secret.name_any()), value);
                }
            }
        }
    }
    for (key, value) in found.clone() {
        // The credentials of each admin, beside what is public of them.
        if let Ok(Value::Array(admins)) = serde_json::from_str(&value) {
            found.remove(&key);
            for admin in admins {
                found.insert(
                    format!("{key} {}", admin["email"]),
                    admin["secret"].as_str().unwrap().to_owned(),
                );
            }
        }
    }
    let installation = &world.installation;
    let password = |url: &str| url.split('@').next().unwrap().rsplit(':').next().unwrap().to_owned();
    found
        .insert("the administrator's password".to_owned(), password(&installation.postgres().admin_url("x")));
    found.insert("the registry's password".to_owned(), password(installation.registry_url()));
    let kubeconfig = fs::read_to_string(&installation.operator_options().kubeconfig).unwrap();
    let kubeconfig: Value = serde_json::from_str(&kubeconfig).unwrap();
    let token = kubeconfig["users"][0]["user"]["token"].as_str().unwrap().to_owned();
    found.insert("the operator's token".to_owned(), token);
    found
}

/// Everything that a person or a program may read who must not know them, by what it is.
async fn readable(world: &World, receiver: &TraceReceiver) -> Vec<(&'static str, String)> {
    let operator = world.installation.operator();
    let kubectl = world.kubectl();
    let of_cluster = [
        "get",
        "events,tenants,tenantplans,tenantmodules,databaseservers,leases,configmaps",
        "-A",
        "-o",
        "json",
    ];
    let mut registry = world.superuser("tenantry_system").await;
    let dump = "SELECT database_to_xml(true, true, '')::text";
    let mut tenant = world.superuser("tenant_canaries").await;
    vec![
        ("the operator's log", fs::read_to_string(world.fleet.log()).unwrap()),
        ("the spans", receiver.text()),
        ("the metrics", operator.metrics().await.unwrap()),
        ("/health", operator.get("/health").await.unwrap().1),
        ("the cluster's objects", kubectl.run(&of_cluster).await.unwrap()),
        ("the registry", sqlx::query_scalar(dump).fetch_one(&mut registry).await.unwrap()),
        ("the tenant's database", sqlx::query_scalar(dump).fetch_one(&mut tenant).await.unwrap()),
        ("PostgreSQL's log", fs::read_to_string(world.installation.postgres().service().log()).unwrap()),
    ]
}

#[tokio::test]
async fn secrets_are_in_no_log_metric_event_status_or_row() {
    let receiver = TraceReceiver::start().await;
    let world = World::with("alerts-canaries", loud(&receiver)).await;
    let admins = json!([
        {"email": "a@canaries.example", "name": "Ada"},
        {"email": "b@canaries.example", "credential": "OneTimePassword"},
    ]);
    world.apply("canaries", json!({"admins": admins})).await;
    world.fleet.ready("canaries").await;
    let mut secrets = canaries(&world).await;
    Wait::until("the spans of the provisioning are exported")
        .is_true(async || workflow_span(&receiver.spans(), "canaries").is_some())
        .await;
    assert_provisioning(&receiver.spans(), world.name, "canaries");

    // Paths of errors and repairs: another client's password, a suspension, a server that is down, a wrong login.
    let connection = Api::<Secret>::namespaced(world.fleet.client.clone(), world.name);
    let wrong = json!({"stringData": {"password": "canary-of-another-client"}});
    connection.patch("canaries-db", &PatchParams::default(), &Patch::Merge(wrong)).await.unwrap();
    world.event("canaries", "PasswordReplaced", "").await;
    world.fleet.ready("canaries").await;
    secrets.insert("another client's".to_owned(), "canary-of-another-client".to_owned());
    world.apply("canaries", json!({"admins": admins, "state": "Suspended", "stateReason": "a test"})).await;
    world.fleet.reason("canaries", "Ready", "Suspended").await;
    world.installation.postgres().stop(Stop::Fast).await.unwrap();
    world.installation.postgres().start_again().await.unwrap();
    world.apply("canaries", json!({"admins": admins})).await;
    world.fleet.reason("canaries", "Ready", "Active").await;
    world.fleet.login("canaries").await.unwrap();
    secrets.extend(canaries(&world).await.into_iter().map(|(what, value)| (format!("{what}, later"), value)));

    let read = readable(&world, &receiver).await;
    // What is searched is what was meant.
    for (place, must_have) in [
        ("the operator's log", "TRACE"),
        ("the spans", "ALTER ROLE"),
        ("the metrics", "tenantry_active_tenants "),
        ("the metrics", r#"tenantry_trace_spans_total{outcome="exported"}"#),
        ("the cluster's objects", "PasswordReplaced"),
        ("the registry", "canaries"),
        ("the tenant's database", "a@canaries.example"),
        ("PostgreSQL's log", "SCRAM-SHA-256"),
    ] {
        let (_, text) = read.iter().find(|(name, _)| *name == place).unwrap();
        assert!(text.contains(must_have), "{place} has no {must_have}");
    }
    assert!(secrets.len() > 10, "{:?}", secrets.keys());
    let mut found = Vec::new();
    for (place, text) in &read {
        for (what, secret) in &secrets {
            if let Some(at) = text.find(secret.as_str()) {
                let line = text[..at].rsplit('\n').next().unwrap_or_default();
                let start = line.char_indices().rev().nth(300).map_or(0, |(at, _)| at);
                found.push(format!("{what} is in {place}: …{}", &line[start..]));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
