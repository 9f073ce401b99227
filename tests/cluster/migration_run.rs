//! A run of an application's own tool, on the real API server with its Job controller. There is no kubelet: the test runs the
//! container's command itself, with its environment, and completes the pod's status.

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use tenantry::{
    api::module_job::ModuleJob,
    controller::tenant_module::{
        job::{LABEL_RUN, MigrationAddress, MigrationRun},
        run::{MigrationRunner, RunRecord},
    },
    domain::{
        access::AccessLevel,
        identity::TenantId,
        migration_login::MigrationOwner,
        migration_run::{RunAction, RunOutcome},
        names,
        placement::Placement,
    },
    modules::ModuleSet,
    postgres::{
        ServerConfig, Tls,
        install::setup::{SetupOptions, server_setup},
        server::Server,
        tenant::{credentials::SecretText, migration_login::MigratedDatabase},
    },
};
use tenantry_dev::{Postgres, PostgresOptions};
use tenantry_test_support::{Fleet, JobPods, Wait, shared_operator};
use uuid::Uuid;

const OPERATOR: &str = "operator";
const PASSWORD: &str = "operator-password";

/// A server of its own, which no operator checks for migration logins that were left, and a tenant on it.
async fn server_with_tenant() -> (Postgres, Server, Placement) {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let setup = SetupOptions {
        operator: OPERATOR.into(),
        password: SecretText::new(PASSWORD),
        system_database: None,
    };
    server_setup(postgres.admin_url("postgres").parse().unwrap(), &setup).await.unwrap();
    let server = Server::new(ServerConfig {
        name: "runs".into(),
        host: "127.0.0.1".into(),
        port: postgres.port(),
        tls: Tls::Disable,
        username: OPERATOR.into(),
        password: SecretText::new(PASSWORD),
        prefix: "tenant_".into(),
        application_name: "runs".into(),
        max_connections: 8,
    });
    server.preflight(Uuid::nil()).await.unwrap();
    server.prepare(Uuid::nil()).await.unwrap();
    let placement = Placement {
        tenant: TenantId(Uuid::new_v4()),
        server: "runs".into(),
        database: "tenant_runs".into(),
        schema: None,
        login: names::login_name("tenant_runs"),
        previous_login: None,
        reader_login: None,
    };
    server.create_login(&placement).await.unwrap();
    let template = server.ensure_template(&ModuleSet::built_in()).await.unwrap();
    server.create_database(&placement, &template).await.unwrap();
    server.publish_database(&placement).await.unwrap();
    server.set_access(&placement, AccessLevel::ReadWrite).await.unwrap();
    (postgres, server, placement)
}

struct Stage {
    client: Client,
    namespace: String,
    server: Server,
    placement: Placement,
}

impl Stage {
    /// The module's job: one statement, by psql.
    fn source(sql: &str) -> ModuleJob {
        // The URL comes from the environment, as $(DATABASE_URL).
        let command = ["psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "$(DATABASE_URL)", "--command", sql];
        ModuleJob {
            image: "registry.example/shop:1".into(),
            command: command.map(str::to_owned).into(),
            ..ModuleJob::default()
        }
    }

    /// Advances a run until this is its next action. As after a restart of the operator each time: nothing but the record
    /// is kept.
    async fn advance(
        &self,
        run: Uuid,
        source: &ModuleJob,
        record: &mut RunRecord,
        wanted: impl Fn(&RunAction) -> bool,
    ) -> Vec<RunAction> {
        let mut actions = Vec::new();
        Wait::until("the run's next action")
            .is_true(async || {
                let owner = MigrationOwner::Tenant(self.placement.tenant);
                let port = self.server.config().port;
                let runner = MigrationRunner {
                    client: &self.client,
                    server: &self.server,
                    address: MigrationAddress {
                        host: "127.0.0.1",
                        port,
                        sslmode: "disable",
                        certificates: "",
                    },
                    database: MigratedDatabase::OfTenant(&self.placement),
                    run: MigrationRun {
                        run,
                        module: "shop",
                        version: "1",
                        schema: "public",
                        owner: &owner,
                        namespace: &self.namespace,
                    },
                    source,
                };
                let action = runner.advance(record, Timestamp::now()).await.unwrap();
                match &action {
                    RunAction::CreateJob => record.job_created_at = Some(Timestamp::now()),
                    RunAction::Record(outcome) => record.outcome = Some(outcome.clone()),
                    _ => {}
                }
                let is_wanted = wanted(&action);
                if actions.last() != Some(&action) {
                    actions.push(action);
                }
                is_wanted
            })
            .await;
        actions
    }

    /// The pod that the Job controller has created.
    async fn pod(&self, run: Uuid) -> Pod {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let of_run = ListParams::default().labels(&format!("{LABEL_RUN}={run}"));
        Wait::until("the run's pod")
            .observe(async || pods.list(&of_run).await.unwrap().items.pop().ok_or("no pod"))
            .await
    }

    fn pods(&self) -> JobPods {
        JobPods::new(&self.client, &self.namespace)
    }

    async fn nothing_is_left(&self) {
        assert!(self.server.observe_all().await.unwrap().migration_logins().is_empty());
        let secrets = self.pods().secrets().await;
        assert!(secrets.is_empty(), "{secrets:?}");
    }
}

fn waits(action: &RunAction) -> bool {
    matches!(action, RunAction::Wait { .. })
}

fn is_done(action: &RunAction) -> bool {
    matches!(action, RunAction::Done(_))
}

#[tokio::test]
async fn tool_runs_as_a_job_and_leaves_no_login() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "migration-run").await;
    let (postgres, server, placement) = server_with_tenant().await;
    let stage = Stage { client, namespace, server, placement };

    // It succeeds.
    let (run, mut record) = (Uuid::new_v4(), RunRecord::default());
    let source = Stage::source("CREATE TABLE shops (id bigserial PRIMARY KEY)");
    let actions = stage.advance(run, &source, &mut record, waits).await;
    assert!(matches!(actions[..], [RunAction::OpenLogin, RunAction::CreateJob, RunAction::Wait { .. }]));
    let pod = stage.pod(run).await;
    assert_eq!(stage.pods().run(&pod).await, Some(0));
    let actions = stage.advance(run, &source, &mut record, is_done).await;
    let expected = [
        RunAction::Record(RunOutcome::Succeeded),
        RunAction::CloseLogin,
        RunAction::DeleteSecret,
        RunAction::Done(RunOutcome::Succeeded),
    ];
    assert_eq!(actions[actions.len() - 4..], expected, "{actions:?}");
    stage.nothing_is_left().await;
    let mut superuser = postgres.connect(&stage.placement.database).await.unwrap();
    superuser.execute("SELECT * FROM shops").await.unwrap();

    // It fails: the exit code and the log without the password are known.
    let (run, mut record) = (Uuid::new_v4(), RunRecord::default());
    let source = Stage::source("CREATE TABLE shops (id int)");
    stage.advance(run, &source, &mut record, waits).await;
    let pod = stage.pod(run).await;
    assert_eq!(stage.pods().run(&pod).await, Some(1));
    stage.advance(run, &source, &mut record, is_done).await;
    let Some(RunOutcome::Failed { exit_code: Some(1), message }) = &record.outcome else {
        panic!("{record:?}")
    };
    for part in
        ["exit code 1: connected to postgresql://tenant_runs_migrate:[removed]@", "\"shops\" already exists"]
    {
        assert!(message.contains(part), "{message}");
    }
    stage.nothing_is_left().await;

    // It is not wanted any more while it runs.
    let (run, mut record) = (Uuid::new_v4(), RunRecord::default());
    stage.advance(run, &source, &mut record, waits).await;
    let pod = stage.pod(run).await;
    record.is_cancelled = true;
    stage.advance(run, &source, &mut record, is_done).await;
    assert_eq!(record.outcome, Some(RunOutcome::Cancelled));
    stage.nothing_is_left().await;
    let jobs = Api::<Job>::namespaced(stage.client.clone(), &stage.namespace);
    let of_run = ListParams::default().labels(&format!("{LABEL_RUN}={run}"));
    assert!(jobs.list(&of_run).await.unwrap().items.is_empty());
    let pods = Api::<Pod>::namespaced(stage.client.clone(), &stage.namespace);
    Wait::until("the pod's end")
        .is_true(async || {
            pods.get_opt(&pod.name_any())
                .await
                .unwrap()
                .is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
        })
        .await;
}

#[tokio::test]
async fn login_that_a_process_has_left_is_found_and_dropped() {
    let fleet = Fleet::new("migration-login").await;
    fleet.apply("left-login", json!({})).await;
    fleet.ready("left-login").await;
    let database = fleet.secret("left-login-db", "database").await;
    let login = names::migration_login_name(&database);
    // As the operator makes it; its run is that of no process.
    let mut superuser = shared_operator::superuser(&database).await;
    let comment =
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()";
    let comment: String = sqlx::query_scalar(comment).fetch_one(&mut superuser).await.unwrap();
    let id = &comment["tenantry:tenant:".len()..][..36];
    let left = format!(
        "BEGIN; SET LOCAL ROLE tenantry_admin; CREATE ROLE {login} LOGIN NOINHERIT PASSWORD 'left';
         COMMENT ON ROLE {login} IS 'tenantry:migration:tenant:{id}:{}'; GRANT tenantry_owner TO {login};
         GRANT CONNECT ON DATABASE {database} TO {login}; COMMIT",
        Uuid::new_v4()
    );
    superuser.execute(AssertSqlSafe(left)).await.unwrap();
    fleet
        .until("the migration login is dropped")
        .is_true(async || !shared_operator::role_exists(&login).await)
        .await;
    fleet.login("left-login").await.unwrap();
}
