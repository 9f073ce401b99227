//! Files with the header `no-transaction`: interrupted anywhere, they go on, and nothing is left invalid.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{domain::record::ModuleVersion, modules::hexadecimal};

use super::{module, with};
use crate::{
    cancellation::through,
    servers::{SERVERS, Tenant, ready},
};

async fn indexes(session: &mut PgConnection, table: &str) -> Vec<(String, bool)> {
    let read = "SELECT c.relname::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                WHERE i.indrelid = to_regclass($1) ORDER BY 1";
    sqlx::query_as(read).bind(table).fetch_all(session).await.unwrap()
}

async fn ledger(session: &mut PgConnection) -> Vec<(i32, String)> {
    let read = "SELECT version, file FROM tenantry.migrations WHERE module = 'steps' ORDER BY 1";
    sqlx::query_as(read).fetch_all(session).await.unwrap()
}

async fn progress(session: &mut PgConnection) -> Vec<(i32, bool)> {
    let read = "SELECT done, began IS NOT NULL FROM tenantry.migration_progress WHERE module = 'steps'";
    sqlx::query_as(read).fetch_all(session).await.unwrap()
}

const FIRST: &str = "CREATE TABLE steps (id int, name text); INSERT INTO steps SELECT n, 'a' FROM generate_series(1, 100) AS n";

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn interrupted_anywhere_it_goes_on() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_steps");
        tenant.provision(&server, 1).await;
        let steps = "-- tenantry: no-transaction
            SET maintenance_work_mem = '8MB';
            ALTER TABLE steps ADD total int;
            CREATE INDEX CONCURRENTLY steps_by_name ON steps (name);
            INSERT INTO steps (id) VALUES (1000);
            REINDEX INDEX CONCURRENTLY steps_by_name;
            CREATE INDEX CONCURRENTLY steps_by_id ON steps (id);
            DROP INDEX CONCURRENTLY steps_by_id;
            CREATE TABLE memory AS SELECT current_setting('maintenance_work_mem') AS found;
            VACUUM steps";
        let set = &with(&[&module("steps", &[FIRST, steps])]);
        let migrate = async || server.migrate(&tenant.placement, set).await?.into_result();
        let versions = through("migrate", migrate).await;
        assert!(versions.contains(&ModuleVersion { name: "steps".into(), version: 2 }));
        let mut inside = postgres.connect(&tenant.placement.database).await.unwrap();
        assert_eq!(indexes(&mut inside, "public.steps").await, [("steps_by_name".to_owned(), true)]);
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM steps WHERE id = 1000")
            .fetch_one(&mut inside)
            .await
            .unwrap();
        assert_eq!(rows, 1);
        let memory: String =
            sqlx::query_scalar("SELECT found FROM memory").fetch_one(&mut inside).await.unwrap();
        assert_eq!(memory, "8MB");
        assert_eq!(progress(&mut inside).await, []);
        assert_eq!(ledger(&mut inside).await.len(), 2);
    }
}

#[tokio::test]
async fn invalid_index_is_rebuilt_and_a_correction_keeps_what_is_done() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_invalid");
        tenant.provision(&server, 1).await;
        let mut inside = postgres.connect(&tenant.placement.database).await.unwrap();
        let header = "-- tenantry: no-transaction\nALTER TABLE steps ADD note text;\n";
        let unique = format!("{header}  CREATE UNIQUE INDEX CONCURRENTLY steps_by_name ON steps (name);");
        let set = with(&[&module("steps", &[FIRST, &unique])]);
        let error =
            server.migrate(&tenant.placement, &set).await.unwrap().into_result().unwrap_err().to_string();
        assert!(error.contains("0002_steps.sql line 3 column 3") && error.contains("23505"), "{error}");
        // The version is not reported as applied, and what failed left nothing.
        assert_eq!(ledger(&mut inside).await.len(), 1);
        assert_eq!(progress(&mut inside).await, [(1, true)]);
        assert_eq!(indexes(&mut inside, "public.steps").await, []);
        // As after a kill: the index is there, and invalid.
        let left = "CREATE UNIQUE INDEX CONCURRENTLY steps_by_name ON steps (name)";
        let mut owner = postgres.connect(&tenant.placement.database).await.unwrap();
        owner.execute("SET ROLE tenantry_owner").await.unwrap();
        owner.execute(left).await.unwrap_err();
        assert_eq!(indexes(&mut inside, "public.steps").await, [("steps_by_name".to_owned(), false)]);
        owner.close().await.unwrap();

        // A correction must keep the statements that are done.
        let checksum = hexadecimal(&module("steps", &[&unique]).migrations[0].checksum());
        let other = format!("-- tenantry: replaces {checksum}\n{}", unique.replace("note", "notes"));
        let set = with(&[&module("steps", &[FIRST, &other])]);
        let error =
            server.migrate(&tenant.placement, &set).await.unwrap().into_result().unwrap_err().to_string();
        assert!(error.contains("its first 1 statement(s)"), "{error}");
        let corrected = unique.replace("UNIQUE ", "");
        let set = with(&[&module("steps", &[FIRST, &corrected])]);
        server.migrate(&tenant.placement, &set).await.unwrap().into_result().unwrap();
        assert_eq!(indexes(&mut inside, "public.steps").await, [("steps_by_name".to_owned(), true)]);
        assert_eq!(progress(&mut inside).await, []);
    }
}

#[tokio::test]
async fn statement_that_was_done_when_the_operator_died_is_not_repeated() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_done");
        tenant.provision(&server, 1).await;
        let statement = "CREATE INDEX CONCURRENTLY steps_by_id ON steps (id)";
        let files = [FIRST, &*format!("-- tenantry: no-transaction\n{statement}; SELECT no_such()")];
        let set = with(&[&module("steps", &files)]);
        server.migrate(&tenant.placement, &set).await.unwrap().into_result().unwrap_err();
        let mut inside = postgres.connect(&tenant.placement.database).await.unwrap();
        assert_eq!(progress(&mut inside).await, [(1, false)]);
        // As if it had been killed before it could record that: the index is valid, and the record is from before.
        let digest = format!("sha256(convert_to('{statement}', 'UTF8') || '\\x00'::bytea)");
        let before = format!(
            "UPDATE tenantry.migration_progress SET done = 0, digest = sha256(''), began = {digest}, indexes = ARRAY(
                 SELECT indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 WHERE relowner = 'tenantry_owner'::regrole AND relname <> 'steps_by_id')"
        );
        inside.execute(AssertSqlSafe(before)).await.unwrap();
        let set = with(&[&module("steps", &[FIRST, &files[1].replace("SELECT no_such()", "SELECT 1")])]);
        server.migrate(&tenant.placement, &set).await.unwrap().into_result().unwrap();
        assert_eq!(indexes(&mut inside, "public.steps").await, [("steps_by_id".to_owned(), true)]);
        assert_eq!(ledger(&mut inside).await.len(), 2);
        // A transaction of its own is refused, with its place.
        let set = with(&[&module("own", &["-- tenantry: no-transaction\nBEGIN;\nCOMMIT"])]);
        let error =
            server.migrate(&tenant.placement, &set).await.unwrap().into_result().unwrap_err().to_string();
        assert!(error.contains("0001_own.sql line 2 column 1: a file with the header"), "{error}");
    }
}
