//! The environment's PostgreSQL servers, of both versions that the tests of Tenantry use.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tenantry_dev::certificates::Authority;
use tenantry_dev::process::ProcessRecord;
use tenantry_dev::{Postgres, PostgresOptions, Stop, Version};

async fn server(major: u16) -> Postgres {
    Postgres::start(PostgresOptions { version: Version::Major(major), ..Default::default() })
        .await
        .expect("a server")
}

async fn text(server: &Postgres, query: &'static str) -> String {
    let mut session = server.connect("postgres").await.expect("a session");
    sqlx::query_scalar(query).fetch_one(&mut session).await.expect("an answer")
}

#[tokio::test]
async fn both_versions_survive_a_restart_and_a_crash() {
    let (old, new) = tokio::join!(server(15), server(18));
    for (server, major) in [(old, "15"), (new, "18")] {
        let version = text(&server, "show server_version").await;
        assert!(version.starts_with(major), "{version}");
        assert_eq!(text(&server, "show listen_addresses").await, "127.0.0.1");
        assert_eq!(text(&server, "show fsync").await, "off");
        let mut session = server.connect("postgres").await.expect("a session");
        sqlx::raw_sql("create table kept (n int); insert into kept values (7); checkpoint")
            .execute(&mut session)
            .await
            .expect("a table");
        let port = server.port();
        for mode in [Stop::Fast, Stop::Immediate] {
            server.stop(mode).await.expect("stopped");
            assert!(server.connect("postgres").await.is_err());
            server.start_again().await.expect("started again");
            assert_eq!(server.port(), port);
            assert_eq!(text(&server, "select n::text from kept").await, "7");
        }
    }
}

#[tokio::test]
async fn wrong_password_is_refused_and_settings_apply() {
    let settings = vec![("max_connections".to_owned(), "17".to_owned())];
    let options = PostgresOptions { settings, fsync: true, ..Default::default() };
    let server = Postgres::start(options).await.expect("a server");
    assert_eq!(text(&server, "show max_connections").await, "17");
    assert_eq!(text(&server, "show fsync").await, "on");
    let url = server.url("postgres", "wrong", "postgres");
    let refused = sqlx::PgConnection::connect(&url).await.expect_err("refused");
    assert_eq!(
        refused.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref(),
        Some("28P01")
    );
}

#[tokio::test]
async fn tls_verifies_authority_and_host_name() {
    let authority = Authority::new("ours").expect("an authority");
    let other = Authority::new("theirs").expect("an authority");
    for (certificate, trusted, mode, works) in [
        (authority.server(&["127.0.0.1"]), &authority, PgSslMode::VerifyFull, true),
        (authority.server(&["127.0.0.1"]), &other, PgSslMode::VerifyFull, false),
        (authority.server(&["db.example"]), &authority, PgSslMode::VerifyFull, false),
        (authority.server(&["db.example"]), &authority, PgSslMode::VerifyCa, true),
        (authority.expired_server(&["127.0.0.1"]), &authority, PgSslMode::VerifyFull, false),
    ] {
        let tls = Some(certificate.expect("a certificate"));
        let hba = Some("hostssl all all 127.0.0.1/32 scram-sha-256\n".to_owned());
        let server =
            Postgres::start(PostgresOptions { tls, hba, ..Default::default() }).await.expect("a server");
        let options: PgConnectOptions = server.admin_url("postgres").parse().expect("a URL");
        let options = options.ssl_mode(mode).ssl_root_cert_from_pem(trusted.certificate().into());
        let outcome = sqlx::PgConnection::connect_with(&options).await;
        assert_eq!(outcome.is_ok(), works, "{mode:?}: {:?}", outcome.err());
        assert!(server.connect("postgres").await.is_err(), "without TLS");
    }
}

/// Not a test: the parent process that `killed_parent_leaves_no_server` kills.
#[tokio::test]
#[ignore = "run by another test, which kills it"]
async fn parent_to_kill() {
    let server = server(15).await;
    println!(
        "server {} {}",
        server.service().record().expect("it runs").pid,
        server.service().log().display()
    );
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn killed_parent_leaves_no_server() {
    use std::io::{BufRead, BufReader};
    let mut parent = Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", "parent_to_kill", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a parent");
    let lines = BufReader::new(parent.stdout.take().expect("piped")).lines();
    let line =
        lines.map_while(Result::ok).find(|line| line.contains("server ")).expect("the server's process");
    let fields: Vec<&str> = line.split("server ").nth(1).expect("fields").split(' ').collect();
    let record = ProcessRecord::of(fields[0].parse().expect("a process id")).expect("the server runs");
    let directory = Path::new(fields[1]).parent().expect("its directory");
    assert!(directory.is_dir());
    parent.kill().expect("killed");
    parent.wait().expect("reaped");
    let started = Instant::now();
    while record.is_alive() || directory.exists() {
        assert!(started.elapsed() < Duration::from_secs(20), "the server or its data outlived the parent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
