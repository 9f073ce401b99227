//! What `AccessEnforced` says is what PostgreSQL would do: rights inside the database, a verification that failed, and a cut
//! that was made although another step fails.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::{
    ANNOTATION_RECONCILE_REQUESTED_AT,
    conditions::{ACCESS_ENFORCED, CREDENTIALS_PUBLISHED, READY, find_condition},
    tenant::Tenant,
    tenant_status::{Access, StepState},
};
use tenantry_test_support::{Options, World};

/// Keeps a new plan from being recorded for longer than the time between two drift checks: one of them runs in the meantime.
const SLOW_PLAN: &str = "\
CREATE FUNCTION slow_plan() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(4); RETURN NEW; END';
CREATE TRIGGER slow_plan BEFORE UPDATE OF entitlements ON tenants FOR EACH ROW EXECUTE FUNCTION slow_plan()";

const WRITE: &str = "INSERT INTO users (email) VALUES (gen_random_uuid() || '@enforcement.example')";

/// What the tests ask for: more than a day.
const TWO_DAYS: i64 = 2 * 24 * 3600;

async fn patch(world: &World, name: &str, patch: Value) {
    let tenants = &world.fleet.tenants;
    tenants.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Requests a reconcile by annotation.
async fn request(world: &World, name: &str, value: &str) {
    patch(world, name, json!({"metadata": {"annotations": {ANNOTATION_RECONCILE_REQUESTED_AT: value}}}))
        .await;
}

fn read_only() -> Value {
    json!({"state": "Suspended", "stateReason": "late", "suspension": {"mode": "ReadOnly", "trigger": "PaymentFailure"}})
}

/// The status and the message of a condition.
fn condition(tenant: &Tenant, type_: &str) -> (String, String) {
    let status = tenant.status.as_ref().unwrap();
    let found = find_condition(&status.conditions, type_).unwrap();
    (found.status.clone(), found.message.clone())
}

async fn may_write(world: &World, name: &str) -> bool {
    match world.fleet.login(name).await {
        Ok(mut session) => session.execute(WRITE).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn rights_in_the_database_are_part_of_what_is_enforced() {
    // A sample of usage has a session in the database too, which would repair what a test needs for a moment.
    let arguments = vec!["--usage-interval=3600".to_owned()];
    let world = World::with("enforced-rights", Options { arguments, ..Options::default() }).await;
    for name in ["acme", "daily"] {
        world.apply(name, json!({})).await;
        world.fleet.ready(name).await;
    }
    let mut superuser = world.superuser("tenant_acme").await;
    // Before the suspension: found when access is narrowed.
    superuser.execute("GRANT INSERT ON users TO tenantry_ro, PUBLIC").await.unwrap();
    world.apply("acme", read_only()).await;
    world.fleet.access("acme", Access::ReadOnly).await;
    world.event("acme", "DriftRepaired", "tenantry_ro had INSERT on table public.users").await;
    assert!(!may_write(&world, "acme").await);

    // Another owner's object: named, and not called enforced.
    let diary = "CREATE TABLE diary (a int); GRANT ALL ON diary TO PUBLIC";
    superuser.execute(diary).await.unwrap();
    request(&world, "acme", "1").await;
    let tenant = world.fleet.reason("acme", ACCESS_ENFORCED, "MissingRight").await;
    let (status, message) = condition(&tenant, ACCESS_ENFORCED);
    assert_eq!(status, "False");
    assert!(message.contains("which postgres owns"), "{message}");
    assert_eq!(tenant.status.unwrap().access, Some(Access::Unknown));
    superuser.execute("REVOKE ALL ON diary FROM PUBLIC").await.unwrap();
    request(&world, "acme", "2").await;
    // What has this name was reconciled after the request, which is done then.
    let mut after = read_only();
    after["displayName"] = "After the request".into();
    world.apply("acme", after).await;
    world.fleet.access("acme", Access::ReadOnly).await;

    // Found by the session of another step: what was open with that right is ended before the level counts again, also if the
    // drift check looks at the tenant before the step is done.
    world.superuser("tenantry_system").await.execute(SLOW_PLAN).await.unwrap();
    superuser.execute("GRANT INSERT ON users TO PUBLIC").await.unwrap();
    let mut open = world.fleet.login("acme").await.unwrap();
    open.execute(WRITE).await.unwrap();
    let mut other_plan = read_only();
    other_plan["plan"] = "professional".into();
    world.apply("acme", other_plan).await;
    world.fleet.access("acme", Access::ReadOnly).await;
    assert!(open.execute("SELECT 1").await.is_err(), "a session has the rights of before");
    assert!(!may_write(&world, "acme").await);

    // Without a request: once a day.
    let mut superuser = world.superuser("tenant_daily").await;
    superuser.execute("GRANT TRUNCATE ON settings TO tenantry_rw").await.unwrap();
    superuser.execute("ALTER ROLE tenant_daily_app PASSWORD 'guessed'").await.unwrap();
    assert!(world.fleet.login("daily").await.is_err());
    world.set_clock_ahead(TWO_DAYS);
    world.event("daily", "DriftRepaired", "tenantry_rw had TRUNCATE on table public.settings").await;
    world.until("the published password works", async || world.fleet.login("daily").await.is_ok()).await;
}

#[tokio::test]
async fn verification_that_failed_stays_open_until_it_succeeds() {
    let world = World::new("enforced-login").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    let mut superuser = world.superuser("postgres").await;

    // The tenant changes its own password: a requested reconcile sees it.
    let mut session = world.fleet.login("acme").await.unwrap();
    session.execute("ALTER ROLE CURRENT_USER PASSWORD 'its-own'").await.unwrap();
    assert!(world.fleet.login("acme").await.is_err());
    request(&world, "acme", "1").await;
    world.event("acme", "DriftRepaired", "another password than its Secret").await;
    world.fleet.ready("acme").await;
    assert!(may_write(&world, "acme").await);

    // What only a superuser can reset keeps the login out. A new Secret does not make that true.
    let out = "ALTER ROLE tenant_acme_app SET session_preload_libraries = 'none'";
    superuser.execute(out).await.unwrap();
    world.fleet.secrets.delete("acme-db", &Default::default()).await.unwrap();
    let failed = |attempts: i32| {
        move |tenant: Option<&Tenant>| {
            let workflow = tenant.and_then(|tenant| tenant.status.as_ref()?.workflow.as_ref());
            workflow.is_some_and(|workflow| {
                let verify = workflow.steps.iter().find(|step| step.name == "Verify");
                workflow.attempt >= attempts && verify.is_some_and(|step| step.state == StepState::Failed)
            })
        }
    };
    world.fleet.wait("acme", "not verified", failed(1)).await;
    request(&world, "acme", "2").await;
    let tenant = world.fleet.wait("acme", "not verified the second time", failed(2)).await;
    assert_eq!(condition(&tenant, ACCESS_ENFORCED).0, "False");
    assert_eq!(condition(&tenant, READY).0, "False");
    superuser.execute("ALTER ROLE tenant_acme_app RESET session_preload_libraries").await.unwrap();
    request(&world, "acme", "3").await;
    world.fleet.ready("acme").await;
    assert!(may_write(&world, "acme").await);
}

#[tokio::test]
async fn cut_that_was_made_is_shown_whatever_fails_after_it() {
    let world = World::new("enforced-cut").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    let immutable = Patch::Merge(json!({"immutable": true}));
    world.fleet.secrets.patch("acme-db", &PatchParams::default(), &immutable).await.unwrap();
    // The Secret has the plan's limits: it cannot be written any more.
    let mut blocked = json!({"plan": "professional", "state": "Suspended", "stateReason": "incident"});
    blocked["suspension"] = json!({"mode": "Blocked", "trigger": "SecurityIncident"});
    world.apply("acme", blocked).await;
    let tenant = world.fleet.reason("acme", CREDENTIALS_PUBLISHED, "RequestRefused").await;
    assert_eq!(tenant.status.as_ref().unwrap().access, Some(Access::Blocked));
    assert_eq!(condition(&tenant, ACCESS_ENFORCED).0, "True");
    assert_eq!(condition(&tenant, READY).0, "False");

    // A hold of that time is in force, and access regained by hand is taken back although the Secret fails still.
    world.fleet.apply_hold("fraud", "acme", json!({"mode": "Blocked"})).await;
    world.fleet.hold_reason("fraud", "Verified").await;
    let mut superuser = world.superuser("postgres").await;
    let regained = "SET ROLE tenantry_admin; BEGIN;
        GRANT tenantry_rw TO tenant_acme_app; ALTER ROLE tenant_acme_app LOGIN;
        GRANT CONNECT ON DATABASE tenant_acme TO tenant_acme_app";
    superuser.execute(regained).await.unwrap();
    // Before the operator can see it.
    let may_write = "SELECT rolcanlogin AND has_database_privilege(oid, 'tenant_acme', 'CONNECT')
        AND pg_has_role(oid, 'tenantry_rw', 'USAGE') FROM pg_roles WHERE rolname = 'tenant_acme_app'";
    assert!(sqlx::query_scalar::<_, bool>(may_write).fetch_one(&mut superuser).await.unwrap());
    superuser.execute("COMMIT").await.unwrap();
    world.until("access is taken back", async || world.fleet.login("acme").await.is_err()).await;
    let tenant = world.fleet.tenants.get("acme").await.unwrap();
    assert_eq!(tenant.status.unwrap().access, Some(Access::Blocked));
}
