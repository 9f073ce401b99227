//! An upgrade from the last release, and the way back to it, while tenants are changed.

use std::{path::PathBuf, process::Command};

use futures::future::join_all;
use serde_json::{Value, json};
use tenantry::api::tenant_status::Access;
use tenantry_dev::Operator;
use tenantry_test_support::{Options, PATIENCE, World, names};

const TENANTS: usize = 50;

/// The operator of the last release, built by `dev/build-release.sh`.
fn last_release() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dev/build-release.sh");
    let built = Command::new(script).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8(built.stdout).unwrap().trim().into()
}

/// The next operator takes over from the leader, as in a rollout: it is ready before the other one gets SIGTERM.
async fn replace(leader: &Operator, next: &Operator) {
    next.start_standby().await.unwrap();
    leader.stop().await.unwrap();
    next.wait_leading().await.unwrap();
}

async fn is_true(world: &World, query: &'static str) -> bool {
    sqlx::query_scalar(query).fetch_one(&mut world.superuser("tenantry_system").await).await.unwrap()
}

/// Applies a change to all tenants, and replaces the leader while some have it and others do not.
async fn change(
    world: &World,
    tenants: &[String],
    spec: Value,
    is_halfway: &'static str,
    leader: &Operator,
    next: &Operator,
) {
    join_all(tenants.iter().map(|name| world.apply(name, spec.clone()))).await;
    world.until("some tenants are changed", async || is_true(world, is_halfway).await).await;
    replace(leader, next).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn upgrade_and_rollback_in_the_middle_of_workflows_lose_nothing() {
    let binary = last_release();
    let options = Options { binary: Some(binary), ..Options::default() };
    let world = World::with("upgrade", options).await;
    let old = world.installation.operator();
    let replica =
        world.installation.replica(|options| options.binary = env!("CARGO_BIN_EXE_tenantry").into());
    let new = replica.unwrap();
    let tenants = names("moved", TENANTS);
    let is_migrated = "SELECT to_regclass('schema_migrations') IS NOT NULL";
    let some_active = "SELECT count(*) FILTER (WHERE status = 'active') BETWEEN 5 AND 45 FROM tenants";
    let some_blocked = "SELECT count(*) FILTER (WHERE access = 'Blocked') BETWEEN 5 AND 45 FROM tenants";
    let some_open = "SELECT count(*) FILTER (WHERE access = 'ReadWrite') BETWEEN 5 AND 45 FROM tenants";

    new.start_standby().await.unwrap();
    assert!(!is_true(&world, is_migrated).await, "a standby does not migrate");
    change(&world, &tenants, json!({}), some_active, old, &new).await;
    assert!(is_true(&world, is_migrated).await);
    join_all(tenants.iter().map(|name| world.fleet.ready(name))).await;
    // The Secrets that the last release wrote have fewer keys.
    for name in &tenants {
        let has_new_keys = async || {
            let data = world.fleet.secrets.get(&format!("{name}-db")).await.unwrap().data.unwrap();
            data.contains_key("uri-mounted")
        };
        world.until(&format!("the Secret of {name} has the new keys"), has_new_keys).await;
    }
    world.all_usable(&tenants).await;

    let suspended = json!({"state": "Suspended", "stateReason": "moved", "suspension": {"mode": "Blocked"}});
    change(&world, &tenants, suspended, some_blocked, &new, old).await;
    join_all(tenants.iter().map(|name| world.fleet.access(name, Access::Blocked))).await;

    change(&world, &tenants, json!({"state": "Active"}), some_open, old, &new).await;
    join_all(tenants.iter().map(|name| world.fleet.access(name, Access::ReadWrite))).await;
    world.all_usable(&tenants).await;

    world
        .until("no workflow is open", async || {
            is_true(&world, "SELECT NOT EXISTS (SELECT FROM workflows WHERE finished_at IS NULL)").await
        })
        .await;
    let linked = "SELECT NOT EXISTS (SELECT FROM activity_heads WHERE pending)
                  AND NOT EXISTS (SELECT FROM activity WHERE position IS NULL)";
    world.until("all activity is linked", async || is_true(&world, linked).await).await;
    let once =
        "SELECT count(*) = 50 AND count(DISTINCT tenant_id) = 50 FROM activity WHERE action = 'Registered'";
    assert!(is_true(&world, once).await);
    assert!(is_true(&world, "SELECT count(*) = 50 FROM tenants").await);

    // A release that cannot use the schema ends, whether or not it knows the number, and the leader goes on.
    let needs_newer = "SELECT require_release(9999)";
    sqlx::raw_sql(needs_newer).execute(&mut world.superuser("tenantry_system").await).await.unwrap();
    let another =
        world.installation.replica(|options| options.binary = env!("CARGO_BIN_EXE_tenantry").into());
    let another = another.unwrap();
    for (replica, message) in [(old, "9999"), (&another, "the registry's schema is too new for this release")]
    {
        replica.service().start().unwrap();
        assert!(replica.service().exits_within(PATIENCE).await);
        let log = std::fs::read_to_string(replica.log()).unwrap();
        assert!(log.contains(message), "{log}");
    }
    assert!(new.leads().await);
}
