//! Every cause has a reason of its own, which is removed with the cause.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tenantry::{
    api::{
        conditions::{READY, REGISTERED, STALLED, find_condition},
        database_server::DatabaseServer,
        plan::TenantPlan,
        tenant::Tenant,
    },
    postgres::{
        install::setup::{SetupOptions, server_setup},
        tenant::credentials::SecretText,
    },
};
use tenantry_dev::{Postgres, PostgresOptions};
use tenantry_test_support::{
    Fleet,
    shared_operator::{self, database_exists},
};

#[tokio::test]
async fn plan_not_found_is_reported_until_plan_exists() {
    let fleet = Fleet::new("wait-plan").await;
    fleet.apply("wait-plan", json!({"plan": "later-plan"})).await;
    let tenant = fleet.reason("wait-plan", READY, "PlanNotFound").await;
    assert!(find_condition(&tenant.status.unwrap().conditions, STALLED).is_none());
    let plan = json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan", "metadata": {"name": "later-plan"},
        "spec": {"limits": {"users": 5}}});
    let plans = Api::<TenantPlan>::all(fleet.client.clone());
    plans.patch("later-plan", &PatchParams::apply("tests"), &Patch::Apply(plan)).await.unwrap();
    fleet.ready("wait-plan").await;
}

#[tokio::test]
async fn server_not_found_and_server_errors_are_reported() {
    let fleet = Fleet::new("wait-server").await;
    fleet.apply("wait-server", json!({"server": "later-server"})).await;
    fleet.reason("wait-server", READY, "ServerNotFound").await;
    let servers = Api::<DatabaseServer>::all(fleet.client.clone());
    let server = |secret: &str, port: i32| {
        json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "DatabaseServer", "metadata": {"name": "later-server"},
            "spec": {"engine": "PostgreSQL", "host": "127.0.0.1", "port": port, "adminSecretRef": {"name": secret},
                "tls": {"mode": "Disable"}, "prefix": "later_"}})
    };
    // A PostgreSQL of its own: another test counts the sessions of `default`.
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let port = i32::from(postgres.port());
    let options = SetupOptions {
        operator: "later_operator".into(),
        password: SecretText::new("later-password"),
        system_database: None,
    };
    let refused =
        server_setup(postgres.admin_url("postgres").parse().unwrap(), &options).await.unwrap().refused;
    assert!(refused.is_empty(), "{refused:?}");
    let params = PatchParams::apply("tests").force();
    servers.patch("later-server", &params, &Patch::Apply(server("no-such-secret", port))).await.unwrap();
    fleet
        .wait("wait-server", "reporting its server's error", |tenant: Option<&Tenant>| {
            let status = tenant.and_then(|tenant| tenant.status.as_ref());
            let ready = status.and_then(|status| find_condition(&status.conditions, READY));
            ready.is_some_and(|ready| {
                ready.reason == "ServerNotReady" && ready.message.contains("no-such-secret")
            })
        })
        .await;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "later-admin"},
        "stringData": {"username": "later_operator", "password": "later\tpassword"},
    }))
    .unwrap();
    let secrets = Api::<Secret>::namespaced(fleet.client.clone(), "tenantry-system");
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    servers.patch("later-server", &params, &Patch::Apply(server("later-admin", port))).await.unwrap();
    fleet
        .wait("wait-server", "reporting the control character", |tenant: Option<&Tenant>| {
            let status = tenant.and_then(|tenant| tenant.status.as_ref());
            let ready = status.and_then(|status| find_condition(&status.conditions, READY));
            ready.is_some_and(|ready| {
                ["Secret \"later-admin\"", "key \"password\" has a line break or another control character"]
                    .iter()
                    .all(|part| ready.message.contains(part))
            })
        })
        .await;
    let password = json!({"stringData": {"password": "later-password"}});
    secrets.patch("later-admin", &PatchParams::default(), &Patch::Merge(password)).await.unwrap();
    let status = fleet.ready("wait-server").await.status.unwrap();
    assert_eq!(status.database.as_deref(), Some("later_wait_server"));

    // The finalizer of a server is released after that of its last tenant.
    let uid = servers.get("later-server").await.unwrap().metadata.uid.unwrap();
    servers.delete("later-server", &DeleteParams::default()).await.unwrap();
    assert!(servers.get_opt("later-server").await.unwrap().is_some());
    fleet.delete("wait-server").await;
    let gone = kube::runtime::conditions::is_deleted(&uid);
    tokio::time::timeout(
        std::time::Duration::from_secs(120),
        kube::runtime::wait::await_condition(servers, "later-server", gone),
    )
    .await
    .expect("the server is released after its last tenant")
    .unwrap();
}

#[tokio::test]
async fn settings_over_64_kib_are_refused_by_a_condition() {
    let fleet = Fleet::new("large-settings").await;
    fleet.apply("large-settings", json!({"settings": {"a": "x".repeat(70_000)}})).await;
    fleet.reason("large-settings", READY, "SettingsTooLarge").await;
    fleet.apply("large-settings", json!({"settings": {"a": "x"}})).await;
    fleet.ready("large-settings").await;
}

#[tokio::test]
async fn slug_belongs_to_one_tenant_and_loser_changes_nothing() {
    let winner = Fleet::new("slug-winner").await;
    let loser = Fleet::new("slug-loser").await;
    winner.apply("contested", json!({})).await;
    winner.ready("contested").await;
    loser.apply("other", json!({"slug": "contested"})).await;
    let tenant = loser.reason("other", REGISTERED, "SlugTaken").await;
    let status = tenant.status.unwrap();
    assert!(find_condition(&status.conditions, STALLED).is_some());
    assert!(find_condition(&status.conditions, READY).unwrap().message.contains("slug-winner/contested"));

    // The loser is deleted: the winner's database is not changed.
    loser.delete("other").await;
    assert!(database_exists("tenant_contested").await);
    winner.login("contested").await.unwrap();

    // The winner is deleted: the tenant that waits for the slug gets it.
    loser.apply("other", json!({"slug": "contested"})).await;
    loser.reason("other", REGISTERED, "SlugTaken").await;
    winner.delete("contested").await;
    loser.ready("other").await;
}

#[tokio::test]
async fn foreign_secret_is_not_changed() {
    let fleet = Fleet::new("secret-conflict").await;
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "conflict-db"}, "stringData": {"mine": "yes"}}))
            .unwrap();
    let secret = fleet.secrets.create(&PostParams::default(), &secret).await.unwrap();
    fleet.apply("conflict", json!({})).await;
    fleet.reason("conflict", READY, "SecretConflict").await;
    let now = fleet.secrets.get("conflict-db").await.unwrap();
    assert_eq!(now.metadata.resource_version, secret.metadata.resource_version);
    fleet.secrets.delete("conflict-db", &DeleteParams::default()).await.unwrap();
    fleet.ready("conflict").await;
}

#[tokio::test]
async fn foreign_database_is_a_conflict_and_not_changed() {
    let fleet = Fleet::new("foreign-database").await;
    let mut superuser = shared_operator::superuser("postgres").await;
    sqlx::raw_sql("CREATE DATABASE tenant_foreign_db").execute(&mut superuser).await.unwrap();
    fleet.apply("foreign-db", json!({})).await;
    fleet.reason("foreign-db", READY, "Conflict").await;
    fleet.delete("foreign-db").await;
    assert!(database_exists("tenant_foreign_db").await);
}
