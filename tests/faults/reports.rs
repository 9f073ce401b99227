//! Modules whose migrations a team's own pipeline applies: `source.external`.

use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tenantry::api::{
    API_VERSION,
    conditions::{MIGRATIONS_APPLIED, READY, find_condition},
    tenant::Tenant,
    tenant_module::TenantModule,
    tenant_status::{Access, ModuleState},
};
use tenantry_test_support::World;

const SECRET: &str = "report-acme-db-migrate";
const NAME: &str = "report-acme";

async fn apply_version(world: &World, version: &str) {
    let modules = Api::<TenantModule>::all(world.fleet.client.clone());
    let module = json!({"apiVersion": API_VERSION, "kind": "TenantModule",
        "metadata": {"name": "report-shop", "labels": {"tenantry.dev/test": world.name}},
        "spec": {"source": {"external": {}}, "version": version}});
    modules.patch("report-shop", &PatchParams::apply("tests").force(), &Patch::Apply(module)).await.unwrap();
}

/// The message of the condition `MigrationsApplied`, while it waits for the report of this version.
async fn awaits(world: &World, version: &str) -> String {
    let wait = world.fleet.until(format!("the tenant waits for the report of {version}"));
    wait.observe(async || {
        let tenant: Tenant = world.fleet.tenants.get(NAME).await.unwrap();
        let status = tenant.status.unwrap_or_default();
        let conditions =
            [READY, MIGRATIONS_APPLIED].map(|type_| find_condition(&status.conditions, type_).cloned());
        let is_awaited = conditions.iter().flatten().filter(|condition| {
            condition.status == "False"
                && condition.reason == "NotReported"
                && condition.message.contains(version)
        });
        if is_awaited.count() == 2 {
            let module = status.modules.iter().find(|module| module.name == "report-shop").unwrap();
            assert_eq!(module.state, Some(ModuleState::AwaitingReport));
            assert_eq!(module.target_name.as_deref(), Some(version));
            Ok(conditions.into_iter().flatten().last().unwrap().message)
        } else {
            Err(conditions)
        }
    })
    .await
}

async fn url(world: &World) -> String {
    let wait = world.fleet.until("the Secret of the pipeline is there");
    wait.observe(async || match world.fleet.secrets.get_opt(SECRET).await.unwrap() {
        Some(secret) => Ok(String::from_utf8(secret.data.unwrap()["DATABASE_URL"].0.clone()).unwrap()),
        None => Err(()),
    })
    .await
}

async fn pipeline(url: &str) -> sqlx::Result<PgConnection> {
    PgConnection::connect(url).await
}

async fn report(session: &mut PgConnection, version: &str) {
    let query = sqlx::query("SELECT tenantry.report_version('report-shop', $1)").bind(version.to_owned());
    session.execute(query).await.unwrap();
}

async fn shown(world: &World, key: &str) -> String {
    world.fleet.secret(&format!("{NAME}-db"), key).await
}

#[tokio::test]
async fn tenant_is_not_ready_before_its_pipeline_reported() {
    let world = World::new("reports").await;
    apply_version(&world, "2026.1").await;
    world.apply(NAME, json!({"modules": [{"name": "report-shop"}]})).await;
    let message = awaits(&world, "2026.1").await;
    assert!(
        message.contains(SECRET) && message.contains("report_version('report-shop', '2026.1')"),
        "{message}"
    );
    // Nothing else waits for it: the application can log in.
    let status = world.fleet.tenants.get(NAME).await.unwrap().status.unwrap();
    assert_eq!(status.access, Some(Access::ReadWrite));
    world.fleet.login(NAME).await.unwrap().close().await.unwrap();

    // The sample of usage notices the report: something wrote into the database.
    let first = url(&world).await;
    let mut session = pipeline(&first).await.unwrap();
    session.execute("CREATE TABLE users (id integer)").await.unwrap();
    report(&mut session, "2026.1").await;
    session.close().await.unwrap();
    let mut ahead = 0;
    world
        .until("sampled, and ready", async || {
            // A minute goes by each time.
            ahead += 61;
            world.set_clock_ahead(ahead);
            let status = world.fleet.tenants.get(NAME).await.unwrap().status.unwrap_or_default();
            find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "True")
        })
        .await;
    assert_eq!(shown(&world, "schema.report-shop").await, "2026.1");
    let mut application = world.fleet.login(NAME).await.unwrap();
    application.execute("INSERT INTO users VALUES (1)").await.unwrap();
    application.close().await.unwrap();

    // A report of an earlier version, and one that came while no operator ran.
    apply_version(&world, "2026.2").await;
    let message = awaits(&world, "2026.2").await;
    assert!(message.contains("the last one that it reported is 2026.1"), "{message}");
    assert_eq!(shown(&world, "schema.report-shop").await, "2026.1");
    let operator = world.installation.operator();
    operator.kill().await.unwrap();
    let mut session = pipeline(&first).await.unwrap();
    report(&mut session, "2026.2").await;
    session.close().await.unwrap();
    world.delete_lease().await;
    operator.start().await.unwrap();
    world.fleet.ready(NAME).await;
    world.until("published", async || shown(&world, "schema.report-shop").await == "2026.2").await;

    // A Secret that is deleted is made again, and so is a login that was dropped.
    world.fleet.secrets.delete(SECRET, &DeleteParams::default()).await.unwrap();
    world
        .until("another password", async || {
            let found = world.fleet.secrets.get_opt(SECRET).await.unwrap();
            found.is_some_and(|secret| secret.data.unwrap()["DATABASE_URL"].0 != first.as_bytes())
        })
        .await;
    assert!(pipeline(&first).await.is_err(), "the old password is not valid any more");
    pipeline(&url(&world).await).await.unwrap().close().await.unwrap();
    let drop = "DROP OWNED BY tenant_report_acme_migrate; DROP ROLE tenant_report_acme_migrate";
    world.superuser("tenant_report_acme").await.execute(drop).await.unwrap();
    world
        .until("made again", async || match world.fleet.secrets.get_opt(SECRET).await.unwrap() {
            Some(secret) => {
                let url = String::from_utf8(secret.data.unwrap()["DATABASE_URL"].0.clone()).unwrap();
                pipeline(&url).await.is_ok()
            }
            None => false,
        })
        .await;

    // A suspension ends the pipeline too, before it is reported; the resumption makes its login and its Secret again.
    let before = url(&world).await;
    let mut session = pipeline(&before).await.unwrap();
    let modules = json!([{"name": "report-shop"}]);
    let suspended = json!({"modules": modules, "state": "Suspended", "stateReason": "unpaid"});
    world.apply(NAME, suspended).await;
    world.fleet.access(NAME, Access::Blocked).await;
    assert!(session.execute("INSERT INTO users VALUES (2)").await.is_err());
    assert!(pipeline(&before).await.is_err());
    world.apply(NAME, json!({"modules": modules})).await;
    world
        .until("the pipeline works again", async || {
            match world.fleet.secrets.get_opt(SECRET).await.unwrap() {
                Some(secret) => {
                    let url = String::from_utf8(secret.data.unwrap()["DATABASE_URL"].0.clone()).unwrap();
                    url != before && pipeline(&url).await.is_ok()
                }
                None => false,
            }
        })
        .await;

    let last = url(&world).await;
    world.fleet.tenants.delete(NAME, &DeleteParams::default()).await.unwrap();
    world.until("the login is gone", async || !world.role_exists("tenant_report_acme_migrate").await).await;
    assert!(pipeline(&last).await.is_err());
}
