//! `server-setup --print-sql`: what it prints does what the program does.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::postgres::{
    install::printed::{SqlFormat, print_setup},
    server::Server,
};
use tenantry_dev::Postgres;

use crate::{
    managed::Kind,
    servers::{INSTALLATION, PASSWORD, Tenant, config, ready, set_up_as, setup_options, start},
};

/// An administrator of a server.
struct Administrator<'a> {
    postgres: &'a Postgres,
    /// Not a superuser.
    is_master: bool,
}

impl Administrator<'_> {
    async fn connect(&self, database: &str) -> PgConnection {
        let url = match self.is_master {
            true => self.postgres.url("master", "master", database),
            false => self.postgres.admin_url(database),
        };
        PgConnection::connect(&url).await.unwrap()
    }
}

/// Runs a script as psql does, with the two commands of psql that are in it. Returns how many statements were refused.
async fn run_as_psql(script: &str, administrator: &Administrator<'_>) -> usize {
    let mut session = administrator.connect("postgres").await;
    let (mut statement, mut in_block, mut refused) = (String::new(), false, 0);
    for line in script.lines() {
        if let Some(database) = line.strip_prefix("\\connect ") {
            session.close().await.unwrap();
            session = administrator.connect(database).await;
            continue;
        }
        if statement.is_empty() && (line.starts_with("--") || line.is_empty()) {
            continue;
        }
        statement.push_str(line);
        statement.push('\n');
        in_block ^= line.contains("$tenantry$");
        if let Some(query) = statement.trim_end().strip_suffix(" \\gexec") {
            let found: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut session).await.unwrap();
            for found in found {
                refused += usize::from(session.execute(AssertSqlSafe(found)).await.is_err());
            }
            statement.clear();
        } else if !in_block && line.ends_with(';') {
            refused += usize::from(session.execute(AssertSqlSafe(statement.as_str())).await.is_err());
            statement.clear();
        }
    }
    assert_eq!(statement, "");
    refused
}

#[tokio::test]
async fn printed_script_does_what_the_program_does() {
    for major in [15, 18] {
        for is_master in [false, true] {
            let postgres = Kind::OwnsNeither.start(major).await;
            let script = print_setup(&setup_options(), SqlFormat::Psql).unwrap();
            assert!(script.contains("PASSWORD 'SCRAM-SHA-256$") && !script.contains(PASSWORD), "{script}");
            let administrator = Administrator { postgres: &postgres, is_master };
            let refused = run_as_psql(&script, &administrator).await;
            assert_eq!(refused > 0, is_master, "{major}: {refused} refused");
            // It can be run again.
            assert_eq!(run_as_psql(&script, &administrator).await, refused, "{major}");
            // What the program leaves: see `managed`.
            let expected = if is_master { Kind::OwnsNeither.missing(major) } else { vec![] };
            let missing = Server::new(config(&postgres)).preflight(INSTALLATION).await.unwrap().missing;
            assert_eq!(missing, expected, "{major}");
            Tenant::new("tenant_printed").provision(&ready(&postgres).await, 1).await;
        }
    }
}

/// The entries of the lists, each of which CloudNativePG runs as one statement, as a superuser.
fn lists(yaml: &str) -> HashMap<&str, Vec<String>> {
    let mut lists: HashMap<&str, Vec<String>> = HashMap::new();
    let mut key = "";
    for line in yaml.lines().filter(|line| !line.trim_start().starts_with('#')) {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            key = name;
        } else if line == "  - |-" {
            lists.entry(key).or_default().push(String::new());
        } else {
            let entry = lists.get_mut(key).and_then(|list| list.last_mut()).unwrap();
            entry.push_str(line.strip_prefix("    ").unwrap());
            entry.push('\n');
        }
    }
    lists
}

#[tokio::test]
async fn printed_lists_set_a_new_server_up() {
    for major in [15, 18] {
        let postgres = start(major, vec![]).await;
        let yaml = print_setup(&setup_options(), SqlFormat::CloudNativePg).unwrap();
        let lists = lists(&yaml);
        assert_eq!(lists.len(), 2, "{yaml}");
        for (key, database) in [("postInitSQL", "postgres"), ("postInitTemplateSQL", "template1")] {
            let mut session = postgres.connect(database).await.unwrap();
            for statement in &lists[key] {
                session.execute(AssertSqlSafe(statement.as_str())).await.unwrap();
            }
            session.close().await.unwrap();
        }
        assert_eq!(Server::new(config(&postgres)).preflight(INSTALLATION).await.unwrap().missing, []);
        let report = set_up_as(&postgres.admin_url("postgres")).await;
        assert!(report.refused.is_empty() && report.reduced.is_empty(), "{report:?}");
        Tenant::new("tenant_listed").provision(&ready(&postgres).await, 1).await;
    }
}

#[test]
fn name_with_the_quotes_of_a_block_is_refused() {
    let mut options = setup_options();
    options.operator = "a$tenantry$b".into();
    assert!(print_setup(&options, SqlFormat::Psql).is_err());
}
