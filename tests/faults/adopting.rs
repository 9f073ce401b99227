//! `spec.adopt`: a database that existed before its tenant is reported, confirmed, taken over and offboarded; an undo gives it
//! back, also when the operator is killed at any effect.

use k8s_openapi::{
    api::{core::v1::Secret, events::v1::Event},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::api::{
    ANNOTATION_RECONCILE_REQUESTED_AT,
    conditions::{READY, REGISTERED, find_condition},
    tenant::Tenant,
    tenant_adoption::{AdoptionState, AdoptionStatus},
    tenant_status::TenantState,
};
use tenantry_dev::{PostgresOptions, interposer::Moment};
use tenantry_test_support::{Options, World};

use super::disturbance::killed_at;

/// A database of an application, with an owner of its own.
pub async fn application(world: &World, database: &str) {
    let mut superuser = world.superuser("postgres").await;
    for sql in [
        format!("CREATE ROLE {database}_owner LOGIN PASSWORD 'old'"),
        format!("CREATE DATABASE {database} OWNER {database}_owner"),
    ] {
        superuser.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    let mut owner = old_login(world, database).await.unwrap();
    owner
        .execute(
            "CREATE TABLE customers (id serial PRIMARY KEY, name text); INSERT INTO customers (name) VALUES ('a'), ('b');
             CREATE FUNCTION public.twice(a int) RETURNS int LANGUAGE sql AS 'SELECT a * 2'",
        )
        .await
        .unwrap();
    // What a superuser made is taken over only once a superuser gave it away.
    world.superuser(database).await.execute("CREATE TABLE audit (a int)").await.unwrap();
}

/// A session of the application's login of before.
pub async fn old_login(world: &World, database: &str) -> sqlx::Result<PgConnection> {
    let url = world.installation.postgres().url(&format!("{database}_owner"), "old", database);
    PgConnection::connect(&url).await
}

pub async fn allow(world: &World, patterns: Value) {
    let patch = json!({"spec": {"allowAdoption": patterns}}).to_string();
    world.kubectl().run(&["patch", "dbs", world.name, "--type=merge", "-p", &patch]).await.unwrap();
}

fn adopt(database: &str, confirm: Option<&str>) -> Value {
    let mut adopt = json!({"database": database});
    if let Some(digest) = confirm {
        adopt["confirm"] = digest.into();
    }
    json!({"adopt": adopt, "modules": [{"name": "core"}], "offboarding": {"gracePeriodSeconds": 0}})
}

/// The spec of an adoption that was confirmed; with an empty digest, of one that was not.
pub fn confirmed(database: &str, digest: &str) -> Value {
    adopt(database, Some(digest).filter(|digest| !digest.is_empty()))
}

/// The spec, with the application's login of before kept until a time.
pub fn keeping(mut spec: Value, database: &str, until: &str) -> Value {
    spec["adopt"]["keepLogin"] = json!({"name": format!("{database}_owner"), "until": until});
    spec
}

fn adoption(tenant: &Tenant) -> AdoptionStatus {
    tenant.status.as_ref().unwrap().adoption.clone().unwrap_or_default()
}

/// Runs what the blockers say, as an administrator, and asks for a new report. Returns its digest.
pub async fn unblock(world: &World, name: &str, database: &str) -> String {
    let tenant = world.fleet.reason(name, READY, "AdoptionBlocked").await;
    let blockers = adoption(&tenant).blockers;
    assert!(!blockers.is_empty());
    for blocker in blockers {
        let (_, statement) = blocker.rsplit_once(": ").unwrap();
        let mut superuser = world.superuser(database).await;
        superuser.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    }
    let asked = json!({"metadata": {"annotations": {ANNOTATION_RECONCILE_REQUESTED_AT: "now"}}});
    world.fleet.tenants.patch(name, &PatchParams::default(), &Patch::Merge(asked)).await.unwrap();
    digest(world, name).await
}

async fn digest(world: &World, name: &str) -> String {
    adoption(&world.fleet.reason(name, READY, "AdoptionUnconfirmed").await).digest.unwrap()
}

const UNTOUCHED: &str = "\
SELECT shobj_description(oid, 'pg_database') IS NULL AND pg_get_userbyid(datdba) = datname || '_owner' AND datacl IS NULL
FROM pg_database WHERE datname = $1";

/// Nothing was made for it.
async fn assert_untouched(world: &World, name: &str, database: &str) {
    assert!(world.holds("postgres", UNTOUCHED, database).await);
    assert!(!world.role_exists(&format!("{database}_app")).await);
    assert_eq!(world.status(name).await, None);
    old_login(world, database).await.unwrap().execute("UPDATE customers SET name = name").await.unwrap();
}

#[tokio::test]
async fn existing_database_is_adopted_once_it_is_allowed_reported_and_confirmed() {
    let world = World::new("adopting").await;
    let (name, database) = ("adopt-shop", "shop_one");
    application(&world, database).await;
    world.apply(name, adopt(database, None)).await;
    let tenant = world.fleet.reason(name, READY, "AdoptionNotAllowed").await;
    let status = tenant.status.as_ref().unwrap();
    let ready = find_condition(&status.conditions, READY).unwrap();
    assert!(ready.message.contains("spec.allowAdoption: [\"shop_one\"]"), "{}", ready.message);
    assert_eq!(status.state, Some(TenantState::Provisioning));
    allow(&world, json!(["shop_*"])).await;
    let first = unblock(&world, name, database).await;

    // Nothing is there before it is confirmed, and a deletion leaves nothing.
    assert_untouched(&world, name, database).await;
    assert!(world.fleet.tenants.get(name).await.unwrap().metadata.finalizers.is_none());
    world.fleet.delete(name).await;
    assert_untouched(&world, name, database).await;

    // What changes in the database makes a confirmation stale.
    old_login(&world, database).await.unwrap().execute("CREATE TABLE more (a int)").await.unwrap();
    world.apply(name, adopt(database, Some(&first))).await;
    let tenant = world.fleet.reason(name, READY, "AdoptionChanged").await;
    let registered = find_condition(&tenant.status.as_ref().unwrap().conditions, REGISTERED).unwrap();
    assert_eq!((registered.status.as_str(), registered.reason.as_str()), ("False", "AdoptionChanged"));
    assert_untouched(&world, name, database).await;

    let found = adoption(&tenant);
    let changes = found.changes.join("\n");
    assert!(changes.contains("the owner becomes tenantry_dba instead of shop_one_owner"), "{changes}");
    world.apply(name, adopt(database, found.digest.as_deref())).await;
    let tenant = world.fleet.ready(name).await;
    assert_eq!(adoption(&tenant).state, Some(AdoptionState::Adopted));
    assert_eq!(tenant.status.as_ref().unwrap().database.as_deref(), Some(database));
    let mut session: PgConnection = world.fleet.login(name).await.unwrap();
    session
        .execute("INSERT INTO customers (name) VALUES ('c'); SELECT twice(2); SELECT * FROM settings; SELECT * FROM more")
        .await
        .unwrap();
    let error = old_login(&world, database).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501");

    // What changed was reported before, and is no drift.
    world.event(name, "Active", "is in use").await;
    let events = Api::<Event>::namespaced(world.fleet.client.clone(), world.name);
    let repaired = ListParams::default().fields("reason=DriftRepaired");
    assert_eq!(events.list(&repaired).await.unwrap().items, []);

    // It is one tenant's.
    world.apply("adopt-rival", adopt(database, found.digest.as_deref())).await;
    let rival = world.fleet.reason("adopt-rival", READY, "Conflict").await;
    let ready = find_condition(&rival.status.as_ref().unwrap().conditions, READY).unwrap();
    assert!(ready.message.contains("that of tenant \"adopt-shop\""), "{}", ready.message);
    world.fleet.delete("adopt-rival").await;
    session.execute("SELECT * FROM customers").await.unwrap();

    // From here on it is offboarded as any other.
    world.fleet.delete(name).await;
    assert!(!world.database_exists(database).await && !world.role_exists("shop_one_app").await);
}

/// A tenant whose adoption was confirmed, and whose Secret has another owner: it is not activated.
pub async fn stuck(world: &World, name: &str, spec: Value) {
    let secret = json!({"metadata": {"name": format!("{name}-db")}, "stringData": {"mine": "yes"}});
    let secret: Secret = serde_json::from_value(secret).unwrap();
    world.fleet.secrets.create(&PostParams::default(), &secret).await.unwrap();
    world.apply(name, spec).await;
    let tenant = world.fleet.reason(name, READY, "SecretConflict").await;
    assert_eq!(adoption(&tenant).state, Some(AdoptionState::Adopting));
}

#[tokio::test]
async fn deletion_before_the_activation_gives_the_database_back() {
    let world = World::new("adopting-undo").await;
    let (name, database) = ("adopt-undo", "shop_undo");
    application(&world, database).await;
    allow(&world, json!([database])).await;
    world.apply(name, adopt(database, None)).await;
    let confirm = unblock(&world, name, database).await;
    stuck(&world, name, confirmed(database, &confirm)).await;
    assert!(old_login(&world, database).await.is_err());
    world.fleet.delete(name).await;
    assert_given_back(&world, name, database).await;
}

/// The application works as before, and nothing of the tenant is left.
pub async fn assert_given_back(world: &World, name: &str, database: &str) {
    let closed = "SELECT status = 'deprovisioned' AND NOT database_exists FROM tenants WHERE slug = $1";
    assert!(world.holds("tenantry_system", closed, name).await);
    assert!(!world.role_exists(&format!("{database}_app")).await);
    let is_as_before = "\
        SELECT shobj_description(oid, 'pg_database') IS NULL AND pg_get_userbyid(datdba) = datname || '_owner'
        FROM pg_database WHERE datname = $1";
    assert!(world.holds("postgres", is_as_before, database).await);
    let mut old = old_login(world, database).await.unwrap();
    old.execute("INSERT INTO customers (name) VALUES ('c'); ALTER TABLE customers ADD COLUMN x int")
        .await
        .unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM customers").fetch_one(&mut old).await.unwrap();
    assert_eq!(count, 3);
    let mut superuser = world.superuser(database).await;
    let left: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_shdepend AS d JOIN pg_roles AS r ON r.oid = d.refobjid JOIN pg_database AS b ON b.oid = d.dbid
         WHERE b.datname = current_database() AND r.rolname IN ('tenantry_rw', 'tenantry_shrink', 'tenantry_ro')",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert_eq!(left, 0, "the groups, which have every tenant's login, have no right there");
}

#[derive(Clone, Copy, PartialEq)]
enum Scenario {
    /// From the confirmation to the activation.
    Adopt,
    /// From the deletion of a tenant that is not active.
    Undo,
}

/// Kills the operator at effects of a scenario, each so many after the last.
async fn killed_at_effects(world_name: &'static str, scenario: Scenario, every: usize) {
    let options = Options {
        interposed: true,
        no_background_checks: true,
        postgres: PostgresOptions::default(),
        ..Options::default()
    };
    let world = &World::with(world_name, options).await;
    allow(world, json!(["*"])).await;
    let mut points = 0;
    for number in (1..400).step_by(every) {
        let mut any = false;
        for (moment, letter) in [(Moment::Before, 'b'), (Moment::After, 'a')] {
            let (name, database) = (format!("adopt-{number}-{letter}"), format!("point_{number}_{letter}"));
            application(world, &database).await;
            // Every second one keeps the login of before.
            let keeps = moment == Moment::After;
            let until = (Timestamp::now() + SignedDuration::from_hours(24)).to_string();
            let spec = |confirm: &str| match confirmed(&database, confirm) {
                spec if keeps => keeping(spec, &database, &until),
                spec => spec,
            };
            world.apply(&name, spec("")).await;
            let confirm = unblock(world, &name, &database).await;
            if scenario == Scenario::Undo {
                stuck(world, &name, spec(&confirm)).await;
            }
            let settled = async {
                match scenario {
                    Scenario::Adopt => {
                        world.apply(&name, spec(&confirm)).await;
                        drop(world.fleet.ready(&name).await);
                    }
                    Scenario::Undo => world.fleet.delete(&name).await,
                }
            };
            let struck = killed_at(world, Some((number, moment)), settled, async || {}).await;
            if let Some(what) = &struck {
                (any, points) = (true, points + 1);
                println!("killed {letter} {number}: {what}");
            }
            match scenario {
                Scenario::Adopt => {
                    let mut session: PgConnection = world.fleet.login(&name).await.unwrap();
                    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM customers")
                        .fetch_one(&mut session)
                        .await
                        .unwrap();
                    assert_eq!(count, 2, "{struck:?}");
                    match old_login(world, &database).await {
                        Ok(mut old) => {
                            assert!(keeps, "{struck:?}");
                            old.execute("UPDATE customers SET name = name").await.unwrap();
                            assert!(old.execute("DROP TABLE customers").await.is_err(), "{struck:?}");
                        }
                        Err(error) => assert!(!keeps, "{struck:?}: {error}"),
                    }
                }
                Scenario::Undo => assert_given_back(world, &name, &database).await,
            }
        }
        if !any {
            break;
        }
    }
    println!("killed at {points} points");
    assert!(points >= 6, "{points}");
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn adoption_killed_at_many_effects_ends_the_same() {
    killed_at_effects("adopting-killed", Scenario::Adopt, 4).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn undo_killed_at_many_effects_gives_the_database_back() {
    killed_at_effects("adopting-undo-killed", Scenario::Undo, 2).await;
}
