//! The proxy for PostgreSQL: what it forwards and counts, and its faults.

use std::time::{Duration, Instant};

use sqlx::{Connection, Executor};
use tenantry_dev::interposer::{EffectKind, Effects, Fault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{POSTGRES, direct, never, postgres_proxy, session, until, within};

#[tokio::test]
async fn statements_are_counted_with_their_text() {
    let effects = Effects::new();
    let proxy = postgres_proxy(&effects);
    let mut session = session(&proxy).await.expect("a session");
    session.execute(sqlx::raw_sql("create table counted (n int)")).await.expect("a simple query");
    for n in [7, 8] {
        let insert = sqlx::query("insert into counted values ($1)").bind(n);
        insert.execute(&mut session).await.expect("an extended query, prepared once");
    }
    let recorded: Vec<String> = effects.recorded().iter().map(ToString::to_string).collect();
    let insert = "insert into counted values ($1)";
    assert_eq!(
        recorded,
        [
            "1. postgres: create table counted (n int)".to_owned(),
            format!("2. postgres: {insert}"),
            format!("3. postgres: {insert}"),
        ]
    );
    assert!(effects.recorded().iter().all(|effect| effect.kind == EffectKind::Statement));
    let totals = proxy.totals();
    assert_eq!((totals.connections, totals.statements), (1, 3));

    effects.count_statements(|statement| {
        assert_eq!((&*statement.user, &*statement.application_name), ("postgres", "interposed"));
        statement.text.starts_with("delete")
    });
    effects.reset();
    for text in ["select 1", "delete from counted", "select 2"] {
        session.execute(sqlx::raw_sql(text)).await.expect("an answer");
    }
    let recorded = effects.recorded();
    assert_eq!(
        (recorded.len(), recorded[0].number, &*recorded[0].what),
        (1, 1, "postgres: delete from counted")
    );
    assert_eq!(proxy.totals().statements, 6);
    session.close().await.expect("an orderly end");
}

#[tokio::test]
async fn large_results_and_copied_data_pass() {
    let proxy = postgres_proxy(&Effects::new());
    let mut session = session(&proxy).await.expect("a session");
    let rows: Vec<String> =
        sqlx::query_scalar("select repeat('x', 1000) || n from generate_series(1, 20000) n")
            .fetch_all(&mut session)
            .await
            .expect("20 MB");
    assert_eq!((rows.len(), rows[19_999].len()), (20_000, 1005));
    let text: String = sqlx::query_scalar("select repeat('y', 30000000)")
        .fetch_one(&mut session)
        .await
        .expect("30 MB in one row");
    assert_eq!(text.len(), 30_000_000);

    session.execute("create table copied (text text)").await.expect("a table");
    let mut copy = session.copy_in_raw("copy copied from stdin").await.expect("a copy");
    for _ in 0..20 {
        copy.send("z\n".repeat(50_000).into_bytes()).await.expect("sent");
    }
    assert_eq!(copy.finish().await.expect("copied"), 1_000_000);
}

#[tokio::test]
async fn cancel_request_reaches_the_server() {
    let proxy = postgres_proxy(&Effects::new());
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("a connection");
    // A client that requests TLS is refused it and continues without.
    stream.write_all(&packet(&[8, 80_877_103])).await.expect("sent");
    assert_eq!(within("an answer", stream.read_u8()).await.expect("a byte"), b'N');
    let unknown = 7_654_321;
    stream.write_all(&packet(&[16, 80_877_102, unknown, 1])).await.expect("sent");
    let mut rest = Vec::new();
    within("an end", stream.read_to_end(&mut rest)).await.expect("closed in order");
    assert!(rest.is_empty());
    let log = POSTGRES.service().log();
    let refused = format!("PID {unknown} in cancel request");
    until("the server knows of it", || std::fs::read_to_string(&log).expect("a log").contains(&refused))
        .await;
}

#[tokio::test]
async fn hang_holds_statements_and_connections_until_it_ends() {
    let effects = Effects::new();
    let proxy = postgres_proxy(&effects);
    let (mut open, mut direct) = (session(&proxy).await.expect("a session"), direct().await);
    open.execute("create table hung (n int)").await.expect("a table");
    proxy.set(Fault::Hang);
    let connections = proxy.totals().connections;
    let mut statement = tokio::spawn(async move { open.execute("insert into hung values (1)").await });
    let mut connecting = tokio::spawn({
        let url = proxy.url("postgres", "any", "postgres");
        async move { sqlx::PgConnection::connect(&url).await.map(|_| ()) }
    });
    until("a connection is accepted", || proxy.totals().connections > connections).await;
    never("an answer on an open connection", &mut statement).await;
    never("an answer on a new connection", &mut connecting).await;
    let count = "select count(*) from hung";
    let rows: i64 = sqlx::query_scalar(count).fetch_one(&mut direct).await.expect("a count");
    assert_eq!((rows, effects.recorded().len()), (0, 1));

    proxy.set(Fault::Pass);
    within("the statement continues", statement).await.expect("a task").expect("done");
    let refused =
        within("the connection continues", connecting).await.expect("a task").expect_err("the server");
    assert!(refused.to_string().contains("password authentication failed"), "{refused}");
    let rows: i64 = sqlx::query_scalar(count).fetch_one(&mut direct).await.expect("a count");
    assert_eq!((rows, effects.recorded().len()), (1, 2));
}

#[tokio::test]
async fn refuse_closes_connections_and_accepts_none() {
    let effects = Effects::new();
    let proxy = postgres_proxy(&effects);
    let mut open = session(&proxy).await.expect("a session");
    let waiting = tokio::spawn(async move { open.execute("select pg_sleep(600)").await });
    until("it runs", || !effects.recorded().is_empty()).await;
    proxy.set(Fault::Refuse);
    within("the connection is closed", waiting).await.expect("a task").expect_err("no answer");
    within("a refusal", session(&proxy)).await.expect_err("refused");
    proxy.set(Fault::Pass);
    let mut healed = within("a session", session(&proxy)).await.expect("healed");
    healed.ping().await.expect("an answer");
    // Also when the fault ended before a connection observed it.
    proxy.set(Fault::Refuse);
    proxy.set(Fault::Pass);
    within("the connection is closed", healed.execute("select 1")).await.expect_err("no answer");
}

#[tokio::test]
async fn delay_affects_only_statements() {
    let proxy = postgres_proxy(&Effects::new());
    let delay = Duration::from_millis(200);
    proxy.set(Fault::Delay(delay));
    let mut session = session(&proxy).await.expect("a session");
    let begun = Instant::now();
    session.execute("select 1").await.expect("an answer");
    assert!(begun.elapsed() >= delay);

    proxy.set(Fault::Delay(Duration::from_secs(3600)));
    let mut statement = tokio::spawn(async move { session.execute("select 2").await });
    never("an answer", &mut statement).await;
    proxy.set(Fault::Pass);
    within("an end of the delay", statement).await.expect("a task").expect("an answer");
}

/// A packet of big-endian numbers.
fn packet(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}
