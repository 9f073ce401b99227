//! The operator is killed after every effect of a new version of a module that an application's own tool applies: the run on
//! the template, the acceptance, and the run in a tenant that exists. Meanwhile pods run on, as they do. While it is dead and
//! at the end, no version is reported that the tool did not bring, and at the end no login is left.

use tenantry_dev::interposer::Moment;
use tenantry_test_support::{Options, World};

use super::{
    disturbance::killed_at,
    tools::{MODULE, Tools, is_accepted, is_at},
};

/// Every how many effects the operator is killed: each run takes seconds.
const EVERY: usize = 3;

/// The versions of the tenant: by its status, by its Secret, by the registry and by the ledger of its database; and what the
/// tool has made.
async fn versions(world: &World, name: &str) -> [Option<i64>; 5] {
    let status = world.fleet.tenants.get(name).await.unwrap().status.unwrap_or_default();
    let shown = status.modules.into_iter().find(|module| module.name == MODULE);
    let shown = shown.and_then(|module| module.version_name?.parse().ok());
    let published = world.fleet.secret(&format!("{name}-db"), &format!("schema.{MODULE}")).await.parse().ok();
    let one = async |database: &str, query: &'static str| -> Option<i64> {
        let query = sqlx::query_scalar(query).bind(MODULE);
        query.fetch_one(&mut world.superuser(database).await).await.unwrap()
    };
    // The numbers count the versions, which begin with 1.
    let recorded = "SELECT jsonb_path_query_first(module_versions, '$[*] ? (@.name == $name).version',
                        jsonb_build_object('name', $1::text))::bigint FROM tenants";
    let ledger = "SELECT max(file::bigint) FROM tenantry.migrations WHERE module = $1";
    let made =
        "SELECT max(split_part(relname, '_', 2)::bigint) FROM pg_class WHERE relname ~ '^made_' AND $1 <> ''";
    let database = format!("tenant_{}", name.replace('-', "_"));
    [
        shown,
        published,
        one("tenantry_system", recorded).await,
        one(&database, ledger).await,
        one(&database, made).await,
    ]
}

/// The tool's statement: each version makes one table more.
fn tool(version: usize) -> String {
    let table = |version| format!("CREATE TABLE IF NOT EXISTS made_{version} ()");
    (1..=version).map(table).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn new_version_of_a_tool_killed_at_many_effects_ends_the_same_and_leaves_no_login() {
    let options = Options { interposed: true, no_background_checks: true, ..Options::default() };
    let tools = &Tools::with("crash-jobs", options).await;
    let (world, tenant) = (&tools.world, "crash-jobs");
    // The tool does not go through the operator's proxies: its statements are no effects of the operator.
    let port = world.installation.postgres().port();
    let published = serde_json::json!({"spec": {"publish": {"host": "127.0.0.1", "port": port}}}).to_string();
    world.kubectl().run(&["patch", "dbs", world.name, "--type=merge", "-p", &published]).await.unwrap();
    tools.apply("1", &tool(1)).await;
    tools.module("accepted", true, is_accepted("1")).await;
    world.apply(tenant, serde_json::json!({"modules": [{"name": MODULE}]})).await;
    world.fleet.ready(tenant).await;
    assert_eq!(versions(world, tenant).await, [Some(1); 5]);
    let mut points = 0;
    for (number, version) in (1..).step_by(EVERY).zip(2..) {
        let name = version.to_string();
        let settled = async {
            tools.apply(&name, &tool(version)).await;
            tools.module("accepted", true, is_accepted(&name)).await;
            tools.tenant(tenant, "current", true, is_at(&name)).await;
            world.fleet.ready(tenant).await;
        };
        let look = async || {
            // What the tool made, the ledger may lack; what the ledger has, the others may lack.
            let [shown, published, recorded, ledger, made] = versions(world, tenant).await;
            assert!(shown.max(published).max(recorded) <= ledger && ledger <= made, "after effect {number}");
        };
        let struck = killed_at(world, Some((number, Moment::After)), settled, look).await;
        tools.tenant(tenant, "current", true, is_at(&name)).await;
        world.fleet.ready(tenant).await;
        tools.nothing_is_left().await;
        let expected = [i64::try_from(version).ok(); 5];
        assert_eq!(versions(world, tenant).await, expected, "{number}: {struck:?}");
        let Some(what) = struck else { break };
        println!("{number}: {what}");
        points += 1;
    }
    println!("killed at {points} points");
    assert!(points >= 20, "{points}");
}
