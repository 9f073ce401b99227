//! The trigger: before or after one effect, and shared by both proxies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use sqlx::{Executor, PgConnection};
use tenantry_dev::interposer::{EffectKind, Effects, Moment, PostgresProxy};
use tenantry_dev::{Postgres, PostgresOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::{api_proxy, client, direct, never, postgres_proxy, session, until, within};

/// An action that reports when it starts and waits until the test ends it.
struct Action {
    runs: oneshot::Receiver<()>,
    end: oneshot::Sender<()>,
}

fn arm(effects: &Effects, number: usize, moment: Moment) -> Action {
    let ((report, runs), (end, ended)) = (oneshot::channel(), oneshot::channel());
    effects.arm(number, moment, async move || {
        let _ = report.send(());
        let _ = ended.await;
    });
    Action { runs, end }
}

async fn rows(session: &mut PgConnection, table: &str) -> i64 {
    let count = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
    sqlx::query_scalar(count).fetch_one(session).await.expect("a count")
}

#[tokio::test]
async fn before_forwards_nothing_to_the_server() {
    let effects = Effects::new();
    let proxy = postgres_proxy(&effects);
    let mut direct = direct().await;
    direct.execute("create table before (n int)").await.expect("a table");
    for extended in [false, true] {
        effects.reset();
        let action = arm(&effects, 2, Moment::Before);
        let (mut one, mut other) =
            (session(&proxy).await.expect("a session"), session(&proxy).await.expect("a session"));
        other.execute("select 1").await.expect("the first effect");
        let mut statement = tokio::spawn(async move {
            let insert = "insert into before values (1)";
            if extended {
                sqlx::query(insert).execute(&mut one).await
            } else {
                sqlx::raw_sql(insert).execute(&mut one).await
            }
        });
        within("the action runs", action.runs).await.expect("it runs");
        never("an end, which a process must not see before it is killed", &mut statement).await;
        let mut late = tokio::spawn(async move { other.execute("insert into before values (2)").await });
        never("an answer to anything else", &mut late).await;
        action.end.send(()).expect("it waits");
        let effect = within("the trigger", effects.triggered()).await;
        assert_eq!((effect.number, effect.kind), (2, EffectKind::Statement));
        assert_eq!(effect.what, "postgres: insert into before values (1)");
        within("an end", statement).await.expect("a task").expect_err("no answer");
        within("an end", late).await.expect("a task").expect_err("no answer");
        within("a refusal", session(&proxy)).await.expect_err("refused until the reset");
        assert_eq!(effects.recorded().len(), 2);
        assert_eq!(rows(&mut direct, "before").await, 0);
    }
    effects.reset();
    let mut again = session(&proxy).await.expect("a session");
    again.execute("insert into before values (3)").await.expect("done");
    assert_eq!((effects.recorded()[0].number, rows(&mut direct, "before").await), (1, 1));
}

#[tokio::test]
async fn after_executes_the_effect_and_withholds_the_answer() {
    let effects = Effects::new();
    let proxy = postgres_proxy(&effects);
    let mut direct = direct().await;
    direct.execute("create table after (n int)").await.expect("a table");
    for (count, extended) in [(1, false), (2, true)] {
        effects.reset();
        let mut session = session(&proxy).await.expect("a session");
        let action = arm(&effects, 1, Moment::After);
        let mut statement = tokio::spawn(async move {
            let insert = "insert into after values (1) returning n";
            if extended {
                sqlx::query(insert).fetch_all(&mut session).await
            } else {
                sqlx::raw_sql(insert).fetch_all(&mut session).await
            }
        });
        within("the action runs", action.runs).await.expect("it runs");
        assert_eq!(rows(&mut direct, "after").await, count, "executed and committed");
        never("an answer", &mut statement).await;
        action.end.send(()).expect("it waits");
        within("the trigger", effects.triggered()).await;
        within("an end", statement).await.expect("a task").expect_err("no answer");
    }
}

#[tokio::test]
async fn after_works_for_commit_copy_and_error() {
    let effects = Effects::new();
    let proxy = postgres_proxy(&effects);
    let mut direct = direct().await;
    direct.execute("create table kept (n int primary key)").await.expect("a table");

    let mut one = session(&proxy).await.expect("a session");
    effects.arm(3, Moment::After, async || {});
    one.execute("begin").await.expect("begun");
    one.execute("insert into kept values (1)").await.expect("inserted");
    within("an end", one.execute("commit")).await.expect_err("no answer");
    assert_eq!(within("the trigger", effects.triggered()).await.what, "postgres: commit");
    assert_eq!(rows(&mut direct, "kept").await, 1);

    effects.reset();
    let mut one = session(&proxy).await.expect("a session");
    effects.arm(1, Moment::After, async || {});
    let mut copy = one.copy_in_raw("copy kept from stdin").await.expect("the server asks for data");
    copy.send(&b"2\n3\n"[..]).await.expect("sent");
    within("an end", copy.finish()).await.expect_err("no answer");
    within("the trigger", effects.triggered()).await;
    assert_eq!(rows(&mut direct, "kept").await, 3);

    effects.reset();
    let mut one = session(&proxy).await.expect("a session");
    effects.arm(1, Moment::After, async || {});
    let error = within("an end", one.execute("insert into kept values (3)")).await.expect_err("no answer");
    assert!(error.as_database_error().is_none(), "the server's answer was withheld: {error}");
    within("the trigger", effects.triggered()).await;

    // A terminated session and a client that has disconnected: the answer ends there.
    effects.reset();
    let mut one = session(&proxy).await.expect("a session");
    effects.arm(1, Moment::After, async || {});
    let own = "select pg_terminate_backend(pg_backend_pid())";
    within("an end", one.execute(own)).await.expect_err("no answer");
    within("the trigger", effects.triggered()).await;

    effects.reset();
    let mut one = session(&proxy).await.expect("a session");
    effects.arm(1, Moment::After, async || {});
    let slow = tokio::spawn(async move { one.execute("insert into kept select 4 from pg_sleep(1)").await });
    until("it has come", || !effects.recorded().is_empty()).await;
    slow.abort();
    within("the trigger", effects.triggered()).await;
    assert_eq!(rows(&mut direct, "kept").await, 4);
}

/// A message in the wire format.
fn message(kind: u8, body: &str) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short") + 4;
    [&[kind][..], &length.to_be_bytes(), body.as_bytes()].concat()
}

#[tokio::test]
async fn after_works_for_a_client_that_pipelines() {
    let hba = Some("host all all 127.0.0.1/32 trust\n".to_owned());
    let server = Postgres::start(PostgresOptions { hba, ..Default::default() }).await.expect("a server");
    let effects = Effects::new();
    let proxy = PostgresProxy::start(server.port(), &effects).expect("a proxy");
    let mut direct = server.connect("postgres").await.expect("a session");
    direct.execute("create table piped (n int)").await.expect("a table");
    let query = |n: u8| message(b'Q', &format!("insert into piped values ({n})\0"));
    let execution = |n: u8| {
        let parse = message(b'P', &format!("\0insert into piped values ({n})\0\0\0"));
        [parse, message(b'B', "\0\0\0\0\0\0\0\0"), message(b'E', "\0\0\0\0\0")].concat()
    };
    let sync = || message(b'S', "");
    for (sent, armed, kept) in [
        ([query(1), query(2), query(3)].concat(), 2, 2),
        ([execution(4), sync(), execution(5), sync(), query(6)].concat(), 2, 4),
        // Statements before the same Sync are executed with it.
        ([query(7), execution(8), execution(9), sync(), execution(10), sync()].concat(), 2, 7),
    ] {
        effects.reset();
        effects.arm(armed, Moment::After, async || {});
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("a connection");
        let startup = b"\0\x03\0\0user\0postgres\0\0";
        let length = u32::try_from(startup.len()).expect("short") + 4;
        stream.write_all(&[&length.to_be_bytes()[..], startup, &sent].concat()).await.expect("sent");
        within("the trigger", effects.triggered()).await;
        let mut answers = Vec::new();
        let _ = within("an end", stream.read_to_end(&mut answers)).await;
        let completed = answers.windows(10).filter(|window| window.starts_with(b"INSERT 0 1")).count();
        assert_eq!(completed, armed - 1, "the answers before it were delivered");
        assert_eq!(rows(&mut direct, "piped").await, kept);
    }
}

#[tokio::test]
async fn trigger_applies_to_both_proxies() {
    let effects = Effects::new();
    let (postgres, api) = (postgres_proxy(&effects), api_proxy(&effects).await);
    let maps: Api<ConfigMap> = Api::namespaced(client(&api).await, "default");
    let real: Api<ConfigMap> = Api::namespaced(crate::PLANE.client().await.expect("a client"), "default");
    for (moment, name) in [(Moment::Before, "both-before"), (Moment::After, "both-after")] {
        effects.reset();
        let mut session = session(&postgres).await.expect("a session");
        let ran = Arc::new(AtomicBool::new(false));
        effects.arm(2, moment, {
            let ran = Arc::clone(&ran);
            async move || ran.store(true, Ordering::Relaxed)
        });
        session.execute("select 1").await.expect("the first effect");
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        within("an end", maps.create(&PostParams::default(), &map)).await.expect_err("no answer");
        let effect = within("the trigger", effects.triggered()).await;
        assert!(ran.load(Ordering::Relaxed));
        assert_eq!((effect.number, effect.kind), (2, EffectKind::Write));
        assert_eq!(effect.what, "POST /api/v1/namespaces/default/configmaps");
        let found = real.get_opt(name).await.expect("an answer");
        assert_eq!(found.is_some(), moment == Moment::After);
        within("an end", session.execute("select 2")).await.expect_err("closed");
        within("an end", maps.get_opt(name)).await.expect_err("refused until the reset");
        assert_eq!(effects.recorded().len(), 2);
    }
    effects.reset();
    maps.get("both-after").await.expect("healed");
}

#[tokio::test]
async fn reset_removes_the_trigger() {
    let effects = Effects::new();
    let proxy = postgres_proxy(&effects);
    let mut session = session(&proxy).await.expect("a session");
    effects.arm(1, Moment::Before, async || {});
    effects.reset();
    session.execute("select 1").await.expect("an answer");
    // Also a trigger whose answer is awaited; its client gets no answer in any case.
    effects.reset();
    effects.arm(1, Moment::After, async || {});
    let slow = tokio::spawn(async move { session.execute("select pg_sleep(0.5)").await });
    until("it has come", || !effects.recorded().is_empty()).await;
    effects.reset();
    within("an end", slow).await.expect("a task").expect_err("no answer");
    never("a trigger", effects.triggered()).await;
    let mut again = crate::session(&proxy).await.expect("a session");
    again.execute("select 2").await.expect("an answer");
}
