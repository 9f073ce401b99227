//! The operator is killed after every effect of a module's way to a tenant: the rehearsal, the acceptance, the template,
//! the clone, the new version in a tenant that exists, and the purge. While it is dead and at the end, no version is reported that the
//! tenant's database does not have as a whole. (What is so before an effect is what is so after the one before it.)

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::{Connection, Executor};
use tenantry::api::tenant_status::ModuleState;
use tenantry_dev::interposer::Moment;
use tenantry_test_support::{Options, World};

use super::{
    crash::object,
    disturbance::killed_at,
    modules::{apply, files, until},
};

const FIRST: [(&str, &str); 2] = [
    (
        "0001_people.sql",
        "CREATE TABLE people (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email citext NOT NULL);
         SELECT tenantry.meter('people', 'crash.people')",
    ),
    (
        "0002_by_email.sql",
        "-- tenantry: no-transaction
         CREATE INDEX CONCURRENTLY people_by_email ON people (email);
         ALTER TABLE people ADD COLUMN note text",
    ),
];

const SECOND: [(&str, &str); 2] = [
    ("0003_name.sql", "ALTER TABLE people ADD COLUMN name text; CREATE TABLE names (name text)"),
    (
        "0004_by_name.sql",
        "-- tenantry: no-transaction
         CREATE UNIQUE INDEX CONCURRENTLY people_by_name ON people (name);
         INSERT INTO people (email, name) VALUES ('ada@crash.example', 'Ada')",
    ),
];

/// For each file, whether all of it is in a tenant's database.
const DONE: &str = "
    WITH columns AS (SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('crash.people')),
         indexes AS (SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid WHERE i.indisvalid)
    SELECT ARRAY[
        EXISTS (SELECT FROM tenantry.meters WHERE name = 'people'),
        'note' IN (SELECT attname FROM columns) AND 'people_by_email' IN (SELECT relname FROM indexes),
        'name' IN (SELECT attname FROM columns) AND to_regclass('crash.names') IS NOT NULL,
        'people_by_name' IN (SELECT relname FROM indexes)
            AND EXISTS (SELECT FROM tenantry.counters WHERE name = 'people' AND used = 1)]";

#[derive(Clone, Copy, PartialEq)]
enum Scenario {
    /// A module is applied together with the first tenant that has it.
    Introduce,
    /// A module of a tenant gets two more files.
    Upgrade,
    /// A module of a tenant is dropped from its database.
    Purge,
}

impl Scenario {
    /// The version that the tenant has at the end.
    fn version(self) -> i64 {
        match self {
            Self::Introduce => 2,
            Self::Upgrade => 4,
            Self::Purge => 0,
        }
    }
}

fn content(lists: &[&[(&str, &str)]]) -> Value {
    let files = lists.concat().into_iter().map(|(name, sql)| (name.to_owned(), json!(sql)));
    Value::Object(files.collect())
}

/// A tenant, its modules and those that it loses.
async fn tenant(world: &World, name: &str, modules: &[&str], purged: &[&str]) {
    let modules: Vec<Value> = modules.iter().map(|name| json!({"name": name})).collect();
    let spec = json!({"modules": modules, "purgeModules": purged, "offboarding": {"gracePeriodSeconds": 0}});
    world.apply(name, spec).await;
}

/// A module and a tenant of one name.
async fn introduce(world: &World, name: &str) {
    files(world, name, content(&[&FIRST])).await;
    let spec = json!({"source": {"configMaps": [{"name": name}]}, "schema": "crash", "extensions": [{"name": "citext"}]});
    apply(world, name, spec).await;
    tenant(world, name, &["core", name], &[]).await;
}

/// Waits until the module is accepted, and the tenant has it.
async fn arrived(world: &World, name: &str, version: i64) {
    let wait = world.fleet.until(format!("{name} has version {version}"));
    wait.observe(async || {
        let status = world.fleet.tenants.get(name).await.unwrap().status.unwrap_or_default();
        let found = status.modules.into_iter().find(|module| module.name == *name);
        let is_it = |found: &tenantry::api::tenant_status::ModuleStatus| {
            found.version == version && found.state == Some(ModuleState::Current)
        };
        let is_there = found.as_ref().is_some_and(is_it);
        if is_there || version == 0 && found.is_none() { Ok(()) } else { Err(found) }
    })
    .await;
    world.fleet.ready(name).await;
    until(world, name, "Accepted").await;
}

/// One run: the operator is killed after this effect and started again. Returns the effect, or none if there were fewer.
async fn run(world: &World, scenario: Scenario, name: &str, number: Option<usize>) -> Option<String> {
    if scenario != Scenario::Introduce {
        introduce(world, name).await;
        arrived(world, name, 2).await;
    }
    let settled = async {
        match scenario {
            Scenario::Introduce => introduce(world, name).await,
            Scenario::Upgrade => files(world, name, content(&[&FIRST, &SECOND])).await,
            Scenario::Purge => tenant(world, name, &["core"], &[name]).await,
        }
        arrived(world, name, scenario.version()).await;
    };
    let look = async || {
        let mut found = Found::of(world, name).await;
        if scenario == Scenario::Purge {
            // The registry has the truth before the module is dropped; status and Secret follow.
            found.reported.retain(|place, _| *place == "registry");
        }
        assert_eq!(found.reported_too_early(), Vec::<String>::new(), "{name}: {found:?}");
    };
    let struck = killed_at(world, number.map(|number| (number, Moment::After)), settled, look).await;
    arrived(world, name, scenario.version()).await;
    struck
}

/// What is reported of a tenant's module, and what is so.
#[derive(Debug, Default)]
struct Found {
    /// The version in the registry, in the status and in the Secret; 0 without one.
    reported: BTreeMap<&'static str, i64>,
    /// The version in the ledger of the database.
    ledger: i64,
    /// How many files have done all that they do, from the first on.
    done: i64,
    /// Accepted modules of which the registry lacks a file.
    half_accepted: i64,
}

impl Found {
    async fn of(world: &World, name: &str) -> Self {
        let mut found = Self::default();
        let slug = name.to_owned();
        let mut registry = world.superuser("tenantry_system").await;
        let row: Option<(uuid::Uuid, Option<i64>)> = sqlx::query_as(
            "SELECT id, jsonb_path_query_first(module_versions, '$[*] ? (@.name == $name).version',
                 jsonb_build_object('name', slug))::bigint FROM tenants WHERE slug = $1",
        )
        .bind(&slug)
        .fetch_optional(&mut registry)
        .await
        .unwrap();
        found.half_accepted = sqlx::query_scalar(
            "SELECT count(*) FROM modules AS m
             WHERE version <> (SELECT count(*) FROM module_files AS f WHERE f.module = m.name)",
        )
        .fetch_one(&mut registry)
        .await
        .unwrap();
        registry.close().await.unwrap();
        let Some((id, recorded)) = row else { return found };
        let status = world.fleet.tenants.get(name).await.unwrap().status.unwrap_or_default();
        let shown = status.modules.iter().find(|module| module.name == *name).map(|module| module.version);
        let secret = world.fleet.secrets.get_opt(&format!("{name}-db")).await.unwrap();
        let published = secret.and_then(|secret| secret.data?.get(&format!("schema.{name}")).cloned());
        let published = published.map(|version| String::from_utf8(version.0).unwrap().parse().unwrap());
        found.reported = BTreeMap::from([
            ("registry", recorded.unwrap_or(0)),
            ("status", shown.unwrap_or(0)),
            ("Secret", published.unwrap_or(0)),
        ]);
        let database: Option<String> = sqlx::query_scalar(
            "SELECT datname::text FROM pg_database WHERE datname IN ($1, $2) AND datallowconn ORDER BY 1 LIMIT 1",
        )
        .bind(format!("tenant_{}", name.replace('-', "_")))
        .bind(format!("tenantry_new_{}", id.simple()))
        .fetch_optional(&mut world.superuser("postgres").await)
        .await
        .unwrap();
        let Some(database) = database else { return found };
        let mut inside = world.superuser(&database).await;
        found.ledger = sqlx::query_scalar(
            "SELECT coalesce(max(version), 0)::bigint FROM tenantry.migrations WHERE module = $1",
        )
        .bind(name)
        .fetch_one(&mut inside)
        .await
        .unwrap();
        let done: Vec<bool> = sqlx::query_scalar(DONE).fetch_one(&mut inside).await.unwrap();
        found.done = done.iter().take_while(|is_done| **is_done).count() as i64;
        inside.close().await.unwrap();
        found
    }

    /// What is reported, and is not there as a whole.
    fn reported_too_early(&self) -> Vec<String> {
        let ledger = ("the ledger", self.ledger, self.done);
        let reported = self.reported.iter().map(|(place, version)| (*place, *version, self.ledger));
        let early = reported.chain([ledger]).filter(|(_, version, is_so)| version > is_so);
        let mut wrong: Vec<String> = early
            .map(|(place, version, is_so)| format!("{place} has {version}, and it is {is_so}"))
            .collect();
        if self.half_accepted > 0 {
            wrong.push("a module is half accepted".to_owned());
        }
        wrong
    }
}

/// Every how many effects the gate kills the operator here: each run takes seconds.
const SELDOM: usize = 63;

/// Everything that is left of a run, without what differs between any two.
async fn left_of(world: &World, name: &str) -> BTreeMap<&'static str, Value> {
    let plain = |text: String| text.replace(&name.replace('-', "_"), "NAME").replace(name, "NAME");
    let rows = async |database: &str, query: &'static str| -> Value {
        let mut session = world.superuser(database).await;
        let found: Vec<String> = sqlx::query_scalar(query).bind(name).fetch_all(&mut session).await.unwrap();
        session.close().await.unwrap();
        // The order is not that of the names.
        json!(found.into_iter().map(plain).collect::<std::collections::BTreeSet<_>>())
    };
    let mut object = object(&world.fleet.tenants.get(name).await.unwrap());
    // Measured an hour later where the seed was interrupted.
    object["conditions"].as_object_mut().unwrap().remove("WithinLimits");
    BTreeMap::from([
        ("scratch databases, templates that are built, and databases and logins of no client", rows("postgres", "
            SELECT datname::text FROM pg_database
            WHERE datname LIKE ANY ('{tenantry\\_scratch%,tenantry\\_template\\_new%,tenantry\\_new%}') AND $1 <> ''
            UNION ALL SELECT rolname::text FROM pg_roles WHERE rolname LIKE '%\\_migrate' ORDER BY 1").await),
        ("accepted", rows("tenantry_system", "
            SELECT concat_ws(' ', m.name, m.schema_name, m.version, f.version, f.file, encode(f.checksum, 'hex'))
            FROM modules AS m JOIN module_files AS f ON f.module = m.name WHERE m.name = $1 ORDER BY f.version").await),
        ("registry", rows("tenantry_system", "
            SELECT concat_ws(' ', status, access, database_exists, module_versions,
                   (SELECT count(*) FROM workflows AS w WHERE w.tenant_id = t.id AND finished_at IS NULL))
            FROM tenants AS t WHERE slug = $1 AND status <> 'deprovisioned'").await),
        ("inside", rows(&format!("tenant_{}", name.replace('-', "_")), "
            SELECT concat_ws(' ', module, version, file) FROM tenantry.migrations WHERE $1 <> ''
            UNION ALL SELECT concat_ws(' ', 'began', module, version) FROM tenantry.migration_progress
            UNION ALL SELECT concat_ws(' ', 'meter', name, counted) FROM tenantry.meters
            UNION ALL SELECT concat_ws(' ', 'extension', extname, extversion) FROM pg_extension
            UNION ALL SELECT concat_ws(' ', relname, relkind, attnum, attname, relacl::text)
                FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
                WHERE relnamespace = to_regnamespace('crash') AND attnum > 0 ORDER BY 1").await),
        ("object", serde_json::from_str(&plain(object.to_string())).unwrap()),
    ])
}

/// The templates of the server.
async fn templates(world: &World) -> Vec<String> {
    let find = "SELECT datname::text FROM pg_database WHERE datname LIKE 'tenantry\\_template%' ORDER BY 1";
    sqlx::query_scalar(find).fetch_all(&mut world.superuser("postgres").await).await.unwrap()
}

/// Kills after effects of a scenario, each so many after the last, and compares each end with that of an undisturbed run.
async fn at_effects(name: &'static str, scenario: Scenario, every: usize, least: usize) {
    let options = Options { interposed: true, no_background_checks: true, ..Options::default() };
    let world = &World::with(name, options).await;
    // TenantModules are cluster-scoped.
    let undisturbed = format!("{name}-0");
    assert_eq!(run(world, scenario, &undisturbed, None).await, None);
    let expected = left_of(world, &undisturbed).await;
    let kept = templates(world).await;
    let mut points = 0;
    for number in (1..).step_by(every) {
        let name = format!("{name}-{number}");
        let Some(what) = run(world, scenario, &name, Some(number)).await else { break };
        points += 1;
        println!("{number}: {what}");
        let found = Found::of(world, &name).await;
        let agreed =
            BTreeMap::from(["registry", "status", "Secret"].map(|place| (place, scenario.version())));
        let log = || world.fleet.operator_log();
        assert_eq!(
            (&found.reported, found.ledger),
            (&agreed, scenario.version()),
            "{number}: {what}\n{}",
            log()
        );
        let mut left = left_of(world, &name).await;
        left.retain(|what, found| expected.get(what) != Some(found));
        assert!(
            left.is_empty(),
            "after effect {number}: {what}: {left:#?}\nexpected: {expected:#?}\n{}",
            log()
        );
        // They would fill the disk.
        world.fleet.delete(&name).await;
        for template in templates(world).await.into_iter().filter(|template| !kept.contains(template)) {
            let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE \"{template}\""));
            world.superuser("postgres").await.execute(drop).await.unwrap();
        }
    }
    println!("killed at {points} points");
    assert!(points * every >= least, "{points}");
}

#[tokio::test]
async fn introduction_of_a_module_killed_at_some_effects_ends_the_same() {
    at_effects("crash-introduce", Scenario::Introduce, SELDOM, 126).await;
}

#[tokio::test]
async fn upgrade_of_a_module_killed_at_some_effects_ends_the_same() {
    at_effects("crash-upgrade", Scenario::Upgrade, SELDOM, 126).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn introduction_of_a_module_killed_at_any_effect_ends_the_same() {
    at_effects("crash-introduce-all", Scenario::Introduce, 1, 126).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn upgrade_of_a_module_killed_at_any_effect_ends_the_same() {
    at_effects("crash-upgrade-all", Scenario::Upgrade, 1, 126).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn purge_of_a_module_killed_at_any_effect_ends_the_same() {
    at_effects("crash-purge-all", Scenario::Purge, 1, 20).await;
}
