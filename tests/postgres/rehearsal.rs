//! A module is rehearsed in a scratch database before any tenant has it.

mod attacks;

use sqlx::{Executor, PgConnection};
use tenantry::{
    domain::rehearsal::{FindingClass, Rehearsal},
    modules::{Module, ModuleSet},
    postgres::server::Server,
};
use tenantry_test_support::Wait;

use crate::{
    modules::{extension, module},
    servers::{INSTALLATION, SERVERS, ready, set_up, start},
};

/// Rehearses a second file, after a first one that tenants have.
pub async fn rehearse(server: &Server, first: &str, second: &str, allow_destructive: bool) -> Rehearsal {
    let app = Module { schema: "app".into(), ..module("app", &[first, second]) };
    server.rehearse(&ModuleSet::built_in(), &app, 1, allow_destructive).await.unwrap()
}

/// The start of the names of all scratch databases.
const ALL: &str = "tenantry_scratch_";

/// How many databases have a name that begins like this.
async fn scratch_databases(admin: &mut PgConnection, name: &str) -> i64 {
    let count = "SELECT count(*) FROM pg_database WHERE starts_with(datname, $1)";
    sqlx::query_scalar(count).bind(name).fetch_one(admin).await.unwrap()
}

#[tokio::test]
async fn failing_file_is_reported_with_its_position_and_nothing_is_left() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        let good = "CREATE TABLE pages (id int);\nCREATE INDEX pages_by_id ON pages (id);";
        let bad = "CREATE TABLE notes (id int);\nCREATE TABLE more (a no_such_type);";
        let wiki = module("wiki", &[good, bad, "SELECT 1"]);
        let report = server.rehearse(&ModuleSet::built_in(), &wiki, 0, false).await.unwrap();
        let statements: Vec<u32> = report.files.iter().map(|file| file.statements).collect();
        assert_eq!(statements, [2, 0]);
        let [finding] = &report.findings[..] else { panic!("{report:?}") };
        assert_eq!(finding.class, FindingClass::SqlFailed);
        assert_eq!((&*finding.file, finding.line), ("0002_wiki.sql", Some(2)));
        assert!(!report.is_accepted());
        let mut modules = ModuleSet::built_in().modules().to_vec();
        modules.push(wiki);
        let name = format!("tenantry_scratch_{}", ModuleSet::new(modules).digest());
        assert_eq!(scratch_databases(&mut admin, &name).await, 0);
        // Files that were rehearsed before are applied, and not reported again.
        let wiki = module("wiki", &[good, "ALTER TABLE pages ADD title text"]);
        let report = server.rehearse(&ModuleSet::built_in(), &wiki, 1, false).await.unwrap();
        assert_eq!(report.files.iter().map(|file| file.version).collect::<Vec<_>>(), [2]);
        assert_eq!(report.findings, Rehearsal::default().findings);
    }
}

/// What docs/first-login.md shows: rows that Tenantry's functions write are not the module's.
#[tokio::test]
async fn module_that_registers_functions_is_accepted() {
    let first = "CREATE TABLE customers (email text PRIMARY KEY, name text NOT NULL, is_admin boolean NOT NULL);
        CREATE TABLE options (name text PRIMARY KEY, value text NOT NULL);
        CREATE FUNCTION seed_admin(admin jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO customers VALUES (admin ->> 'email', admin ->> 'name', true) ON CONFLICT DO NOTHING;
        END $$;
        CREATE FUNCTION apply_settings(settings jsonb, earlier jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO options SELECT key, value FROM jsonb_each_text(settings) ON CONFLICT DO NOTHING;
        END $$;
        CREATE FUNCTION demo() RETURNS void LANGUAGE sql AS 'SELECT';
        SELECT tenantry.on_admin('app.seed_admin'); SELECT tenantry.on_settings('app.apply_settings');
        SELECT tenantry.on_demo('app.demo'); SELECT tenantry.meter('users', 'app.customers')";
    let second = "SELECT tenantry.off('app.demo'); SELECT tenantry.on_admin('app.seed_admin')";
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let app = Module { schema: "app".into(), ..module("app", &[first, second]) };
        let alone = ModuleSet::new(Vec::new());
        let report = server.rehearse(&alone, &app, 0, false).await.unwrap();
        assert_eq!(report.findings, Rehearsal::default().findings);
        assert_eq!(report.files.len(), 2);
    }
}

#[tokio::test]
async fn honest_module_is_accepted_with_a_report() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let first = "CREATE TABLE pages (id int PRIMARY KEY, title varchar(20), email citext);
            CREATE TYPE state AS ENUM ('new'); CREATE VIEW titles AS SELECT title FROM pages;
            CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
            CREATE INDEX by_title ON pages (title)";
        let second = "ALTER TABLE pages ALTER title TYPE text, ADD author uuid REFERENCES public.users, ADD made timestamptz DEFAULT clock_timestamp();
            ALTER TYPE state ADD VALUE 'old';
            CREATE TABLE notes (id serial, page int REFERENCES pages, UNIQUE (page));
            SELECT tenantry.meter('pages', 'app.pages', 'title IS NOT NULL');
            INSERT INTO pages (id) VALUES (1);
            CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2';
            CREATE FUNCTION s() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = app AS 'SELECT 2';
            CREATE DOMAIN short AS text CHECK (length(VALUE) < 9);
            DROP INDEX by_title; ALTER TABLE pages ALTER email SET NOT NULL, ADD CHECK (id > 0)";
        let second = second.replace("ALTER email SET NOT NULL, ", "").replace("ALTER title TYPE text, ", "");
        let third = "-- tenantry: no-transaction
            CREATE INDEX CONCURRENTLY by_title ON pages (title); INSERT INTO notes (page) VALUES (1)";
        let app = Module {
            schema: "app".into(),
            extensions: vec![extension("citext", None)],
            ..module("app", &[first, &second, third])
        };
        let report = server.rehearse(&ModuleSet::built_in(), &app, 1, false).await.unwrap();
        assert!(report.is_accepted(), "{report:#?}");
        let [file, stepwise] = &report.files[..] else { panic!("{report:?}") };
        assert_eq!((file.statements, stepwise.statements), (10, 2));
        let lock =
            |relation: &str| file.locks.iter().find(|lock| lock.relation == relation).map(|lock| &*lock.mode);
        assert_eq!(lock("app.pages"), Some("AccessExclusiveLock"), "{file:?}");
        assert_eq!(lock("public.users"), Some("ShareRowExclusiveLock"), "{file:?}");
        assert!(file.rewritten.iter().any(|table| table.relation == "app.pages"), "{file:?}");
        assert!(stepwise.rewritten.is_empty(), "{stepwise:?}");
        // All at once, as for a module that no tenant has yet.
        let report = server.rehearse(&ModuleSet::built_in(), &app, 0, false).await.unwrap();
        assert!(report.is_accepted() && report.files.len() == 3, "{report:#?}");
        // What only a later file of the same rehearsal drops, no tenant has.
        let app = module(
            "app",
            &[
                "CREATE TABLE pages (id int); CREATE TABLE drafts (id int)",
                "DROP TABLE pages; TRUNCATE drafts",
            ],
        );
        let report = server.rehearse(&ModuleSet::built_in(), &app, 0, false).await.unwrap();
        assert!(report.is_accepted(), "{report:#?}");
        let report = server.rehearse(&ModuleSet::built_in(), &app, 1, false).await.unwrap();
        assert_eq!(report.refusals().filter(|finding| finding.class == FindingClass::Destructive).count(), 2);
    }
}

#[tokio::test]
async fn built_in_module_passes_its_rehearsal() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let mut before = ModuleSet::built_in().modules().to_vec();
        let projects = before.pop().unwrap();
        let report = server.rehearse(&ModuleSet::new(before), &projects, 0, false).await.unwrap();
        assert!(report.is_accepted(), "{report:#?}");
    }
}

#[tokio::test]
async fn missing_extension_is_an_error_before_any_tenant() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let app = Module { extensions: vec![extension("pageinspect", None)], ..module("app", &["SELECT 1"]) };
        let error = server.rehearse(&ModuleSet::built_in(), &app, 0, false).await.unwrap_err();
        assert_eq!(error.reason(), tenantry::api::reason::Reason::ExtensionNotFound, "{error}");
        assert!(error.to_string().contains("run this in template1"), "{error}");
    }
}

#[tokio::test]
async fn scratch_database_of_an_interrupted_rehearsal_is_dropped_and_belongs_to_no_tenant() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        let slow = server.clone();
        let rehearsing = tokio::spawn(async move {
            let app = module("app", &["SELECT pg_sleep(3600)"]);
            slow.rehearse(&ModuleSet::built_in(), &app, 0, false).await
        });
        let sleeps = async || {
            let count = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)' AND datname LIKE 'tenantry_scratch_%'";
            sqlx::query_scalar::<_, i64>(count).fetch_one(&mut admin).await.unwrap() > 0
        };
        Wait::until("the file is applied").is_true(sleeps).await;
        // One that is in use stays.
        assert_eq!(server.drop_old_scratch().await.unwrap(), [""; 0], "{major}");
        rehearsing.abort();
        assert!(rehearsing.await.unwrap_err().is_cancelled());
        assert_eq!(scratch_databases(&mut admin, ALL).await, 1, "{major}");
        // Neither a tenant's nor a leftover, and no login of a tenant may connect.
        let inventory = server.observe_all().await.unwrap();
        assert_eq!(inventory.owned_databases().count(), 0, "{major}");
        let missing = server.preflight(INSTALLATION).await.unwrap().missing;
        assert_eq!(missing, [], "{major}");
        // As after a crash before its comment; and others of such a name.
        for statement in [
            "CREATE DATABASE tenantry_scratch_0123456789abcdef01234567 OWNER tenantry_dba ALLOW_CONNECTIONS false",
            "CREATE DATABASE tenantry_scratch_1123456789abcdef01234567",
            "CREATE DATABASE tenantry_scratch_mine OWNER tenantry_dba ALLOW_CONNECTIONS false",
        ] {
            admin.execute(statement).await.unwrap();
        }
        assert_eq!(server.drop_old_scratch().await.unwrap().len(), 2, "{major}");
        assert_eq!(scratch_databases(&mut admin, ALL).await, 2, "{major}");
        assert_eq!(server.drop_old_scratch().await.unwrap(), [""; 0], "{major}");
    }
}
