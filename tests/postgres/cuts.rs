//! Operations that are cut off while they wait, later and later, and run again.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use futures::future::{Either, select};
use sqlx::{Connection, Executor};
use tenantry::{
    domain::{access::AccessLevel, limits::Entitlements},
    postgres::{
        Result,
        credentials::scram_verifier,
        databases::Dropped,
        modules::{Migration, Module, ModuleSet},
        vacuum::Packing,
    },
};

use crate::servers::{SERVERS, Tenant, empty_seed, ready};

/// Polls an operation so many times, then drops it. `None`: it was cut.
async fn cut_after<T>(polls: usize, operation: impl Future<Output = T>) -> Option<T> {
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

/// Runs an operation again and again, cut a little later each time, until it ends by itself.
async fn through<T>(name: &str, operation: impl AsyncFn() -> Result<T>) -> T {
    let mut polls = 0;
    while polls < 100_000 {
        match cut_after(polls, operation()).await {
            None => polls += 1 + polls / 12,
            Some(Ok(value)) => return value,
            Some(Err(error)) => panic!("{name}, after a cut at poll {polls}: {error}"),
        }
    }
    panic!("{name} never ended");
}

#[tokio::test]
async fn every_operation_may_be_cut_and_run_again() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (t, server) = (&Tenant::new("tenant_cut"), &server);
        // A set of its own, so that its template is built here.
        let sql = format!("CREATE TABLE cut (id int); -- {}", t.id);
        let file = Migration { version: 1, file: "0001_cut.sql".into(), sql: sql.into() };
        let mut modules = ModuleSet::built_in().modules().to_vec();
        modules.push(Module { name: "cut".into(), migrations: vec![file].into() });
        let modules = &ModuleSet::new(modules);

        let template = &through("ensure_template", async || server.ensure_template(modules).await).await;
        through("create_login", async || server.create_login(t.id, &t.login).await).await;
        through("create_database", async || server.create_database(t.id, template).await).await;
        let plan = Entitlements { limits: [("users".to_owned(), Some(5))].into(), ..Entitlements::default() };
        let seed = async || server.seed(t.id, &t.database, &empty_seed(), Some(&plan)).await;
        through("seed", seed).await;
        through("publish", async || server.publish_database(t.id, &t.database).await).await;
        let verifier = scram_verifier(&t.password);
        for level in [AccessLevel::ReadWrite, AccessLevel::ReadOnly, AccessLevel::ReadWrite] {
            through("set_access", async || server.set_access(t.id, &t.database, &t.login, level).await).await;
            let facts = server.observe(t.id, &t.database, &t.login).await.unwrap();
            assert_eq!(facts.access(), Some(level));
        }
        through("set_login", async || server.set_login(t.id, &t.login, &verifier, true).await).await;
        through("seed again", async || server.seed(t.id, &t.database, &empty_seed(), None).await).await;
        let mut inside = postgres.connect(&t.database).await.unwrap();
        let limits = "SELECT name, maximum FROM tenantry.limits";
        let limits: Vec<(String, Option<i64>)> = sqlx::query_as(limits).fetch_all(&mut inside).await.unwrap();
        assert_eq!(limits, [("users".to_owned(), Some(5))]);
        inside.close().await.unwrap();
        let used =
            through("apply_limits", async || server.apply_limits(t.id, &t.database, &plan).await).await;
        let read = through("read_counters", async || server.read_counters(t.id, &t.database).await).await;
        assert_eq!((used["users"], read["users"]), (0, 0));
        let limit = async || server.set_connection_limit(t.id, &t.login, 9).await;
        through("set_connection_limit", limit).await;
        through("migrate", async || server.migrate(t.id, &t.database, modules).await).await;
        let mut administrator = postgres.connect(&t.database).await.unwrap();
        let remove = "INSERT INTO cut SELECT generate_series(1, 10000); DELETE FROM cut WHERE id > 1";
        administrator.execute(remove).await.unwrap();
        // What it did is counted with its end.
        administrator.close().await.unwrap();
        let reclaim = async || {
            server.reclaim(t.id, &t.database, modules, -1, &mut Packing::default(), &|| true).await.map(drop)
        };
        through("reclaim", reclaim).await;
        let verify = async || server.verify(t.id, &t.database, &t.login, &t.password).await;
        assert_eq!(through("verify", verify).await, modules.targets());
        let facts = server.observe(t.id, &t.database, &t.login).await.unwrap();
        assert!(facts.building.is_none());
        assert!(!facts.database.unwrap().migrator_may_connect);

        let blocked = AccessLevel::Blocked;
        through("block", async || server.set_access(t.id, &t.database, &t.login, blocked).await).await;
        server.verify_refused(&t.database, &t.login, &t.password).await.unwrap();
        through("drop_database", async || server.drop_database(t.id, &t.database).await).await;
        assert_eq!(server.drop_database(t.id, &t.database).await.unwrap(), Dropped::Absent);
        through("drop_login", async || server.drop_login(t.id, &t.login).await).await;
        let facts = server.observe(t.id, &t.database, &t.login).await.unwrap();
        assert!(facts.database.is_none() && facts.login.is_none());
    }
}

#[tokio::test]
async fn a_database_that_was_open_to_the_migrator_when_its_visit_was_cut_is_shut() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let t = Tenant::new("tenant_cut_open");
        t.provision(&server, 1).await;
        let until_open_is = async |wanted: bool| {
            let look = async {
                let mut looks = tokio::time::interval(Duration::from_millis(5));
                loop {
                    let facts = server.observe(t.id, &t.database, &t.login).await.unwrap();
                    if facts.database.unwrap().migrator_may_connect == wanted {
                        break;
                    }
                    looks.tick().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), look).await.unwrap();
        };
        // The visit waits in the database, for somebody who holds the counters.
        let mut administrator = postgres.connect(&t.database).await.unwrap();
        administrator.execute("BEGIN; LOCK TABLE tenantry.counters").await.unwrap();
        {
            let read = pin!(server.read_counters(t.id, &t.database));
            let open = pin!(until_open_is(true));
            assert!(matches!(select(read, open).await, Either::Right(_)), "nothing was read");
        }
        until_open_is(false).await;
        administrator.execute("ROLLBACK").await.unwrap();
        // One whose visit ended with its process is found; one that is being built stays open.
        let building = Tenant::new("tenant_cut_building");
        let template = server.ensure_template(&ModuleSet::built_in()).await.unwrap();
        server.create_database(building.id, &template).await.unwrap();
        let open = format!("GRANT CONNECT ON DATABASE {} TO tenantry_migrator", t.database);
        administrator.execute(sqlx::AssertSqlSafe(open)).await.unwrap();
        let found = server.observe_all().await.unwrap().open_to_the_migrator();
        assert!(found.contains(&(t.database.clone(), t.id)), "{found:?}");
        // One that cannot be shut is in the way of no other.
        let gone = ("tenant_cut_gone".to_owned(), building.id);
        server.shut_left_open(&[gone, (t.database.clone(), t.id)]).await;
        until_open_is(false).await;
        assert!(found.iter().all(|(_, id)| *id != building.id), "{found:?}");
        server.drop_database(building.id, &building.database).await.unwrap();
    }
}

#[tokio::test]
async fn a_narrowing_that_was_cut_is_finished_by_the_next_one() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let t = Tenant::new("tenant_half_narrowed");
        t.provision(&server, 1).await;
        let mut session = t.session(postgres).await.unwrap();
        // What a cut between the swap and its proof leaves behind.
        let half_way = format!(
            "REVOKE tenantry_rw FROM {login}; GRANT tenantry_ro TO {login};
             COMMENT ON ROLE {login} IS 'tenantry:tenant:{id} narrowing'",
            login = t.login,
            id = t.id,
        );
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute(sqlx::AssertSqlSafe(half_way)).await.unwrap();
        let facts = server.observe(t.id, &t.database, &t.login).await.unwrap();
        assert_eq!((facts.login.as_ref().unwrap().narrowing, facts.access()), (true, None));
        server.set_access(t.id, &t.database, &t.login, AccessLevel::ReadOnly).await.unwrap();
        assert!(session.execute("SELECT 1").await.is_err());
        let facts = server.observe(t.id, &t.database, &t.login).await.unwrap();
        assert_eq!(facts.access(), Some(AccessLevel::ReadOnly));
    }
}
