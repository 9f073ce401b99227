//! What a module tries to hide from its rehearsal is found, or is impossible.

use sqlx::Executor;
use tenantry::{domain::rehearsal::FindingClass, postgres::server::Server};
use tenantry_dev::Postgres;

use super::rehearse;
use crate::servers::{SERVERS, ready};

const FIRST: &str = "CREATE TABLE pages (id int PRIMARY KEY, title text, size bigint);
    CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (1) TO (9);
    CREATE TYPE state AS ENUM ('new', 'old'); CREATE SEQUENCE numbers;
    CREATE VIEW titles AS SELECT title FROM pages;
    CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'";

/// What is destructive: found, refused without a consent, and accepted with it.
const DESTRUCTIVE: [(&str, &str); 22] = [
    ("DROP TABLE pages CASCADE", "drops table app.pages"),
    (
        "DROP TABLE pages CASCADE; CREATE TABLE pages (id int PRIMARY KEY, title text, size bigint)",
        "creates another one",
    ),
    ("ALTER TABLE pages RENAME TO pages_old; CREATE TABLE pages (id int)", "renames table app.pages"),
    ("ALTER TABLE pages RENAME title TO name", "renames column app.pages.title"),
    ("DO $$ BEGIN EXECUTE 'DR' || 'OP TABLE pa' || 'ges CASCADE'; END $$", "drops table app.pages"),
    ("ALTER TABLE pages DROP size", "drops column app.pages.size"),
    ("ALTER TABLE pages DROP size, ADD size bigint", "drops column app.pages.size"),
    ("ALTER TABLE pages ALTER size TYPE int", "from bigint to integer"),
    ("TRUNCATE pages", "empties table app.pages"),
    ("TRUNCATE parts", "empties table app.parts"),
    ("ALTER TABLE pages ADD n uuid DEFAULT gen_random_uuid(); TRUNCATE pages", "empties table app.pages"),
    ("DO $$ BEGIN DELETE FROM pages; END $$", "deletes rows of table app.pages"),
    (
        "ALTER TABLE pages DISABLE TRIGGER ALL; TRUNCATE pages; ALTER TABLE pages ENABLE TRIGGER ALL",
        "disables or drops triggers",
    ),
    (
        "DROP TRIGGER \"tenantry-rehearsal\" ON pages; TRUNCATE pages; CREATE TRIGGER \"tenantry-rehearsal\" BEFORE INSERT OR UPDATE OR \
         DELETE OR TRUNCATE ON pages FOR EACH STATEMENT EXECUTE FUNCTION tenantry_rehearsal.mark()",
        "disables or drops triggers",
    ),
    ("DROP VIEW titles", "drops view app.titles"),
    ("DROP FUNCTION f()", "drops function app.f()"),
    (
        "ALTER FUNCTION f() RENAME TO g; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "renames function app.f()",
    ),
    ("DROP TYPE state", "drops type app.state"),
    ("ALTER TYPE state RENAME VALUE 'old' TO 'older'", "renames value 'old'"),
    ("DROP SEQUENCE numbers", "drops sequence app.numbers"),
    ("ALTER TABLE parts DETACH PARTITION part", "detaches table app.part"),
    ("ALTER TABLE pages SET UNLOGGED", "lost in a crash"),
];

const OUTSIDE: FindingClass = FindingClass::OutsideSchema;
const RIGHTS: FindingClass = FindingClass::Rights;
const FAILED: FindingClass = FindingClass::SqlFailed;

/// What is refused, whatever is allowed: its class, and a part of the message.
const REFUSED: [(&str, FindingClass, &str); 47] = [
    ("CREATE TABLE public.notes (id int)", OUTSIDE, "creates table public.notes in schema public"),
    ("CREATE FUNCTION public.g() RETURNS int LANGUAGE sql AS 'SELECT 1'", OUTSIDE, "function public.g()"),
    ("CREATE TABLE tenantry.notes (id int)", OUTSIDE, "creates table tenantry.notes"),
    ("SET search_path = public; CREATE TABLE notes (id int)", OUTSIDE, "creates table public.notes"),
    ("ALTER TABLE pages SET SCHEMA public", OUTSIDE, "moves table app.pages out"),
    ("CREATE OR REPLACE FUNCTION tenantry.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'", OUTSIDE, "changes function tenantry.touch()"),
    (
        "CREATE FUNCTION tenantry.metered_0123456789abcdef() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = app AS \
         'BEGIN RETURN NULL; END'",
        OUTSIDE,
        "not created by tenantry.meter",
    ),
    (
        "SELECT tenantry.meter('pages', 'app.pages'); DO $$ DECLARE f regprocedure; BEGIN
         SELECT t.tgfoid INTO f FROM pg_trigger t WHERE tgname = 'tenantry_pages_insert';
         EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS ''BEGIN RETURN NULL; END''', f);
         END $$",
        OUTSIDE,
        "not created by tenantry.meter",
    ),
    ("ALTER TABLE public.users ADD age int", OUTSIDE, "creates column public.users.age on table public.users"),
    ("ALTER TABLE public.users DROP name", OUTSIDE, "drops column public.users.name"),
    ("ALTER TABLE public.users ALTER email DROP NOT NULL", OUTSIDE, "changes column public.users.email"),
    ("DROP TABLE public.users CASCADE", OUTSIDE, "drops table public.users"),
    ("ALTER TABLE public.users RENAME TO people", OUTSIDE, "changes table public.users"),
    ("CREATE INDEX mine ON public.users (name)", OUTSIDE, "on table public.users"),
    (
        "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER mine BEFORE INSERT ON public.users FOR EACH ROW EXECUTE FUNCTION g()",
        OUTSIDE,
        "creates trigger mine on public.users",
    ),
    ("CREATE RULE mine AS ON DELETE TO public.users DO INSTEAD NOTHING", OUTSIDE, "creates rule mine"),
    ("ALTER TABLE public.users ENABLE ROW LEVEL SECURITY", OUTSIDE, "changes table public.users"),
    ("ALTER TABLE public.users DISABLE TRIGGER USER; DELETE FROM public.users; ALTER TABLE public.users ENABLE TRIGGER USER", OUTSIDE, "disables or drops triggers"),
    ("TRUNCATE public.users CASCADE", OUTSIDE, "empties table public.users"),
    ("UPDATE public.users SET name = ''", OUTSIDE, "changes rows of table public.users"),
    ("UPDATE tenantry.limits SET maximum = NULL", OUTSIDE, "Tenantry alone writes there"),
    ("DO $$ BEGIN EXECUTE 'DELETE FROM tenantry.limits'; END $$", OUTSIDE, "deletes rows of table tenantry.limits"),
    ("INSERT INTO tenantry.migrations (module, version, file, checksum) VALUES ('app', 9, 'x', '')", OUTSIDE, "adds rows to table tenantry.migrations"),
    ("GRANT SELECT ON pages TO PUBLIC", RIGHTS, "leaves PUBLIC with SELECT on table app.pages"),
    ("GRANT INSERT (title) ON pages TO tenantry_ro", RIGHTS, "leaves tenantry_ro with INSERT on column title of app.pages"),
    ("GRANT TRUNCATE ON pages TO tenantry_rw", RIGHTS, "leaves tenantry_rw with TRUNCATE"),
    ("REVOKE DELETE ON pages FROM tenantry_shrink", RIGHTS, "leaves tenantry_shrink without DELETE"),
    ("GRANT ALL ON pages TO tenant_rehearsed_app", RIGHTS, "grants rights on table app.pages to tenant_rehearsed_app"),
    ("GRANT ALL ON public.users TO tenant_rehearsed_app", RIGHTS, "table public.users to tenant_rehearsed_app"),
    ("GRANT EXECUTE ON FUNCTION f() TO tenantry_migrator", RIGHTS, "grants rights on function app.f()"),
    ("ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT ALL ON TABLES TO PUBLIC", RIGHTS, "ALTER DEFAULT PRIVILEGES"),
    ("ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC", RIGHTS, "ALTER DEFAULT PRIVILEGES"),
    ("SET ROLE none; ALTER ROLE CURRENT_USER PASSWORD 'mine'; SET ROLE tenantry_owner", RIGHTS, "changes a role"),
    ("-- tenantry: no-transaction\nDO $$ BEGIN EXECUTE 'SET ROLE none'; EXECUTE 'ALTER ROLE CURRENT_USER PASSWORD ''mine'''; END $$", RIGHTS, "changes a role"),
    ("SET ROLE none; ALTER ROLE CURRENT_USER SET lock_timeout = 0; SET ROLE tenantry_owner", RIGHTS, "stores a setting"),
    (
        "CREATE FUNCTION s() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        RIGHTS,
        "add SET search_path = app, pg_temp",
    ),
    (
        "CREATE FUNCTION s() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = app AS 'SELECT 1'; \
         GRANT EXECUTE ON FUNCTION s() TO tenantry_ro",
        RIGHTS,
        "leaves tenantry_ro with EXECUTE",
    ),
    ("SET ROLE none; DROP TABLE app.pages CASCADE", FAILED, "permission denied for schema app"),
    ("-- tenantry: no-transaction\nSET ROLE none; ALTER ROLE tenantry_migrator PASSWORD 'mine'", FAILED, "[42501]"),
    ("ALTER TABLE pages OWNER TO tenantry_migrator", FAILED, "[42501]"),
    ("GRANT tenantry_owner TO tenant_rehearsed_app", FAILED, "[42501]"),
    ("SET ROLE tenantry_admin", FAILED, "[42501]"),
    ("CREATE ROLE mine", FAILED, "[42501]"),
    ("CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION tenantry.touch()", FAILED, "[42501]"),
    ("DELETE FROM tenantry_rehearsal.marks", FAILED, "[42501]"),
    ("DROP TABLE pages CASCADE; COMMIT", FAILED, "ends its own transaction"),
    ("COMMIT; DROP TABLE app.pages CASCADE; BEGIN; SAVEPOINT tenantry_file", FAILED, "ends its own transaction"),
];

/// Whether the finding is refused; none: it was not found.
async fn is_refused(
    server: &Server,
    sql: &str,
    class: FindingClass,
    phrase: &str,
    allow: bool,
    missed: &mut Vec<String>,
) -> Option<bool> {
    let report = rehearse(server, FIRST, sql, allow).await;
    let is_it = |message: &str| message.contains(phrase);
    let found = report.findings.iter().find(|finding| finding.class == class && is_it(&finding.message));
    if found.is_none() {
        missed.push(format!("{sql}: {phrase}: {:#?}", report.findings));
    }
    found.map(|found| found.refused)
}

/// Rehearses each of so many of the table. Returns what was not found.
async fn attack(postgres: &Postgres, each: usize) -> Vec<String> {
    let server = ready(postgres).await;
    let mut admin = postgres.connect("postgres").await.unwrap();
    // Two tests use it.
    let create =
        "DO $$ BEGIN CREATE ROLE tenant_rehearsed_app; EXCEPTION WHEN duplicate_object THEN NULL; END $$";
    admin.execute(create).await.unwrap();
    let mut missed = Vec::new();
    for (sql, class, phrase) in REFUSED.into_iter().step_by(each) {
        assert_ne!(is_refused(&server, sql, class, phrase, true, &mut missed).await, Some(false), "{sql}");
    }
    missed
}

async fn destroy(postgres: &Postgres, each: usize) -> Vec<String> {
    let server = ready(postgres).await;
    let mut missed = Vec::new();
    for (sql, phrase) in DESTRUCTIVE.into_iter().step_by(each) {
        let class = FindingClass::Destructive;
        assert_ne!(is_refused(&server, sql, class, phrase, false, &mut missed).await, Some(false), "{sql}");
    }
    missed
}

fn demand_none(missed: &[String]) {
    assert!(missed.is_empty(), "{} not found:\n{}", missed.len(), missed.join("\n"));
}

#[tokio::test]
async fn destructive_changes_need_a_consent_however_they_are_written() {
    let postgres = &SERVERS[1];
    demand_none(&destroy(postgres, 7).await);
    let server = ready(postgres).await;
    let (sql, _) = DESTRUCTIVE[0];
    assert!(rehearse(&server, FIRST, sql, true).await.is_accepted());
    // The place is that of the statement.
    let report = rehearse(&server, FIRST, "SELECT 1;\n  DROP TABLE pages CASCADE", false).await;
    let found = report.refusals().find(|finding| finding.object == "app.pages").unwrap();
    assert_eq!((&*found.file, found.line, found.column), ("0002_app.sql", Some(2), Some(3)));
}

#[tokio::test]
async fn what_a_module_must_not_do_is_found_or_impossible() {
    demand_none(&attack(&SERVERS[0], 9).await);
}

/// Both tables as a whole, on both versions.
#[tokio::test]
#[ignore = "slow: make test-all"]
async fn every_attack_is_found_or_impossible() {
    for postgres in &*SERVERS {
        let mut missed = destroy(postgres, 1).await;
        missed.extend(attack(postgres, 1).await);
        demand_none(&missed);
    }
}

/// The place of a right is the statement that changed it, not the first one that names the table.
#[tokio::test]
async fn right_is_found_where_it_was_changed() {
    let server = ready(&SERVERS[1]).await;
    let sql = "ALTER TABLE pages ALTER title SET NOT NULL;\nCREATE TABLE q (id int);\n\
               REVOKE SELECT ON q FROM tenantry_ro;\nGRANT SELECT ON q TO PUBLIC;\nGRANT SELECT ON pages TO PUBLIC;\n\
               ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC";
    let report = rehearse(&server, FIRST, sql, false).await;
    let found: Vec<_> = report.refusals().map(|finding| (finding.line.unwrap(), &*finding.object)).collect();
    let defaults = "of tenantry_owner in app";
    assert_eq!(&found[..4], [(3, "app.q"), (4, "app.q"), (5, "app.pages"), (6, defaults)], "{report:#?}");
    let report = rehearse(&server, FIRST, "SELECT 1;\nGRANT SELECT ON pages TO no_such_role", false).await;
    let [finding] = &report.findings[..] else { panic!("{report:#?}") };
    assert_eq!((finding.class, finding.line), (FAILED, Some(2)));
    assert!(finding.message.ends_with("Tenantry alone does: remove the GRANT"), "{finding:?}");
}
