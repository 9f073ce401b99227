//! What a former owner or a tool left in a database, and what is stored for roles, changes nothing in the sessions of the
//! operator.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{
    domain::{rights::RightsReport, structure::SchemaReport, usage::entitlements::Entitlements},
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
use uuid::Uuid;

use crate::servers::{SERVERS, Tenant, ready};

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
    IF session_user = 'tenantry_migrator' THEN INSERT INTO public.callers VALUES (session_user); END IF;
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
        let seed = Seed {
            settings: BTreeMap::new(),
            admins: Vec::new(),
            demo_data: false,
            credentials_only: false,
        };
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
