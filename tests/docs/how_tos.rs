//! The commands of how-tos, each page in an environment as `make up` starts it.

use std::path::PathBuf;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry_dev::{Environment, EnvironmentOptions};

use crate::shell::{Shell, blocks, page};

async fn start(page: &str) -> (Environment, Shell) {
    let tenantry = PathBuf::from(env!("CARGO_BIN_EXE_tenantry"));
    let options = EnvironmentOptions { tenantry, ..EnvironmentOptions::default() };
    let environment = Environment::start(options).await.unwrap();
    let shell = Shell::new(environment.control_plane(), page);
    (environment, shell)
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn first_module_comes_to_three_tenants_as_printed() {
    let (_environment, shell) = start("modules").await;
    shell.run("kubectl apply -f examples/quickstart").await;
    let wait = "kubectl wait -n customers --for=condition=Ready tenants --all --timeout=60s";
    shell.run(wait).await;
    let document = page("modules.md");
    let blocks = blocks(&document);
    let [files, declare, update] = blocks[..3] else { panic!("{blocks:?}") };
    let have = |version: u8| {
        format!(
            "kubectl wait -n customers tenants --all --timeout=60s \
             --for=jsonpath='{{.status.modules[?(@.name==\"billing\")].version}}'={version}"
        )
    };
    shell.run(files).await;
    let shown = shell.run(declare).await;
    assert!(shown.lines().any(|line| line.starts_with("billing ") && line.contains("True")), "{shown}");
    shell.run(&have(2)).await;
    shell.run("echo 'CREATE INDEX ON invoices (paid_at);' > billing/0003_by_date.sql").await;
    shell.run(update).await;
    shell.run(&have(3)).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn database_is_adopted_as_printed() {
    let (environment, shell) = start("adopting").await;
    let postgres = environment.postgres();
    let mut admin = postgres.connect("postgres").await.unwrap();
    for sql in ["CREATE ROLE shop LOGIN PASSWORD 'old'", "CREATE DATABASE shop_acme OWNER shop"] {
        admin.execute(sql).await.unwrap();
    }
    let mut owner = PgConnection::connect(&postgres.url("shop", "old", "shop_acme")).await.unwrap();
    owner.execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    owner.close().await.unwrap();
    let mut inside = postgres.connect("shop_acme").await.unwrap();
    inside.execute("CREATE TABLE audit (id int)").await.unwrap();
    let document = page("adopting.md");
    let blocks = blocks(&document);
    let [allow, apply, read, again, confirm] = blocks[..] else { panic!("{blocks:?}") };
    for block in [allow, apply] {
        shell.run(block).await;
    }
    let reported =
        "kubectl wait -n customers tenant/acme --timeout=60s --for=jsonpath='{.status.adoption.state}'";
    shell.run(&format!("{reported}=Blocked")).await;
    // What the report says, as an administrator.
    let report = shell.run(read).await;
    let (blockers, changes) = report.rsplit_once("\n\n").unwrap();
    assert!(changes.contains("module core: applied from 1"), "{changes}");
    for blocker in blockers.split("\n\n") {
        let (_, statement) = blocker.rsplit_once(": ").unwrap_or_else(|| panic!("{blocker}"));
        inside.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    }
    shell.run(again).await;
    shell.run(&format!("{reported}=Reported")).await;
    shell.run(confirm).await;
    let shown = shell.run("kubectl get ten -n customers acme").await;
    assert!(shown.contains("ReadWrite"), "{shown}");
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn tenant_is_dumped_and_restored_as_printed() {
    let (environment, mut shell) = start("backup").await;
    let postgres = environment.postgres();
    shell.run("kubectl apply -f examples/quickstart/acme.yaml").await;
    shell.run("kubectl wait -n customers --for=condition=Ready tenant/acme --timeout=60s").await;
    let document = page("backup.md");
    let blocks = blocks(&document);
    let [own, dump, restore, look] = blocks[..] else { panic!("{blocks:?}") };
    assert!(own.contains("export ADMIN="));
    let admin = postgres.admin_url("");
    let admin = admin.split('?').next().unwrap().trim_end_matches('/').to_owned();
    shell.variables.push(("ADMIN".to_owned(), admin));
    // Programs of the server's version.
    shell.variables[0].1 = format!("{}:{}", postgres.binaries().directory.display(), shell.variables[0].1);
    shell.run(dump).await;
    let mut inside = postgres.connect("tenant_acme").await.unwrap();
    inside.execute("INSERT INTO users (email) VALUES ('later@acme.example')").await.unwrap();
    inside.close().await.unwrap();
    shell.run(restore).await;
    let mut inside = postgres.connect("tenant_acme").await.unwrap();
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut inside).await.unwrap();
    assert_eq!(users, 1, "the state of the dump");
    let secret = "kubectl get secret -n customers acme-db -o jsonpath='{.data.uri}' | base64 -d";
    let uri = shell.run(secret).await;
    let mut login = PgConnection::connect(&uri).await.unwrap();
    login.execute("INSERT INTO users (email) VALUES ('after@acme.example')").await.unwrap();
    let looked = shell.run(look).await;
    assert!(looked.contains("(1 row)"), "{looked}");
}
