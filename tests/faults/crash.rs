//! The operator is killed before and after every effect: each statement, each write to the API server. The
//! effects are those that pass the proxies, so that none is missed. Every run ends like an undisturbed one.

use std::{collections::BTreeMap, time::Instant};

use kube::{ResourceExt, api::ListParams};
use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::{tenant::Tenant, tenant_status::Access};
use tenantry_dev::{
    PostgresOptions,
    interposer::{EffectKind, Moment},
};
use tenantry_test_support::{Options, World, login};

use super::disturbance::killed_at;

/// A tenant that uses every field that creates something.
fn spec() -> Value {
    json!({
        "admins": [{"email": "a@crash.example", "name": "Ada"}, {"email": "b@crash.example", "credential": "OneTimePassword"}],
        "settings": {"theme": "dark"}, "demoData": true, "offboarding": {"gracePeriodSeconds": 0},
    })
}

async fn world(name: &'static str) -> World {
    let logged = ("log_statement".to_owned(), "ddl".to_owned());
    let postgres = PostgresOptions { settings: vec![logged], ..PostgresOptions::default() };
    let options = Options { postgres, interposed: true, no_background_checks: true, ..Options::default() };
    World::with(name, options).await
}

#[derive(Clone, Copy, PartialEq)]
enum Scenario {
    Provision,
    Deprovision,
    /// To ReadOnly, of a tenant to which an administrator granted more than that.
    Suspend,
}

/// One run: the operator is killed at this effect and started again. Returns the effect, or none if there were fewer.
async fn run(
    world: &World,
    scenario: Scenario,
    name: &str,
    point: Option<(usize, Moment)>,
) -> Option<String> {
    if scenario != Scenario::Provision {
        world.apply(name, spec()).await;
        world.fleet.ready(name).await;
    }
    if scenario == Scenario::Suspend {
        let mut superuser = world.superuser(&format!("tenant_{}", name.replace('-', "_"))).await;
        superuser.execute("GRANT INSERT, UPDATE ON users TO PUBLIC").await.unwrap();
    }
    let settled = async {
        match scenario {
            Scenario::Provision => {
                world.apply(name, spec()).await;
                world.fleet.ready(name).await;
            }
            Scenario::Deprovision => world.fleet.delete(name).await,
            Scenario::Suspend => {
                let mut suspended = spec();
                suspended["state"] = "Suspended".into();
                suspended["stateReason"] = "unpaid".into();
                suspended["suspension"] = json!({"mode": "ReadOnly", "trigger": "PaymentFailure"});
                world.apply(name, suspended).await;
                world.fleet.access(name, Access::ReadOnly).await;
            }
        }
    };
    killed_at(world, point, settled, async || {}).await
}

/// Every how many effects the gate kills the operator; `make test-all` does so at every one.
const GATE: usize = 11;

/// Kills at effects of a scenario, each so many after the last, and compares each end with that of an undisturbed run.
async fn at_effects(name: &'static str, scenario: Scenario, every: usize) {
    let world = &world(name).await;
    assert_eq!(run(world, scenario, "undisturbed", None).await, None);
    let expected = left_of(world, "undisturbed").await;
    let (mut statements, mut points) = (0, 0);
    for number in (1..).step_by(every) {
        let mut any = false;
        for (moment, letter) in [(Moment::Before, 'b'), (Moment::After, 'a')] {
            let name = format!("point-{number}-{letter}");
            let Some(what) = run(world, scenario, &name, Some((number, moment))).await else { continue };
            (any, points) = (true, points + 1);
            let left = left_of(world, &name).await;
            let log = || world.fleet.operator_log();
            assert_eq!(left, expected, "killed {moment:?} effect {number}: {what}\n{}", log());
        }
        if !any {
            break;
        }
        statements = number;
    }
    println!("killed at {points} points of {statements} effects");
    assert!(statements >= 15, "{statements}");
}

#[tokio::test]
async fn provisioning_killed_at_some_effects_ends_the_same() {
    at_effects("crash-provision", Scenario::Provision, GATE).await;
}

#[tokio::test]
async fn deprovisioning_killed_at_some_effects_ends_the_same() {
    at_effects("crash-deprovision", Scenario::Deprovision, GATE).await;
}

#[tokio::test]
async fn suspension_killed_at_some_effects_ends_the_same() {
    at_effects("crash-suspend", Scenario::Suspend, GATE).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn provisioning_killed_at_any_effect_ends_the_same() {
    at_effects("crash-provision-all", Scenario::Provision, 1).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn deprovisioning_killed_at_any_effect_ends_the_same() {
    at_effects("crash-deprovision-all", Scenario::Deprovision, 1).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn suspension_killed_at_any_effect_ends_the_same() {
    at_effects("crash-suspend-all", Scenario::Suspend, 1).await;
}

#[tokio::test]
async fn provisioning_stays_within_its_budget_of_statements_and_writes() {
    let world = world("crash-count").await;
    run(&world, Scenario::Provision, "first", None).await;
    let effects = world.installation.interposer().unwrap().effects();
    let mut counted = Vec::new();
    // The check of the server, once a minute, is in one of the counts at most.
    for name in ["counted", "counted-2", "counted-3"] {
        effects.reset();
        let begun = Instant::now();
        world.apply(name, json!({})).await;
        world.fleet.ready(name).await;
        let seen = effects.recorded();
        let count = |kind| seen.iter().filter(|effect| effect.kind == kind).count();
        // A slow machine writes progress more often: once a second.
        let progress = usize::try_from(begun.elapsed().as_secs()).unwrap();
        let writes = count(EffectKind::Write).saturating_sub(progress);
        counted.push((count(EffectKind::Statement), writes, seen));
    }
    let (statements, writes, seen) = counted.into_iter().min_by_key(|(all, ..)| *all).unwrap();
    println!("{statements} statements, {writes} writes");
    let list = seen.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(statements <= 45 && writes <= 8, "{list}");
}

/// Everything that exists of a tenant, without what differs between any two: its name, its id, times, secrets.
async fn left_of(world: &World, name: &str) -> BTreeMap<String, Value> {
    let underscored = name.replace('-', "_");
    let id: Option<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM tenants WHERE slug = $1")
        .bind(name)
        .fetch_optional(&mut world.superuser("tenantry_system").await)
        .await
        .unwrap();
    let id = id.unwrap_or_default();
    let plain = |text: String| {
        text.replace(&id.to_string(), "ID")
            .replace(&id.simple().to_string(), "ID")
            .replace(&underscored, "NAME")
            .replace(name, "NAME")
    };
    let rows = async |database: &str, query: &'static str| -> Value {
        let found: Vec<String> = sqlx::query_scalar(query)
            .bind(&underscored)
            .bind(id)
            .fetch_all(&mut world.superuser(database).await)
            .await
            .unwrap();
        json!(found.into_iter().map(&plain).collect::<Vec<_>>())
    };
    let mut left = BTreeMap::new();
    left.insert("databases".into(), rows("postgres", "
        SELECT concat_ws(' ', datname, pg_get_userbyid(datdba), datacl::text, datconnlimit, datallowconn,
               regexp_replace(shobj_description(oid, 'pg_database'), 'template:.*', ''))
        FROM pg_database WHERE (datname = 'tenant_' || $1 OR datname LIKE 'tenantry_new%') AND $2::uuid IS NOT NULL").await);
    left.insert("roles".into(), rows("postgres", "
        SELECT concat_ws(' ', rolname, rolcanlogin, rolinherit, rolcreatedb, rolcreaterole, rolconnlimit,
               rolpassword IS NOT NULL, shobj_description(r.oid, 'pg_authid'),
               (SELECT string_agg(pg_get_userbyid(m.roleid), ',') FROM pg_auth_members m WHERE m.member = r.oid))
        FROM pg_authid r WHERE rolname = 'tenant_' || $1 || '_app' AND $2::uuid IS NOT NULL").await);
    left.insert("registry".into(), rows("tenantry_system", "
        SELECT concat_ws(' ', status, access, database_exists, database_name, login_name, password_verifier IS NOT NULL,
               module_versions, split_part(seed_digest, '+', 1), activated_at IS NOT NULL, purge_started_at IS NOT NULL, rolling_back)
        FROM tenants WHERE id = $2 AND $1 <> ''").await);
    left.insert(
        "unfinished workflows".into(),
        rows(
            "tenantry_system",
            "
        SELECT kind FROM workflows WHERE tenant_id = $2 AND finished_at IS NULL AND $1 <> ''",
        )
        .await,
    );
    left.insert(
        "activity".into(),
        rows(
            "tenantry_system",
            "
        SELECT concat_ws(' ', action, count(*)) FROM activity
        WHERE tenant_id = $2 AND $1 <> '' AND action <> 'StepFailed' GROUP BY action ORDER BY 1",
        )
        .await,
    );
    left.insert("receipts".into(), rows("tenantry_system", "
        SELECT concat_ws(' ', slug, database_retained) FROM deletion_receipts WHERE tenant_id = $2 AND $1 <> ''").await);
    left.insert("made".into(), json!(made(world, &id.simple().to_string(), &underscored)));

    let labelled = ListParams::default().labels(&format!("tenantry.dev/tenant-id={id}"));
    let secrets = world.fleet.secrets.list(&labelled);
    let mut of_tenant: Vec<String> = secrets
        .await
        .unwrap()
        .iter()
        .map(|secret| {
            let keys: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
            plain(format!("{} {:?} {:?} {keys:?}", secret.name_any(), secret.type_, secret.labels()))
        })
        .collect();
    of_tenant.sort_unstable();
    left.insert("secrets".into(), json!(of_tenant));
    if let Some(tenant) = world.fleet.tenants.get_opt(name).await.unwrap() {
        left.insert("object".into(), serde_json::from_str(&plain(object(&tenant).to_string())).unwrap());
        left.insert("inside".into(), inside(world, name).await);
    }
    left
}

/// What the tenant itself sees, with the credentials from its Secret.
async fn inside(world: &World, name: &str) -> Value {
    let mut session = login(&world.fleet.secret(&format!("{name}-db"), "uri").await).await.unwrap();
    let writes = session.execute("INSERT INTO users (email) VALUES ('own@crash.example')").await.is_ok();
    let counted: Vec<String> = sqlx::query_scalar(
        "SELECT 'users ' || count(*) FROM users UNION ALL SELECT 'roles ' || count(*) FROM roles
         UNION ALL SELECT 'user_roles ' || count(*) FROM user_roles
         UNION ALL SELECT 'offers ' || count(*) FROM user_credentials WHERE revoked_at IS NULL
         UNION ALL SELECT 'activity ' || count(*) FROM activity_log
         UNION ALL SELECT concat_ws(' ', key, value) FROM settings
         UNION ALL SELECT concat_ws(' ', module, version) FROM tenantry.migrations",
    )
    .fetch_all(&mut session)
    .await
    .unwrap();
    json!({"writes": writes, "rows": counted})
}

/// How often the tenant's databases were created and dropped: what the server logged, without refused statements.
fn made(world: &World, id: &str, name: &str) -> Vec<String> {
    let log = std::fs::read_to_string(world.installation.postgres().service().log()).unwrap();
    let building = format!("tenantry_new_{id}");
    let published = format!("tenant_{name}");
    let count = |statement: &str, refusal: &str| {
        let of_ours =
            |line: &&str| line.contains(&format!("{building}\"")) || line.contains(&format!("{published}\""));
        let tried = log
            .lines()
            .filter(of_ours)
            .filter(|line| line.contains("statement: ") && line.contains(statement));
        let refused =
            log.lines().filter(of_ours).filter(|line| line.contains("ERROR: ") && line.contains(refusal));
        tried.count() as i64 - refused.count() as i64
    };
    vec![
        format!("made {}", count("CREATE DATABASE", "already exists")),
        format!("dropped {}", count("DROP DATABASE", "does not exist")),
    ]
}

/// The object without what differs between any two runs.
pub fn object(tenant: &Tenant) -> Value {
    let status = tenant.status.as_ref().unwrap();
    let conditions: BTreeMap<_, _> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.clone(), format!("{} {}", condition.status, condition.reason)))
        .collect();
    let workflow = status.workflow.as_ref().unwrap();
    let open: Vec<_> = workflow.steps.iter().filter(|step| step.state.as_str() != "Succeeded").collect();
    json!({
        "finalizers": tenant.metadata.finalizers, "state": status.state, "access": status.access,
        "server": status.server, "database": status.database, "binding": status.binding, "modules": status.modules,
        "observed": status.observed_generation == tenant.metadata.generation, "conditions": conditions,
        "open steps": open.len(), "finished": workflow.finished_at.is_some(),
    })
}
