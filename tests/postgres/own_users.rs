//! An application with users and settings of its own, which has none of the built-in modules: its functions get the admins
//! and the settings. The module is the example of docs/first-login.md.

use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::{
    domain::{access::AccessLevel, usage::entitlements::Entitlements},
    modules::{Migration, Module, ModuleSet},
    postgres::{
        server::Server,
        tenant::{
            credentials::generate_password,
            seed::{AdminSeed, OneTimeSecret, Seed},
        },
    },
};
use tenantry_dev::Postgres;
use tenantry_test_support::Wait;

use crate::{
    admins::admin,
    servers::{SERVERS, Tenant, access, empty_seed, ready, refusal},
};

/// The SQL of the example in the documentation.
fn example() -> String {
    let page = include_str!("../../docs/first-login.md");
    let section = page.split("## An application with its own users").nth(1).unwrap();
    section.split("```sql\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

fn module(files: &[&str]) -> ModuleSet {
    let file = |(index, sql): (usize, &&str)| {
        let version = i32::try_from(index).unwrap() + 1;
        Migration { version, file: format!("{version:04}_app.sql").into(), sql: sql.to_string().into() }
    };
    ModuleSet::new(vec![Module::new("app", files.iter().enumerate().map(file).collect::<Vec<_>>())])
}

/// A tenant whose only module is the application's, in a schema of its own.
async fn provision(postgres: &Postgres, server: &Server, name: &str, files: &[&str]) -> Tenant {
    let tenant = Tenant::new(name);
    tenant.provision_with(server, &ModuleSet::new(vec![]), 1).await;
    let schema =
        "SET ROLE tenantry_dba; CREATE SCHEMA app; GRANT USAGE, CREATE ON SCHEMA app TO tenantry_owner;
        GRANT USAGE ON SCHEMA app TO tenantry_rw, tenantry_shrink, tenantry_ro; SET ROLE tenantry_owner;
        ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tenantry_rw";
    postgres.connect(&tenant.placement.database).await.unwrap().execute(schema).await.unwrap();
    server.migrate(&tenant.placement, &module(files)).await.unwrap();
    tenant
}

fn seed(emails: &[&str]) -> Seed {
    let admin = |email: &&str| admin(email, OneTimeSecret::ResetToken(generate_password()), 1);
    Seed { admins: emails.iter().map(admin).collect(), ..empty_seed() }
}

async fn rows(session: &mut PgConnection, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(session).await.unwrap()
}

const CUSTOMERS: &str = "SELECT concat_ws(' ', email, name, is_admin) FROM app.customers ORDER BY email";

#[tokio::test]
async fn application_with_its_own_users_is_seeded_and_limited() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = provision(postgres, &server, "tenant_own_users", &[&example()]).await;
        let placement = &tenant.placement;
        let limits = [("users".to_owned(), Some(2))].into();
        server.apply_limits(placement, &Entitlements { limits, ..Entitlements::default() }).await.unwrap();
        let mut session = tenant.session(postgres).await.unwrap();
        // One of the same name in another schema is another one.
        let namesake = "SET ROLE tenantry_owner; CREATE FUNCTION public.seed_admin(admin jsonb) RETURNS void
            LANGUAGE plpgsql AS $$ BEGIN RAISE 'not registered'; END $$";
        postgres.connect(&placement.database).await.unwrap().execute(namesake).await.unwrap();
        let both = seed(&["ada@x.example", "bea@x.example"]);
        for _ in 0..2 {
            let outcome = server.seed(placement, &both, None).await.unwrap();
            assert_eq!((outcome.offered.len(), outcome.usage["users"]), (2, 2));
        }
        // One is removed; for the other, only the credential is new, and the account is the application's.
        session.execute("UPDATE app.customers SET is_admin = false").await.unwrap();
        let renewal = Seed { credentials_only: true, ..seed(&["ada@x.example"]) };
        assert_eq!(server.seed(placement, &renewal, None).await.unwrap().offered, ["ada@x.example"]);
        let customers = rows(&mut session, CUSTOMERS).await;
        assert_eq!(customers, ["ada@x.example A person f", "bea@x.example A person f"]);

        for (settings, options) in
            [(json!({"a": 1, "b": "x"}), vec!["a=1", "b=x"]), (json!({"b": "y"}), vec!["b=y"])]
        {
            let settings = serde_json::from_value(settings).unwrap();
            server.seed(placement, &Seed { settings, ..seed(&["ada@x.example"]) }, None).await.unwrap();
            assert_eq!(rows(&mut session, "SELECT name || '=' || value FROM app.options").await, options);
        }
        // A third is over the limit: neither the application nor the Tenant adds one.
        let more = "INSERT INTO app.customers (email, name) VALUES ('eve@x.example', '')";
        assert_eq!(refusal(&mut session, more).await, "TNLIM");
        let error =
            server.seed(placement, &seed(&["ada@x.example", "cy@x.example"]), None).await.unwrap_err();
        assert_eq!(error.sql_state().as_deref(), Some("TNLIM"));
        assert_eq!(
            server.verify(placement, &tenant.password).await.unwrap(),
            module(&[&example()]).targets()
        );
    }
}

/// Functions that do what they should not, and what the error says.
const FAULTS: &[(&str, &str)] = &[
    (
        "CREATE OR REPLACE FUNCTION app.seed_admin(admin jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'no room for %', admin ->> 'email'; END $$",
        "function app.seed_admin of module app: no room for ada@x.example (PL/pgSQL function seed_admin(jsonb) line 2",
    ),
    (
        "CREATE OR REPLACE FUNCTION app.seed_admin(admin jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            ASSERT false, 'asserted'; END $$",
        "function app.seed_admin of module app: asserted",
    ),
    (
        "CREATE OR REPLACE FUNCTION app.seed_admin(admin jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            SET LOCAL ROLE NONE; END $$",
        "function app.seed_admin of module app: it left its caller as the role tenantry_migrator_",
    ),
    (
        "CREATE OR REPLACE FUNCTION app.seed_admin(admin jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            SET ROLE tenantry_admin; END $$",
        "permission denied to set role \"tenantry_admin\"",
    ),
    (
        "CREATE OR REPLACE FUNCTION app.seed_admin(admin jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            COMMIT; END $$",
        "function app.seed_admin of module app: invalid transaction termination",
    ),
    (
        "DROP FUNCTION app.seed_admin",
        "function app.seed_admin of module app: app.seed_admin(jsonb) does not exist",
    ),
    (
        "RESET ROLE; ALTER FUNCTION app.seed_admin OWNER TO postgres",
        "app.seed_admin(jsonb) belongs to postgres: it must belong to tenantry_owner",
    ),
];

#[tokio::test]
async fn failing_function_is_named_and_delays_no_restriction() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = provision(postgres, &server, "tenant_raising", &[&example()]).await;
        let placement = &tenant.placement;
        let mut owner = postgres.connect(&placement.database).await.unwrap();
        let again = example();
        let again =
            again.split("-- Called for each admin.").nth(1).unwrap().split("-- Called with").next().unwrap();
        for (fault, message) in FAULTS {
            owner.execute("SET ROLE tenantry_owner").await.unwrap();
            owner.execute(*fault).await.unwrap();
            let error =
                server.seed(placement, &seed(&["ada@x.example"]), None).await.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            owner.execute("RESET ROLE; DROP FUNCTION IF EXISTS app.seed_admin").await.unwrap();
            owner.execute("SET ROLE tenantry_owner").await.unwrap();
            owner.execute(sqlx::raw_sql(AssertSqlSafe(again.to_owned()))).await.unwrap();
        }
        // Nothing of a failed seed stays, and the next one is complete.
        let known: i64 =
            sqlx::query_scalar("SELECT count(*) FROM tenantry.admins").fetch_one(&mut owner).await.unwrap();
        assert_eq!(known, 0);
        assert_eq!(server.seed(placement, &seed(&["ada@x.example"]), None).await.unwrap().offered.len(), 1);

        // One that does not return: a restriction is in force meanwhile, and a time limit of the server ends it.
        let endless =
            "CREATE OR REPLACE FUNCTION app.seed_admin(admin jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            IF current_setting('statement_timeout') <> '30s' THEN RAISE 'no time limit'; END IF;
            PERFORM pg_advisory_xact_lock(1); PERFORM pg_advisory_xact_lock(2); END $$";
        owner.execute(endless).await.unwrap();
        owner.execute("SELECT pg_advisory_lock(2)").await.unwrap();
        let (seeding, blocked) = (seed(&["ada@x.example"]), async {
            let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
            Wait::until("the function waits")
                .is_true(async || sqlx::query_scalar(waits).fetch_one(&mut owner).await.unwrap())
                .await;
            server.set_access(placement, AccessLevel::Blocked).await.unwrap();
            assert_eq!(access(&server.observe(placement).await.unwrap()), Some(AccessLevel::Blocked));
            owner.execute("SELECT pg_advisory_unlock(2)").await.unwrap();
        });
        let both = async { tokio::join!(server.seed(placement, &seeding, None), blocked) };
        tokio::time::timeout(Duration::from_secs(60), both).await.unwrap().0.unwrap();
    }
}

#[tokio::test]
async fn function_is_refused_in_the_migration_that_registers_it() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = provision(postgres, &server, "tenant_refused_function", &[]).await;
        for (sql, message) in [
            ("SELECT tenantry.on_admin('app.absent')", "app.absent(jsonb) does not exist"),
            (
                "SELECT tenantry.on_admin('seed_admin')",
                "name the function with its schema, such as app.seed_admin",
            ),
            ("SELECT tenantry.on_admin('a b')", "string is not a valid identifier"),
            (
                "SELECT tenantry.on_settings('app.f')",
                "app.f(jsonb, jsonb) must be a function that returns void",
            ),
            (
                "SELECT tenantry.on_admin('app.f')",
                "app.f(jsonb) must be a function that returns void or boolean",
            ),
            (
                "SELECT tenantry.on_admin('pg_catalog.jsonb_pretty')",
                "must be a function that returns void or boolean",
            ),
        ] {
            let functions = "CREATE FUNCTION app.f(jsonb, jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
                CREATE PROCEDURE app.f(jsonb) LANGUAGE sql AS '';";
            let files = module(&[&format!("{functions} {sql}")]);
            let error = server
                .migrate(&tenant.placement, &files)
                .await
                .unwrap()
                .into_result()
                .unwrap_err()
                .to_string();
            assert!(error.contains(message) && error.contains("0001_app.sql"), "{error}");
        }
    }
}

/// A module that is added to a tenant, and one that answers for itself whether a credential is needed.
#[tokio::test]
async fn function_is_called_at_once_for_the_admins_and_settings_that_there_are() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = provision(postgres, &server, "tenant_added", &[]).await;
        let placement = &tenant.placement;
        let settings = [("a".to_owned(), json!(1))].into();
        let known = Seed { settings, ..seed(&["ada@x.example", "bea@x.example"]) };
        server.seed(placement, &known, None).await.unwrap();
        server.seed(placement, &Seed { admins: known.admins[..1].to_vec(), ..known }, None).await.unwrap();
        let first = example();
        let answering = "CREATE FUNCTION app.needs(admin jsonb) RETURNS boolean LANGUAGE sql AS
                'SELECT NOT EXISTS (SELECT FROM app.customers c WHERE c.email = admin ->> ''email'' AND c.password IS NOT NULL)';
            SELECT tenantry.on_admin('app.needs'); SELECT tenantry.off('app.apply_settings')";
        server.migrate(placement, &module(&[&first, answering])).await.unwrap();
        let mut session = tenant.session(postgres).await.unwrap();
        assert_eq!(rows(&mut session, CUSTOMERS).await, ["ada@x.example A person t"]);
        assert_eq!(rows(&mut session, "SELECT name || value FROM app.options").await, ["a1"]);

        let again: Vec<AdminSeed> = seed(&["ada@x.example"]).admins;
        let renewal = Seed { admins: again, credentials_only: true, ..empty_seed() };
        assert_eq!(server.seed(placement, &renewal, None).await.unwrap().offered, ["ada@x.example"]);
        session.execute("UPDATE app.customers SET password = 'x'").await.unwrap();
        assert!(server.seed(placement, &renewal, None).await.unwrap().offered.is_empty());
        let open = "SELECT email FROM tenantry.admins WHERE token_hash IS NOT NULL";
        assert!(rows(&mut session, open).await.is_empty());
    }
}
