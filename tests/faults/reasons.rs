//! Every cause has its own reason; when the cause is removed, the workflow continues automatically at the failed step.

use futures::future::join_all;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;
use sqlx::{Executor, PgConnection};
use tenantry::api::{
    ANNOTATION_RECONCILE_REQUESTED_AT,
    conditions::{READY, RECONCILING, STALLED, find_condition},
    database_server::DatabaseServer,
    tenant::Tenant,
    tenant_status::{StepState, TenantState, WorkflowStatus},
};
use tenantry_dev::{Postgres, PostgresOptions, Stop};
use tenantry_test_support::{Fleet, Options, PATIENCE, Wait, World, login, prepared_postgres};

/// Without this role, no session can be opened in a tenant's database.
const WITHOUT_MIGRATOR: &str = "ALTER ROLE tenantry_migrator RENAME TO migrator_elsewhere";
const WITH_MIGRATOR: &str = "ALTER ROLE migrator_elsewhere RENAME TO tenantry_migrator";

/// The workflow in a status.
pub fn workflow(tenant: &Tenant) -> WorkflowStatus {
    tenant.status.as_ref().unwrap().workflow.clone().unwrap()
}

/// Waits until a tenant has failed at a step for a temporary reason.
pub async fn waits(fleet: &Fleet, name: &str, step: &str, reason: &'static str) -> Tenant {
    let tenant = fleet.reason(name, READY, reason).await;
    let conditions = &tenant.status.as_ref().unwrap().conditions;
    assert!(find_condition(conditions, RECONCILING).is_some(), "{conditions:#?}");
    assert_eq!(failed_step(&tenant), step);
    assert!(workflow(&tenant).next_attempt_at.is_some());
    tenant
}

/// Waits until a tenant that had failed is Ready: in the same workflow, and with only the failed step run
/// again.
pub async fn goes_on(fleet: &Fleet, name: &str, stopped: &Tenant) {
    let ready = fleet.ready(name).await;
    let (before, after) = (workflow(stopped), workflow(&ready));
    assert_eq!((&before.id, before.kind), (&after.id, after.kind));
    assert!(after.attempt > before.attempt && after.next_attempt_at.is_none(), "{after:#?}");
    // A cached object without the finalizer leads to a second claim, which changes nothing.
    for step in after.steps.iter().filter(|step| step.name != "ClaimFinalizer") {
        let again = step.attempts > 1;
        assert_eq!(again, step.name == failed_step(stopped), "{name}: {after:#?}\n{}", fleet.operator_log());
    }
}

fn failed_step(tenant: &Tenant) -> String {
    let steps = workflow(tenant).steps;
    steps
        .iter()
        .find(|step| step.state == StepState::Failed)
        .map(|step| step.name.clone())
        .unwrap_or_default()
}

/// Waits until the API server admits no Secret: a quota is in force a moment after it exists.
pub async fn admits_no_secret(world: &World) {
    let dry = ["create", "secret", "generic", "probe", "-n", world.name, "--dry-run=server"];
    let refused = async || world.kubectl().run(&dry).await.is_err();
    world.until("the quota is in force", refused).await;
}

/// Waits until the `Ready` of a `DatabaseServer` has a reason.
async fn server_reason(world: &World, server: &str, reason: &'static str) {
    let servers = Api::<DatabaseServer>::all(world.fleet.client.clone());
    let so = move |server: Option<&DatabaseServer>| {
        let status = server.and_then(|server| server.status.as_ref());
        status
            .and_then(|status| find_condition(&status.conditions, READY))
            .is_some_and(|ready| ready.reason == reason)
    };
    let waited = tokio::time::timeout(PATIENCE, await_condition(servers.clone(), server, so)).await;
    if waited.is_err() {
        let now = servers.get(server).await.unwrap().status;
        panic!("{server} is not {reason}: {now:#?}\n{}", world.fleet.operator_log());
    }
}

/// Changes a setting of a server while it runs, and waits until new sessions have it.
async fn set(server: &Postgres, change: &'static str, shown: (&'static str, &str)) {
    let mut session = server.connect("postgres").await.unwrap();
    session.execute(change).await.unwrap();
    session.execute("SELECT pg_reload_conf()").await.unwrap();
    let current = "SELECT current_setting($1)";
    Wait::until(change)
        .observe(async || {
            let mut fresh = server.connect("postgres").await.unwrap();
            let value: String =
                sqlx::query_scalar(current).bind(shown.0).fetch_one(&mut fresh).await.unwrap();
            if value == shown.1 { Ok(()) } else { Err(value) }
        })
        .await;
}

#[tokio::test]
async fn exhausted_quota_is_reported_until_raised() {
    let world = World::new("reasons-quota").await;
    let quota = |secrets: &str| {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": world.name},
            "spec": {"hard": {"count/secrets": secrets}}})
        .to_string()
    };
    world.kubectl().apply(&quota("0")).await.unwrap();
    admits_no_secret(&world).await;
    world.apply("acme", json!({})).await;
    let stopped = waits(&world.fleet, "acme", "PublishCredentials", "QuotaExceeded").await;
    world.kubectl().apply(&quota("9")).await.unwrap();
    goes_on(&world.fleet, "acme", &stopped).await;
}

#[tokio::test]
async fn policy_refusal_stalls_until_change_or_request() {
    let world = World::new("reasons-policy").await;
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": world.name},
            "spec": {
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}]},
                "validations": [{"expression": "false", "message": "no Secrets here"}]}},
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": world.name},
            "spec": {"policyName": world.name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector":
                {"matchLabels": {"kubernetes.io/metadata.name": world.name}}}}},
    ]});
    let refused = async || {
        let dry = ["create", "secret", "generic", "probe", "-n", world.name, "--dry-run=server"];
        world.kubectl().run(&dry).await.is_err()
    };
    world.kubectl().apply(&objects.to_string()).await.unwrap();
    world.until("the policy is in force", refused).await;
    let names = ["asked", "changed"];
    join_all(names.map(|name| world.apply(name, json!({})))).await;
    let stopped = join_all(names.map(async |name| {
        let tenant = world.fleet.reason(name, READY, "RequestRefused").await;
        let status = tenant.status.as_ref().unwrap();
        assert_eq!(status.state, Some(TenantState::Failed));
        let stalled = find_condition(&status.conditions, STALLED).unwrap();
        assert!(stalled.message.contains("no Secrets here"), "{stalled:?}");
        assert_eq!(failed_step(&tenant), "PublishCredentials");
        tenant
    }))
    .await;
    world.kubectl().run(&["delete", "validatingadmissionpolicybinding", world.name]).await.unwrap();
    world.until("the policy is lifted", async || !refused().await).await;

    let asked = json!({"metadata": {"annotations": {ANNOTATION_RECONCILE_REQUESTED_AT: "now"}}});
    world.fleet.tenants.patch("asked", &PatchParams::default(), &Patch::Merge(asked)).await.unwrap();
    world.apply("changed", json!({"displayName": "Changed"})).await;
    for (name, stopped) in names.iter().zip(&stopped) {
        let ready = world.fleet.ready(name).await;
        assert_eq!(workflow(&ready).id, workflow(stopped).id);
        let again = |step: &str| workflow(&ready).steps.iter().find(|s| s.name == step).unwrap().attempts;
        assert_eq!(
            (again("CreateDatabase"), again("Seed"), again("PublishCredentials")),
            (1, 1, 2),
            "{name}"
        );
    }
}

#[tokio::test]
async fn server_without_connections_is_reported_until_free() {
    let world = World::new("reasons-full").await;
    let few = ("max_connections".to_owned(), "16".to_owned());
    let options = PostgresOptions { settings: vec![few], ..PostgresOptions::default() };
    let server = prepared_postgres(options).await;
    world.apply_server("reasons-full-2", server.port()).await;
    let mut superuser = server.connect("postgres").await.unwrap();
    world.apply_on("reasons-full-2", "first").await;
    world.fleet.ready("first").await;

    // What one step needs fails that step.
    superuser.execute(WITHOUT_MIGRATOR).await.unwrap();
    world.apply_on("reasons-full-2", "acme").await;
    let stopped = waits(&world.fleet, "acme", "Seed", "SqlFailed").await;
    superuser.execute(WITH_MIGRATOR).await.unwrap();
    goes_on(&world.fleet, "acme", &stopped).await;

    // Without free connections, the server is not Ready. A session that the operator closes frees one, which is taken too.
    let mut sessions: Vec<PgConnection> = Vec::new();
    let mut take_all = async || {
        while let Ok(session) = server.connect("postgres").await {
            sessions.push(session);
        }
    };
    take_all().await;
    world.apply_on("reasons-full-2", "late").await;
    tokio::select! {
        () = server_reason(&world, "reasons-full-2", "TooManyConnections") => {}
        () = world.until("there is no free connection for ever", async || {
            take_all().await;
            false
        }) => unreachable!(),
    }
    drop(sessions);
    world.fleet.ready("late").await;
    server_reason(&world, "reasons-full-2", "Connected").await;
}

#[tokio::test]
async fn read_only_server_is_reported_and_tenant_can_be_deleted() {
    let world = World::new("reasons-read").await;
    let server = world.second_server("reasons-read-2").await;
    world.apply_on("reasons-read-2", "there").await;
    let there = world.fleet.ready("there").await;

    let setting = "default_transaction_read_only";
    set(&server, "ALTER SYSTEM SET default_transaction_read_only = on", (setting, "on")).await;
    world.apply_on("reasons-read-2", "acme").await;
    let stopped = waits(&world.fleet, "acme", "CreateRoles", "ReadOnlyServer").await;
    // Revoking access and dropping a database are still possible.
    world.fleet.tenants.delete("there", &DeleteParams::default()).await.unwrap();
    world.fleet.deleted("there", &there).await;
    set(&server, "ALTER SYSTEM RESET default_transaction_read_only", (setting, "off")).await;
    goes_on(&world.fleet, "acme", &stopped).await;

    // A standby is found by the check of the server, not by a step.
    server.stop(Stop::Fast).await.unwrap();
    std::fs::write(server.data().join("standby.signal"), "").unwrap();
    server.start_again().await.unwrap();
    world.apply_on("reasons-read-2", "later").await;
    server_reason(&world, "reasons-read-2", "ReadOnlyServer").await;
    world.fleet.reason("later", READY, "ServerNotReady").await;
    server.connect("postgres").await.unwrap().execute("SELECT pg_promote()").await.unwrap();
    world.fleet.ready("later").await;
}

#[tokio::test]
async fn broken_template_is_rebuilt_or_reported_and_never_cloned() {
    let world = World::new("reasons-template").await;
    let mut superuser = world.superuser("postgres").await;
    world.apply("first", json!({})).await;
    world.fleet.ready("first").await;
    let template = async |superuser: &mut PgConnection| -> (String, i64) {
        sqlx::query_as(
            "SELECT datname::text, oid::bigint FROM pg_database WHERE datname ~ '^tenantry_template_' AND datconnlimit = -1",
        )
        .fetch_one(superuser)
        .await
        .unwrap()
    };
    let (name, first) = template(&mut superuser).await;
    let execute = async |superuser: &mut PgConnection, what: &str| {
        superuser.execute(sqlx::AssertSqlSafe(what.replace('$', &name))).await.unwrap();
    };

    // A missing template is rebuilt at once.
    execute(&mut superuser, "DROP DATABASE $").await;
    world.apply("dropped", json!({})).await;
    let attempt = workflow(&world.fleet.ready("dropped").await).attempt;
    let (_, second) = template(&mut superuser).await;
    assert!(attempt == 1 && first != second, "{attempt} {first} {second}");

    // So is one whose drop was interrupted, which PostgreSQL marks like this.
    execute(&mut superuser, "UPDATE pg_database SET datconnlimit = -2 WHERE datname = '$'").await;
    world.apply("half-dropped", json!({})).await;
    let attempt = workflow(&world.fleet.ready("half-dropped").await).attempt;
    let (_, third) = template(&mut superuser).await;
    assert!(attempt == 1 && second != third, "{attempt} {second} {third}");

    // One without our ownership comment is not changed, and no tenant is cloned from it.
    execute(&mut superuser, "COMMENT ON DATABASE $ IS NULL").await;
    world.apply("unmarked", json!({})).await;
    let stopped = waits(&world.fleet, "unmarked", "CreateDatabase", "TemplateBroken").await;
    assert_eq!(template(&mut superuser).await.1, third);
    execute(&mut superuser, "DROP DATABASE $").await;
    goes_on(&world.fleet, "unmarked", &stopped).await;

    // With a broken template, a new leader serves existing tenants.
    execute(&mut superuser, "COMMENT ON DATABASE $ IS 'mine'").await;
    world.installation.operator().stop().await.unwrap();
    world.installation.operator().start().await.unwrap();
    world.fleet.delete("first").await;
    world
        .until("its access is revoked", async || {
            world.status("first").await.as_deref() == Some("deprovisioning")
        })
        .await;
}

#[tokio::test]
async fn blocked_drop_is_reported_until_unblocked() {
    let some = ("max_prepared_transactions".to_owned(), "5".to_owned());
    let options = PostgresOptions { settings: vec![some], ..PostgresOptions::default() };
    let world = World::with("reasons-drop", Options { postgres: options, ..Options::default() }).await;
    let names = ["prepared", "used"];
    for name in names {
        world.apply_on(world.name, name).await;
    }
    let tenants = join_all(names.map(|name| world.fleet.ready(name))).await;
    let mut prepared = world.superuser("tenant_prepared").await;
    for statement in ["BEGIN", "CREATE TABLE left_behind ()", "PREPARE TRANSACTION 'forgotten'"] {
        prepared.execute(statement).await.unwrap();
    }
    drop(prepared);
    let session = world.superuser("tenant_used").await;
    for name in names {
        world.fleet.tenants.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let causes = ["PreparedTransaction", "SessionsInTheWay"];
    let stopped =
        join_all(names.iter().zip(causes).map(|(name, why)| waits(&world.fleet, name, "DropDatabase", why)))
            .await;
    for (tenant, says) in stopped.iter().zip(["forgotten", "postgres (pid"]) {
        let ready = find_condition(&tenant.status.as_ref().unwrap().conditions, READY).unwrap();
        assert!(ready.message.contains(says), "{ready:?}");
        assert!(workflow(tenant).steps.iter().any(|step| step.name == "CutAccess" && step.attempts == 1));
    }
    drop(session);
    world.superuser("tenant_prepared").await.execute("ROLLBACK PREPARED 'forgotten'").await.unwrap();
    for ((name, tenant), stopped) in names.iter().zip(&tenants).zip(&stopped) {
        world.fleet.deleted(name, tenant).await;
        // The registry keeps the history: one workflow, access revoked once.
        let query = "SELECT count(*) = 1 AND bool_and(w.id::text = $1) FROM workflows w JOIN tenants t ON t.id = w.tenant_id
                     WHERE w.kind = 'Deprovision' AND t.id = (SELECT tenant_id FROM workflows WHERE id::text = $1)";
        assert!(world.holds("tenantry_system", query, &workflow(stopped).id).await, "{name}");
    }
}

#[tokio::test]
async fn unreachable_registry_interrupts_no_tenant() {
    let world = World::new("reasons-registry").await;
    let server = world.second_server("reasons-registry-2").await;
    world.apply_on("reasons-registry-2", "there").await;
    world.fleet.ready("there").await;
    let uri = world.fleet.secret("there-db", "uri").await;
    // Failed in the middle, at a step on the other server.
    let mut superuser = server.connect("postgres").await.unwrap();
    superuser.execute(WITHOUT_MIGRATOR).await.unwrap();
    world.apply_on("reasons-registry-2", "halfway").await;
    let stopped = waits(&world.fleet, "halfway", "Seed", "SqlFailed").await;

    world.installation.postgres().stop(Stop::Fast).await.unwrap();
    world.apply_on("reasons-registry-2", "later").await;
    for name in ["halfway", "later"] {
        world.fleet.reason(name, READY, "RegistryUnreachable").await;
    }
    login(&uri).await.unwrap();
    superuser.execute(WITH_MIGRATOR).await.unwrap();
    world.installation.postgres().start_again().await.unwrap();
    // In the same workflow. An attempt that began before the registry stopped may have failed at the step before Seed.
    let ready = world.fleet.ready("halfway").await;
    let (before, after) = (workflow(&stopped), workflow(&ready));
    assert_eq!((&before.id, before.kind), (&after.id, after.kind));
    assert!(after.attempt > before.attempt && after.next_attempt_at.is_none(), "{after:#?}");
    world.fleet.ready("later").await;
}
