//! `spec.adopt.keepLogin`: the application's login of before works after the adoption, until its date.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::runtime::wait::Condition;
use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::{tenant::Tenant, tenant_status::Access};
use tenantry_test_support::{World, is_ready};

use super::adopting::{allow, application, assert_given_back, confirmed, keeping, old_login, stuck, unblock};

fn suspended(database: &str, confirm: &str, until: &str, state: &str) -> Value {
    let mut spec = keeping(confirmed(database, confirm), database, until);
    (spec["state"], spec["stateReason"]) = (state.into(), "a test".into());
    spec["suspension"] = json!({"mode": "ReadOnly"});
    spec
}

const UNTOUCHED: &str = "SELECT shobj_description(oid, 'pg_authid') IS NULL AND rolconnlimit = -1 FROM pg_roles WHERE rolname = $1";

fn in_hours(hours: i64) -> String {
    (Timestamp::now() + SignedDuration::from_hours(hours)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[tokio::test]
async fn kept_login_works_until_its_date() {
    let world = World::new("kept-login").await;
    allow(&world, json!(["kept_*"])).await;
    let until = &in_hours(1);

    // Before it is confirmed, nothing of the role is changed.
    let (name, database) = ("kept-shop", "kept_shop");
    application(&world, database).await;
    world.apply(name, keeping(confirmed(database, ""), database, until)).await;
    let confirm = unblock(&world, name, database).await;
    assert!(world.holds("postgres", UNTOUCHED, "kept_shop_owner").await);

    world.apply(name, suspended(database, &confirm, until, "Active")).await;
    let tenant = world.fleet.ready(name).await;
    let credentials = tenant.status.unwrap().credentials.unwrap();
    assert_eq!(credentials.previous_login.as_deref(), Some("kept_shop_owner"));
    assert_eq!(credentials.previous_valid_until.unwrap().0.to_string(), *until);
    let mut old = old_login(&world, database).await.unwrap();
    old.execute("INSERT INTO customers (name) VALUES ('c'); SELECT twice(2)").await.unwrap();
    assert!(old.execute("ALTER TABLE customers ADD COLUMN x int").await.is_err());

    world.apply(name, suspended(database, &confirm, until, "Suspended")).await;
    world.fleet.access(name, Access::ReadOnly).await;
    assert!(old.execute("SELECT 1").await.is_err(), "its session ended");
    let mut old = old_login(&world, database).await.unwrap();
    assert!(old.execute("DELETE FROM customers").await.is_err());
    world.apply(name, suspended(database, &confirm, until, "Active")).await;
    world.fleet.access(name, Access::ReadWrite).await;
    let mut old = old_login(&world, database).await.unwrap();
    old.execute("DELETE FROM customers WHERE name = 'c'").await.unwrap();

    world.set_clock_ahead(3600);
    let text = "the previous login kept_shop_owner is ended with";
    world.event(name, "PreviousLoginInUse", text).await;
    assert!(old_login(&world, database).await.is_err());
    let left = "SELECT NOT rolcanlogin AND shobj_description(oid, 'pg_authid') IS NULL FROM pg_roles WHERE rolname = $1";
    assert!(world.holds("postgres", left, "kept_shop_owner").await);
    let ready = is_ready();
    world
        .fleet
        .wait(name, "without a previous login", move |tenant: Option<&Tenant>| {
            ready.matches_object(tenant)
                && tenant
                    .and_then(|tenant| tenant.status.as_ref()?.credentials.as_ref())
                    .is_some_and(|found| found.previous_login.is_none())
        })
        .await;
    world.fleet.login(name).await.unwrap().execute("SELECT * FROM customers").await.unwrap();
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn undo_leaves_the_role_as_it_was() {
    let world = World::new("kept-login-undo").await;
    allow(&world, json!(["kept_*"])).await;
    let (name, database) = ("kept-undo", "kept_undo");
    application(&world, database).await;
    let until = &in_hours(48);
    world.apply(name, keeping(confirmed(database, ""), database, until)).await;
    let confirm = unblock(&world, name, database).await;
    stuck(&world, name, keeping(confirmed(database, &confirm), database, until)).await;
    old_login(&world, database).await.unwrap();
    world.fleet.delete(name).await;
    assert_given_back(&world, name, database).await;
    assert!(world.holds("postgres", UNTOUCHED, "kept_undo_owner").await);
}
