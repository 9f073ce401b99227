//! From `kubectl apply` to Ready, and what exists then.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use sqlx::{Executor, Row};
use tenantry::api::{
    conditions::{READY, RECONCILING, STALLED, find_condition},
    tenant::Tenant,
    tenant_status::{Access, StepState, TenantState},
};
use tenantry_test_support::{
    Fleet,
    shared_operator::{self, ask, superuser},
};

#[tokio::test]
async fn new_tenant_becomes_ready_and_status_lists_its_steps() {
    let fleet = Fleet::new("provision-status").await;
    fleet.apply("prov-status", json!({})).await;
    let tenant = fleet.ready("prov-status").await;
    let status = tenant.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Active));
    assert_eq!(status.access, Some(Access::ReadWrite));
    assert_eq!(status.plan.as_deref(), Some("starter"));
    assert_eq!(status.server.as_deref(), Some("default"));
    assert_eq!(status.database.as_deref(), Some("tenant_prov_status"));
    assert_eq!(status.binding.unwrap().name, "prov-status-db");
    assert_eq!(status.observed_generation, tenant.metadata.generation);
    for type_ in [
        "Registered",
        "DatabaseReady",
        "MigrationsApplied",
        "Seeded",
        "CredentialsPublished",
        "AccessEnforced",
    ] {
        let condition =
            find_condition(&status.conditions, type_).unwrap_or_else(|| panic!("{type_} is missing"));
        assert_eq!(condition.status, "True", "{type_}: {}", condition.message);
        assert_eq!(condition.observed_generation, tenant.metadata.generation, "{type_}");
    }
    assert!(find_condition(&status.conditions, RECONCILING).is_none());
    assert!(find_condition(&status.conditions, STALLED).is_none());
    let modules: Vec<_> = status.modules.iter().map(|m| (m.name.as_str(), m.version == m.target)).collect();
    assert_eq!(modules, [("tenantry", true), ("core", true), ("identity", true), ("projects", true)]);
    let workflow = status.workflow.unwrap();
    assert_eq!(workflow.attempt, 1);
    assert!(workflow.finished_at.is_some());
    let steps: Vec<&str> = workflow.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(
        steps,
        [
            "ClaimFinalizer",
            "Register",
            "CreateRoles",
            "CreateDatabase",
            "ApplyMigrations",
            "Seed",
            "ApplyPlan",
            "PublishDatabase",
            "EnforceAccess",
            "PublishCredentials",
            "Verify",
            "Activate",
        ]
    );
    for step in &workflow.steps {
        assert_eq!((step.state, step.attempts), (StepState::Succeeded, 1), "{}", step.name);
        assert!(step.started_at.is_some() && step.finished_at.is_some(), "{}", step.name);
    }
    assert_eq!(tenant.metadata.finalizers.unwrap(), ["tenantry.dev/deprovision"]);
}

#[tokio::test]
async fn registry_and_activity_log_record_the_tenant() {
    let fleet = Fleet::new("provision-registry").await;
    fleet.apply("prov-reg", json!({"settings": {"theme": "dark"}})).await;
    let status = fleet.ready("prov-reg").await.status.unwrap();
    let id = status.tenant_id.unwrap();
    let mut registry = superuser("tenantry_system").await;
    let row =
        sqlx::query("SELECT id::text, status, settings, access, server FROM tenants WHERE slug = 'prov-reg'")
            .fetch_one(&mut registry)
            .await
            .unwrap();
    assert_eq!(row.get::<String, _>("id"), id);
    assert_eq!(row.get::<String, _>("status"), "active");
    assert_eq!(row.get::<String, _>("access"), "ReadWrite");
    assert_eq!(row.get::<serde_json::Value, _>("settings"), json!({"theme": "dark"}));
    let steps: i64 = ask(
        "tenantry_system",
        "SELECT count(*) FROM workflow_steps s JOIN workflows w ON w.id = s.workflow_id
         WHERE w.tenant_id = $1::uuid AND s.state = 'Succeeded' AND w.outcome = 'Succeeded'",
        &id,
    )
    .await;
    assert_eq!(steps, 12);
    let logged: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT action, correlation_id::text FROM activity WHERE tenant_id = $1::uuid ORDER BY position",
    )
    .bind(&id)
    .fetch_all(&mut registry)
    .await
    .unwrap();
    let actions: Vec<&str> = logged.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(actions, ["Created", "Requested", "Registered", "Started", "Activated", "Completed"]);
    let workflow = status.workflow.unwrap().id;
    assert!(logged.iter().all(|(_, by)| by.as_deref() == Some(workflow.as_str())), "{workflow}: {logged:?}");
}

#[tokio::test]
async fn step_that_fails_at_every_attempt_is_logged_once() {
    let fleet = Fleet::new("provision-failed").await;
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "prov-fail-db"}, "stringData": {"mine": "yes"}}))
            .unwrap();
    fleet.secrets.create(&PostParams::default(), &secret).await.unwrap();
    fleet.apply("prov-fail", json!({})).await;
    fleet.reason("prov-fail", READY, "SecretConflict").await;
    // A change of the spec leads to an attempt at once.
    fleet.apply("prov-fail", json!({"displayName": "Again"})).await;
    let failed_again = |tenant: Option<&Tenant>| {
        let workflow = tenant.and_then(|tenant| tenant.status.as_ref()?.workflow.as_ref());
        workflow.is_some_and(|workflow| {
            workflow.attempt > 1 && workflow.steps.iter().any(|step| step.state == StepState::Failed)
        })
    };
    fleet.wait("prov-fail", "failed again", failed_again).await;
    fleet.secrets.delete("prov-fail-db", &DeleteParams::default()).await.unwrap();
    let workflow = fleet.ready("prov-fail").await.status.unwrap().workflow.unwrap().id;
    let logged: Vec<(String, Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT action, details->>'step', details->>'reason' FROM tenant_activity
         WHERE slug = 'prov-fail' AND correlation_id = $1::uuid AND action NOT IN ('Failed', 'Retried') ORDER BY id",
    )
    .bind(&workflow)
    .fetch_all(&mut superuser("tenantry_system").await)
    .await
    .unwrap();
    let actions: Vec<&str> = logged.iter().map(|(action, ..)| action.as_str()).collect();
    assert_eq!(
        actions,
        ["Created", "Requested", "Registered", "Started", "StepFailed", "Updated", "Activated", "Completed"]
    );
    let failure = (logged[4].1.as_deref(), logged[4].2.as_deref());
    assert_eq!(failure, (Some("PublishCredentials"), Some("SecretConflict")));
}

#[tokio::test]
async fn tenant_credentials_work_in_its_own_database_only() {
    let fleet = Fleet::new("provision-login").await;
    fleet.apply("prov-login", json!({"settings": {"theme": "dark"}, "demoData": true})).await;
    fleet.apply("prov-other", json!({})).await;
    fleet.ready("prov-login").await;
    fleet.ready("prov-other").await;
    let mut session = fleet.login("prov-login").await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('new@prov.example')").await.unwrap();
    let theme: serde_json::Value = sqlx::query_scalar("SELECT value FROM settings WHERE key = 'theme'")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(theme, json!("dark"));
    let demo: i64 =
        sqlx::query_scalar("SELECT count(*) FROM users WHERE is_demo").fetch_one(&mut session).await.unwrap();
    assert_eq!(demo, 2);
    for refused in [
        "CREATE TABLE mine (a int)",
        "CREATE TEMP TABLE mine (a int)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SELECT lo_create(0)",
        "TRUNCATE users",
        "DELETE FROM tenantry.migrations",
        "INSERT INTO tenantry.seeds (name) VALUES ('x')",
        "SET ROLE tenantry_owner",
        "ALTER DATABASE tenant_prov_login CONNECTION LIMIT 5",
    ] {
        let error = session.execute(refused).await.expect_err(refused);
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{refused}: {error}");
    }
    let uri = fleet.secret("prov-login-db", "uri").await;
    for elsewhere in ["tenant_prov_other", "tenantry_system", "postgres", "template1"] {
        let there = uri.replace("/tenant_prov_login?", &format!("/{elsewhere}?"));
        assert_ne!(there, uri);
        let error = <sqlx::PgConnection as sqlx::Connection>::connect(&there).await.expect_err(elsewhere);
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{elsewhere}: {error}");
    }
}

#[tokio::test]
async fn connection_secret_follows_service_binding_specification() {
    let fleet = Fleet::new("provision-secret").await;
    fleet.apply("prov-secret", json!({"connectionSecretName": "elsewhere"})).await;
    fleet.ready("prov-secret").await;
    let secret = fleet.secrets.get("elsewhere").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("servicebinding.io/postgresql"));
    assert!(secret.metadata.owner_references.is_none());
    let keys: Vec<String> = secret.data.unwrap().into_keys().collect();
    assert_eq!(
        keys,
        [
            "certificates",
            "database",
            "dbname",
            // The entitlements, for gateways.
            "features",
            "host",
            "jdbc-uri",
            "jdbc-uri-mounted",
            "limit.apiCallsPer15Minutes",
            "limit.connections",
            "limit.projects",
            "limit.storageBytes",
            "limit.tempFileBytes",
            "limit.users",
            "password",
            "pgpass",
            "plan",
            "port",
            "provider",
            // The versions of its modules.
            "schema.core",
            "schema.identity",
            "schema.projects",
            "schema.tenantry",
            "sslmode",
            "type",
            "uri",
            "uri-mounted",
            "username",
        ]
    );
    // The page has them all, and no other.
    let page = include_str!("../../docs/credentials.md");
    let table = page.split("\n## Keys\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let named = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let mut named: Vec<&str> =
        named.flat_map(|cell| cell.split(", ").map(|key| key.trim_matches('`'))).collect();
    let mut families: Vec<String> = keys
        .into_iter()
        .map(|key| match key.split_once('.') {
            Some(("limit", _)) => "limit.<name>".to_owned(),
            Some(("schema", _)) => "schema.<module>".to_owned(),
            _ => key,
        })
        .collect();
    families.dedup();
    // Only of a module in another schema than public.
    families.push("module-schema.<module>".to_owned());
    named.sort_unstable();
    families.sort_unstable();
    assert_eq!(named, families, "docs/credentials.md");
}

#[tokio::test]
async fn admins_get_one_time_credentials_once() {
    let fleet = Fleet::new("provision-admins").await;
    let admins = json!({"admins": [
        {"email": "ada@adm.example", "name": "Ada"},
        {"email": "bob@adm.example", "credential": "OneTimePassword"},
    ]});
    fleet.apply("prov-admins", admins).await;
    fleet.ready("prov-admins").await;
    let read = async || -> serde_json::Value {
        serde_json::from_str(&fleet.secret("prov-admins-admin", "admins.json").await).unwrap()
    };
    let first = read().await;
    assert_eq!(first.as_array().unwrap().len(), 2);
    let mut session = fleet.login("prov-admins").await.unwrap();
    let hashes: Vec<(String, String)> =
        sqlx::query_as("SELECT kind, secret_hash FROM user_credentials ORDER BY kind")
            .fetch_all(&mut session)
            .await
            .unwrap();
    let plain: Vec<&str> = first.as_array().unwrap().iter().map(|e| e["secret"].as_str().unwrap()).collect();
    assert!(hashes.iter().all(|(_, hash)| plain.iter().all(|plain| !hash.contains(plain))));
    assert!(hashes.iter().any(|(kind, hash)| kind == "one_time_password" && hash.starts_with("$argon2id$")));

    // A third one; the credentials of the first two do not change.
    let admins = json!({"admins": [
        {"email": "ada@adm.example", "name": "Ada"},
        {"email": "bob@adm.example", "credential": "OneTimePassword"},
        {"email": "eve@adm.example"},
    ]});
    fleet.apply("prov-admins", admins).await;
    fleet.ready("prov-admins").await;
    let second = read().await;
    assert_eq!(second.as_array().unwrap().len(), 3);
    assert_eq!(second[0], first[0]);
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
    assert_eq!(users, 3);

    // One is removed: the row stays, the open token is revoked.
    fleet.apply("prov-admins", json!({"admins": [{"email": "ada@adm.example", "name": "Ada"}]})).await;
    fleet.ready("prov-admins").await;
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM user_credentials c JOIN users u ON u.id = c.user_id
         WHERE u.email <> 'ada@adm.example' AND c.revoked_at IS NULL",
    )
    .fetch_one(&mut session)
    .await
    .unwrap();
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
    assert_eq!((open, users), (0, 3));
}

#[tokio::test]
async fn deleted_secret_gets_a_new_password() {
    let fleet = Fleet::new("provision-lost").await;
    fleet.apply("prov-lost", json!({})).await;
    fleet.ready("prov-lost").await;
    let old = fleet.secret("prov-lost-db", "uri").await;
    fleet.secrets.delete("prov-lost-db", &Default::default()).await.unwrap();
    let appeared = |secret: Option<&k8s_openapi::api::core::v1::Secret>| secret.is_some();
    fleet.until("the Secret is there again").object(&fleet.secrets, "prov-lost-db", appeared).await;
    fleet
        .wait("prov-lost", "repaired", |tenant: Option<&tenantry::api::tenant::Tenant>| {
            let workflow = tenant.and_then(|t| t.status.as_ref()).and_then(|s| s.workflow.as_ref());
            workflow.is_some_and(|w| w.kind.as_str() == "Repair" && w.finished_at.is_some())
        })
        .await;
    assert_ne!(fleet.secret("prov-lost-db", "uri").await, old);
    fleet.login("prov-lost").await.unwrap();
    let error = <sqlx::PgConnection as sqlx::Connection>::connect(&old).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "28P01");
}

#[tokio::test]
async fn settings_follow_spec_and_keep_those_of_the_application() {
    let fleet = Fleet::new("provision-settings").await;
    fleet.apply("prov-set", json!({"settings": {"theme": "dark", "beta": true}})).await;
    fleet.ready("prov-set").await;
    let mut session = fleet.login("prov-set").await.unwrap();
    session.execute("INSERT INTO settings (key, value) VALUES ('own', '1')").await.unwrap();
    fleet.apply("prov-set", json!({"settings": {"theme": "light"}})).await;
    fleet.ready("prov-set").await;
    let settings: Vec<(String, serde_json::Value)> =
        sqlx::query_as("SELECT key, value FROM settings ORDER BY key").fetch_all(&mut session).await.unwrap();
    assert_eq!(settings, [("own".into(), json!(1)), ("theme".into(), json!("light"))]);
}

#[tokio::test]
async fn paused_tenant_is_provisioned_when_resumed() {
    let fleet = Fleet::new("provision-paused").await;
    fleet.apply("prov-paused", json!({"paused": true})).await;
    let tenant = fleet.reason("prov-paused", READY, "Paused").await;
    assert!(tenant.metadata.finalizers.is_none());
    assert_eq!(shared_operator::registry_status("prov-paused").await, None);
    fleet.apply("prov-paused", json!({"paused": false})).await;
    fleet.ready("prov-paused").await;
}
