//! What a former owner or a tool left in a database, and what is stored for roles, changes nothing in the sessions of the
//! operator.

mod migrator;

use std::{collections::BTreeMap, time::Duration};

use jiff::{Timestamp, ToSpan};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{
    domain::{
        rights::RightsReport,
        structure::SchemaReport,
        takeover::{Intent, Report},
        usage::entitlements::Entitlements,
    },
    modules::ModuleSet,
    postgres::{
        server::Server,
        tenant::{
            credentials::{generate_password, scram_verifier},
            migration_login::{MigratedDatabase, MigrationLogin},
            seed::Seed,
        },
    },
};
use tenantry_dev::Postgres;
use tenantry_test_support::Wait;
use tokio::time::timeout;
use uuid::Uuid;

use crate::servers::{SERVERS, Tenant, ready, set_up, start};

/// Runs SQL as a tool of the application, which is gone after it.
async fn as_tool(server: &Server, postgres: &Postgres, tenant: &Tenant, sql: &str) {
    let password = generate_password();
    let wanted = MigrationLogin {
        run: Uuid::new_v4(),
        schema: "public",
        verifier: &scram_verifier(&password),
        valid_until: Some(Timestamp::now() + 1.hour()),
    };
    let database = MigratedDatabase::OfTenant(&tenant.placement);
    let name = server.open_migration_login(&database, &wanted).await.unwrap();
    let url = postgres.url(&name, password.expose(), &tenant.placement.database);
    let mut tool = PgConnection::connect(&url).await.unwrap();
    tool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    drop(tool);
    server.close_migration_login(&name).await.unwrap();
}

/// Functions and an aggregate whose arguments fit better than those of PostgreSQL's. They lie, and record who called them.
const OVERLOADS: &str = "
CREATE TABLE public.callers (who text);
CREATE FUNCTION public.note() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    IF session_user LIKE 'tenantry_migrator_%' THEN INSERT INTO public.callers VALUES (session_user); END IF;
    RETURN true;
END $$;
CREATE FUNCTION public.step(state jsonb, name text, used bigint) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION public.last(state jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
    PERFORM public.note(); RETURN '{\"users\": 77}';
END $$;
CREATE AGGREGATE public.jsonb_object_agg(text, bigint)
    (SFUNC = public.step, STYPE = jsonb, FINALFUNC = public.last, INITCOND = '{}');
CREATE FUNCTION public.format(text, name, name) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note(); RETURN 'x'; END $$;
CREATE FUNCTION public.same(oid, regrole) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN public.note(); END $$;
CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = regrole, FUNCTION = public.same)";

#[tokio::test]
async fn better_fitting_functions_in_public_are_not_called() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("planted_overloads");
        tenant.provision(&server, 1).await;
        as_tool(&server, postgres, &tenant, OVERLOADS).await;

        let entitlements = Entitlements::default();
        let used = server.apply_limits(&tenant.placement, &entitlements).await.unwrap();
        assert_ne!(used.get("users"), Some(&77));
        assert_eq!(server.read_counters(&tenant.placement).await.unwrap(), used);
        let seed =
            Seed { settings: BTreeMap::new(), admins: Vec::new(), demo_data: false, credentials_only: false };
        server.seed(&tenant.placement, &seed, Some(&entitlements)).await.unwrap();
        assert_eq!(server.settle_rights(&tenant.placement).await.unwrap(), RightsReport::default());
        let modules = ModuleSet::built_in();
        let report = server.check_structure(&tenant.placement, &modules).await.unwrap();
        assert_eq!(report, SchemaReport::default());
        server.migrate(&tenant.placement, &modules).await.unwrap().into_result().unwrap();

        let mut admin = postgres.connect(&tenant.placement.database).await.unwrap();
        let callers: Vec<String> =
            sqlx::query_scalar("SELECT who FROM callers").fetch_all(&mut admin).await.unwrap();
        assert!(callers.is_empty(), "{callers:?}");
    }
}

#[tokio::test]
async fn stored_quoting_of_names_changes_no_rights() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("planted_quotes");
        tenant.provision(&server, 1).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute("ALTER DATABASE planted_quotes SET quote_all_identifiers = on").await.unwrap();
        assert_eq!(server.settle_rights(&tenant.placement).await.unwrap(), RightsReport::default());
        let mut login = tenant.session(postgres).await.unwrap();
        login.execute("SELECT * FROM tenantry.entitlements").await.unwrap();
        // The login may call it; the token is unknown.
        login.execute("SELECT * FROM tenantry.redeem('x')").await.unwrap();
    }
}

#[tokio::test]
async fn stored_quoting_of_names_hides_no_schema_from_a_takeover() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        for sql in [
            "CREATE ROLE planted_former LOGIN PASSWORD 'old'",
            "CREATE DATABASE planted_former OWNER planted_former",
            "ALTER DATABASE planted_former SET quote_all_identifiers = on",
            "GRANT planted_former TO tenantry_admin",
        ] {
            admin.execute(sql).await.unwrap();
        }
        let url = postgres.url("planted_former", "old", "planted_former");
        let mut former = PgConnection::connect(&url).await.unwrap();
        former
            .execute("CREATE SCHEMA tenantry; CREATE TABLE tenantry.migrations (module text)")
            .await
            .unwrap();
        former.close().await.unwrap();

        let placement = Tenant::new("planted_former").placement;
        let (found, _) =
            server.inspect(&placement.database, &placement.login, None, None).await.unwrap().unwrap();
        let modules = ModuleSet::new(vec![]);
        let intent = Intent {
            login: placement.login.clone(),
            modules: modules.targets(),
            baseline: vec![],
            of_tools: modules.of_tools(),
            missing: vec![],
            collisions: vec![],
            kept: None,
        };
        let blockers = Report::of(&found, &intent).blockers;
        assert!(blockers.iter().any(|line| line.starts_with("schema tenantry exists")), "{blockers:?}");
    }
}

#[tokio::test]
async fn new_leader_resets_what_is_stored_for_the_shared_roles() {
    // Servers of its own: two that reset the same settings at once refuse each other.
    for major in [15, 18] {
        let postgres = &set_up(start(major, vec![]).await).await;
        ready(postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        for sql in [
            "ALTER ROLE tenantry_migrator SET idle_session_timeout = '1h'",
            "ALTER ROLE tenantry_owner IN DATABASE postgres SET application_name = 'planted'",
        ] {
            admin.execute(sql).await.unwrap();
        }
        ready(postgres).await;
        let stored = "SELECT s.setrole::regrole::text FROM pg_db_role_setting AS s
            WHERE s.setrole IN ('tenantry_migrator'::regrole, 'tenantry_owner'::regrole)
              AND s.setconfig::text ~ 'idle_session_timeout|planted'";
        let left: Vec<String> = sqlx::query_scalar(stored).fetch_all(&mut admin).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// In place of the counters, a view that returns nothing for a day.
const SLEEPING: &str = "ALTER TABLE tenantry.counters RENAME TO counters_before;
CREATE VIEW tenantry.counters AS SELECT name, used FROM tenantry.counters_before, pg_sleep(86400);
GRANT SELECT ON tenantry.counters TO tenantry_rw, tenantry_shrink, tenantry_ro";

#[tokio::test]
async fn sleeping_view_leaves_no_process_and_no_slot_behind() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (tenant, other) = (Tenant::new("planted_sleeper"), Tenant::new("planted_beside"));
        for tenant in [&tenant, &other] {
            tenant.provision(&server, 1).await;
        }
        as_tool(&server, postgres, &tenant, SLEEPING).await;
        for _ in 0..8 {
            let given_up = timeout(Duration::from_millis(500), server.read_counters(&tenant.placement)).await;
            assert!(given_up.is_err());
        }
        let beside = timeout(Duration::from_secs(60), server.read_counters(&other.placement)).await;
        beside.expect("a neighbour finds a free slot").unwrap();
        let mut admin = postgres.connect("postgres").await.unwrap();
        let held = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'planted_sleeper' AND usename LIKE 'tenantry_migrator_%'";
        Wait::until("no process is left")
            .within(Duration::from_secs(60))
            .is_true(async || sqlx::query_scalar::<_, i64>(held).fetch_one(&mut admin).await.unwrap() == 0)
            .await;
    }
}

#[tokio::test]
async fn endless_counters_are_cut() {
    let postgres = &SERVERS[1];
    let server = ready(postgres).await;
    let tenant = Tenant::new("planted_many");
    tenant.provision(&server, 1).await;
    let view = "ALTER TABLE tenantry.counters RENAME TO counters_before;
        CREATE VIEW tenantry.counters AS
            SELECT n || repeat('x', 2000) AS name, n::bigint AS used FROM generate_series(1, 600000) AS n;
        GRANT SELECT ON tenantry.counters TO tenantry_rw, tenantry_shrink, tenantry_ro";
    as_tool(&server, postgres, &tenant, view).await;
    let counters = server.read_counters(&tenant.placement).await.unwrap();
    assert!(counters.len() <= 1000 && counters.keys().all(|name| name.len() <= 200));
}
