//! A restriction of access waits for no other work: not for long migrations that have all slots, not for drops.

use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::api::DeleteParams;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tenantry::api::{
    conditions::{ACCESS_ENFORCED, find_condition},
    tenant::Tenant,
    tenant_status::Access,
};
use tenantry_test_support::{World, names};

/// On an idle machine it is less than three seconds (`make bench` measures it); without slots of its own, it is an hour. Not
/// longer than a deleted object waits whose access cannot be revoked.
const SOON: Duration = Duration::from_secs(60);

/// Lets every migration of a database that creates a table run for an hour.
const SLOW_MIGRATIONS: &str = "
    CREATE FUNCTION public.slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); END';
    CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.slow()";

fn is_blocked(tenant: Option<&Tenant>) -> bool {
    let Some(status) = tenant.and_then(|tenant| tenant.status.as_ref()) else { return false };
    let enforced = find_condition(&status.conditions, ACCESS_ENFORCED);
    status.access == Some(Access::Blocked) && enforced.is_some_and(|enforced| enforced.status == "True")
}

#[tokio::test]
async fn restriction_waits_for_no_migration_and_no_drop() {
    restrictions_beside("restrictions", 30).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn restriction_waits_for_none_of_a_hundred_drops() {
    restrictions_beside("restrictions-many", 100).await;
}

/// Restricts access beside sixteen migrations and this many drops that last long.
async fn restrictions_beside(name: &'static str, drops: usize) {
    let world = World::new(name).await;
    let fleet = &world.fleet;
    let number = i64::try_from(drops).unwrap();
    for (plan, modules) in [("lean", json!(["identity"])), ("wide", json!(["identity", "projects"]))] {
        fleet.apply_plan(&format!("{name}-{plan}"), json!({"limits": {}, "modules": modules})).await;
    }
    let (slow, gone) = (names("slow", 16), names("gone", drops));
    let bystanders = ["by-spec", "by-hold", "by-deletion", "by-waiting"];
    let lean = || json!({"plan": format!("{name}-lean"), "offboarding": {"gracePeriodSeconds": 0}});
    let all = || slow.iter().chain(&gone).map(String::as_str).chain(bystanders).chain(["by-hand"]);
    join_all(all().map(async |name| {
        let mut spec = lean();
        if name == "by-deletion" {
            spec["offboarding"]["gracePeriodSeconds"] = json!(86_400);
        }
        world.apply(name, spec).await
    }))
    .await;
    join_all(all().map(|name| fleet.ready(name))).await;
    let uris =
        join_all(bystanders.iter().map(async |name| fleet.secret(&format!("{name}-db"), "uri").await)).await;
    let mut open = join_all(bystanders.iter().map(async |name| fleet.login(name).await.unwrap())).await;

    let by_hand = fleet.secret("by-hand-db", "uri").await;
    let mut blocked = lean();
    (blocked["state"], blocked["stateReason"]) = (json!("Suspended"), json!("unpaid"));
    world.apply("by-hand", blocked).await;
    fleet.access("by-hand", Access::Blocked).await;

    // Sixteen migrations take an hour: they have every slot, and every session in tenant databases.
    for name in &slow {
        let mut superuser = world.superuser(&format!("tenant_{}", name.replace('-', "_"))).await;
        superuser.execute(SLOW_MIGRATIONS).await.unwrap();
    }
    let wide = format!("{name}-wide");
    join_all(slow.iter().map(async |name| {
        let mut spec = lean();
        spec["plan"] = json!(wide);
        world.apply(name, spec).await
    }))
    .await;
    let running = "SELECT count(*) >= $1 FROM workflows WHERE finished_at IS NULL";
    world
        .until("all slots are in use", async || world.holds_number("tenantry_system", running, 16).await)
        .await;
    // The drops wait for the first, and that for this lock.
    let mut superuser = world.superuser("postgres").await;
    let locks: String = gone
        .iter()
        .map(|name| format!("COMMENT ON DATABASE tenant_{} IS 'locked';", name.replace('-', "_")))
        .collect();
    superuser.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!("BEGIN;{locks}")))).await.unwrap();
    let leaving = join_all(gone.iter().map(|name| fleet.tenants.get(name))).await;
    for name in &gone {
        fleet.tenants.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let cut = "SELECT count(*) >= $1 FROM tenants WHERE status = 'deprovisioning' AND access = 'Blocked'";
    world
        .until("all deleted tenants have lost their access", async || {
            world.holds_number("tenantry_system", cut, number).await
        })
        .await;
    // These wait for a slot: a new tenant, and a change of a bystander.
    world.apply("late", lean()).await;
    let mut changed = lean();
    changed["settings"] = json!({"theme": "dark"});
    world.apply("by-waiting", changed.clone()).await;

    let begun = Instant::now();
    let incident = json!({"trigger": "SecurityIncident"});
    let mut suspended = lean();
    (suspended["state"], suspended["stateReason"], suspended["suspension"]) =
        (json!("Suspended"), json!("credentials leaked"), incident.clone());
    (changed["state"], changed["stateReason"], changed["suspension"]) =
        (json!("Suspended"), json!("credentials leaked"), incident.clone());
    world.apply("by-spec", suspended).await;
    world.apply("by-waiting", changed).await;
    fleet.apply_hold("incident", "by-hold", incident).await;
    fleet.tenants.delete("by-deletion", &DeleteParams::default()).await.unwrap();
    let refused = async |uri: &String, session: &mut PgConnection| {
        session.execute("SELECT 1").await.is_err() && PgConnection::connect(uri).await.is_err()
    };
    for ((name, uri), session) in bystanders.iter().zip(&uris).zip(&mut open) {
        world.until(&format!("{name} is refused"), async || refused(uri, session).await).await;
        println!("{name} is refused after {:?}", begun.elapsed());
    }
    for name in ["by-spec", "by-hold"] {
        fleet.access(name, Access::Blocked).await;
    }
    // Its settings still wait for a slot.
    fleet.wait("by-waiting", "Blocked", is_blocked).await;
    world
        .until("the deleted object is released", async || fleet.tenants.get("by-deletion").await.is_err())
        .await;
    let elapsed = begun.elapsed();
    // Access that is regained by hand waits for no slot of others either. Whether it is there is asked in the transaction that
    // grants it: after that, the operator may revoke it at any moment.
    let mut administrator = world.superuser("postgres").await;
    administrator.execute("SET ROLE tenantry_admin").await.unwrap();
    administrator.execute("BEGIN").await.unwrap();
    let regained = "GRANT tenantry_rw TO tenant_by_hand_app; ALTER ROLE tenant_by_hand_app LOGIN;
        GRANT CONNECT ON DATABASE tenant_by_hand TO tenant_by_hand_app";
    administrator.execute(regained).await.unwrap();
    let is_open = "SELECT rolcanlogin AND has_database_privilege(rolname, 'tenant_by_hand', 'CONNECT')
                   FROM pg_roles WHERE rolname = 'tenant_by_hand_app'";
    assert!(sqlx::query_scalar::<_, bool>(is_open).fetch_one(&mut administrator).await.unwrap());
    administrator.execute("COMMIT").await.unwrap();
    world.until("regained access is revoked", async || PgConnection::connect(&by_hand).await.is_err()).await;
    println!("four restrictions are in force and reported after {elapsed:?}");
    assert!(elapsed < SOON, "{elapsed:?}");
    // Meanwhile, all other work waited.
    let dropped = "SELECT count(*) >= $1 FROM pg_database WHERE datname LIKE 'tenant\\_gone%'";
    assert!(world.holds_number("postgres", dropped, number).await, "the drops still wait");
    assert_eq!(world.status("late").await, None, "the new tenant still waits for a slot");

    // It is a queue, not a loss: all of them continue.
    superuser.execute("ROLLBACK").await.unwrap();
    let end = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep') s";
    for name in &slow {
        let mut superuser = world.superuser(&format!("tenant_{}", name.replace('-', "_"))).await;
        superuser.execute("DROP EVENT TRIGGER slow").await.unwrap();
    }
    superuser.execute(end).await.unwrap();
    join_all(
        gone.iter().zip(leaving).map(async |(name, tenant)| fleet.deleted(name, &tenant.unwrap()).await),
    )
    .await;
    join_all(slow.iter().map(|name| fleet.ready(name))).await;
    fleet.ready("late").await;
}
