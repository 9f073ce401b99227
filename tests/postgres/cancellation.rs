//! Operations that are cancelled at each await point and run again.

use std::{future::poll_fn, pin::pin, task::Poll};

use futures::future::{Either, select};
use sqlx::{Connection, Executor, PgConnection};
use tenantry::{
    domain::{
        access::AccessLevel,
        usage::entitlements::{Entitlements, LoginLimits},
    },
    modules::{Migration, Module, ModuleSet},
    postgres::{
        Result,
        tenant::{
            credentials::scram_verifier,
            databases::Dropped,
            migration_login::{MigratedDatabase, MigrationLogin},
            vacuum::RowSizes,
        },
    },
};
use tenantry_test_support::Wait;
use uuid::Uuid;

use crate::servers::{SERVERS, Tenant, access, empty_seed, ready, session_logins};

const LIMITS: LoginLimits = LoginLimits { connections: 9, temp_file_kilobytes: -1 };

/// Polls an operation up to a number of times, then drops it. `None`: it was cancelled.
async fn cancel_after<T>(polls: usize, operation: impl Future<Output = T>) -> Option<T> {
    let mut operation = pin!(operation);
    let mut polled = 0;
    poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        operation.as_mut().poll(context).map(Some)
    })
    .await
}

/// Runs an operation repeatedly, cancelled a little later each time, until it ends.
pub async fn through<T>(name: &str, operation: impl AsyncFn() -> Result<T>) -> T {
    let mut polls = 0;
    while polls < 100_000 {
        match cancel_after(polls, operation()).await {
            None => polls += 1 + polls / 12,
            Some(Ok(value)) => return value,
            Some(Err(error)) => panic!("{name}, after a cancellation at poll {polls}: {error}"),
        }
    }
    panic!("{name} never ended");
}

#[tokio::test]
async fn every_operation_can_be_cancelled_and_run_again() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (t, server) = (&Tenant::new("tenant_cut"), &server);
        // A set of this test, so that its template is built here.
        let sql = format!("CREATE TABLE cut (id int); -- {}", t.placement.tenant);
        let file = Migration { version: 1, file: "0001_cut.sql".into(), sql: sql.into() };
        let mut modules = ModuleSet::built_in().modules().to_vec();
        modules.push(Module::new("cut", vec![file]));
        let modules = &ModuleSet::new(modules);

        let template = &through("ensure_template", async || server.ensure_template(modules).await).await;
        through("create_login", async || server.create_login(&t.placement).await).await;
        through("create_database", async || server.create_database(&t.placement, template).await).await;
        let plan = Entitlements { limits: [("users".to_owned(), Some(5))].into(), ..Entitlements::default() };
        let seed = async || server.seed(&t.placement, &empty_seed(), Some(&plan)).await;
        through("seed", seed).await;
        through("publish", async || server.publish_database(&t.placement).await).await;
        let verifier = scram_verifier(&t.password);
        for level in [AccessLevel::ReadWrite, AccessLevel::ReadOnly, AccessLevel::ReadWrite] {
            through("set_access", async || server.set_access(&t.placement, level).await).await;
            let facts = server.observe(&t.placement).await.unwrap();
            assert_eq!(access(&facts), Some(level));
        }
        through("set_login", async || server.set_login(&t.placement, &verifier, true).await).await;
        through("seed again", async || server.seed(&t.placement, &empty_seed(), None).await).await;
        let mut inside = postgres.connect(&t.placement.database).await.unwrap();
        let limits = "SELECT name, maximum FROM tenantry.limits";
        let limits: Vec<(String, Option<i64>)> = sqlx::query_as(limits).fetch_all(&mut inside).await.unwrap();
        assert_eq!(limits, [("users".to_owned(), Some(5))]);
        inside.close().await.unwrap();
        let used = through("apply_limits", async || server.apply_limits(&t.placement, &plan).await).await;
        let read = through("read_counters", async || server.read_counters(&t.placement).await).await;
        assert_eq!((used["users"], read["users"]), (0, 0));
        let limit = async || server.limit_login(&t.placement, LIMITS).await;
        through("limit_login", limit).await;
        let migrate = async || server.migrate(&t.placement, modules).await?.into_result();
        through("migrate", migrate).await;
        let mut administrator = postgres.connect(&t.placement.database).await.unwrap();
        let remove = "INSERT INTO cut SELECT generate_series(1, 10000); DELETE FROM cut WHERE id > 1";
        administrator.execute(remove).await.unwrap();
        // Its writes are counted when it ends.
        administrator.close().await.unwrap();
        let reclaim = async || {
            server.reclaim(&t.placement, modules, -1, &mut RowSizes::default(), &|| true).await.map(drop)
        };
        through("reclaim", reclaim).await;
        let verify = async || server.verify(&t.placement, &t.password).await;
        assert_eq!(through("verify", verify).await, modules.targets());
        let (run, database) = (Uuid::new_v4(), MigratedDatabase::OfTenant(&t.placement));
        let wanted = MigrationLogin { run, schema: "public", verifier: &verifier, valid_until: None };
        let open = async || server.open_migration_login(&database, &wanted).await;
        let login = &through("open_migration_login", open).await;
        let has_one = async || {
            let found = server.observe_all().await.unwrap().migration_logins();
            found.iter().any(|found| (&found.name, found.run) == (login, run))
        };
        assert!(has_one().await);
        through("close_migration_login", async || server.close_migration_login(login).await).await;
        assert!(!has_one().await);
        let facts = server.observe(&t.placement).await.unwrap();
        assert!(facts.building.is_none());
        let of_database = async || session_logins(postgres, &t.placement.database).await == 0;
        Wait::until("every login of a session is gone").is_true(of_database).await;

        let blocked = AccessLevel::Blocked;
        through("block", async || server.set_access(&t.placement, blocked).await).await;
        server.verify_refused(&t.placement, &t.password).await.unwrap();
        through("drop_database", async || server.drop_database(&t.placement).await).await;
        assert_eq!(server.drop_database(&t.placement).await.unwrap(), Dropped::Absent);
        through("drop_login", async || server.drop_login(&t.placement).await).await;
        let facts = server.observe(&t.placement).await.unwrap();
        assert!(facts.database.is_none() && facts.login.is_none());
    }
}

#[tokio::test]
async fn login_of_a_session_is_taken_away_after_a_cancellation() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let t = Tenant::new("tenant_cut_open");
        t.provision(&server, 1).await;
        let until_there_are = async |wanted: i64| {
            let looked = async || session_logins(postgres, &t.placement.database).await == wanted;
            Wait::until(format!("there are {wanted} logins of sessions")).is_true(looked).await;
        };
        // The operation waits in the database for a lock on the counters.
        let mut administrator = postgres.connect(&t.placement.database).await.unwrap();
        administrator.execute("BEGIN; LOCK TABLE tenantry.counters").await.unwrap();
        {
            let read = pin!(server.read_counters(&t.placement));
            let open = pin!(until_there_are(1));
            assert!(matches!(select(read, open).await, Either::Right(_)), "the read ended");
        }
        until_there_are(0).await;
        administrator.execute("ROLLBACK").await.unwrap();
        // One that a process left behind is found, whatever it was given, and one that cannot be taken away does not block the
        // others.
        let left = "tenantry_migrator_0123456789abcdef";
        for sql in [
            format!("CREATE ROLE {left} LOGIN NOINHERIT PASSWORD 'left'"),
            format!("COMMENT ON ROLE {left} IS 'tenantry:session:tenant_cut_open'"),
            format!("GRANT tenantry_migrator TO {left}"),
            format!("GRANT {left} TO tenantry_admin WITH ADMIN OPTION"),
            format!("GRANT CONNECT ON DATABASE tenant_cut_open TO {left}"),
            format!(
                "CREATE TABLE public.kept_by_a_session (); ALTER TABLE public.kept_by_a_session OWNER TO {left}"
            ),
        ] {
            administrator.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        }
        let mut open = PgConnection::connect(&postgres.url(left, "left", "tenant_cut_open")).await.unwrap();
        let found = server.observe_all().await.unwrap().session_logins();
        assert!(found.iter().any(|name| name == left), "{found:?}");
        server.close_session_logins(&["gone".to_owned(), left.to_owned()]).await;
        until_there_are(0).await;
        assert!(open.execute("SELECT 1").await.is_err());
        let owner: String = sqlx::query_scalar(
            "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname = 'kept_by_a_session'",
        )
        .fetch_one(&mut administrator)
        .await
        .unwrap();
        assert_eq!(owner, "tenantry_owner");
    }
}

#[tokio::test]
async fn interrupted_revocation_is_finished_by_the_next_one() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let t = Tenant::new("tenant_half_narrowed");
        t.provision(&server, 1).await;
        let mut session = t.session(postgres).await.unwrap();
        // The state after a cancellation between the change and its proof.
        let half_way = format!(
            "REVOKE tenantry_rw FROM {login}; GRANT tenantry_ro TO {login};
             COMMENT ON ROLE {login} IS 'tenantry:tenant:{id} narrowing'",
            login = t.placement.login,
            id = t.placement.tenant,
        );
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute(sqlx::AssertSqlSafe(half_way)).await.unwrap();
        let facts = server.observe(&t.placement).await.unwrap();
        assert_eq!((facts.login.as_ref().unwrap().is_revocation_unproven, access(&facts)), (true, None));
        server.set_access(&t.placement, AccessLevel::ReadOnly).await.unwrap();
        assert!(session.execute("SELECT 1").await.is_err());
        let facts = server.observe(&t.placement).await.unwrap();
        assert_eq!(access(&facts), Some(AccessLevel::ReadOnly));
    }
}
