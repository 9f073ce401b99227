//! Code that was planted in a tenant's database takes over the login of a session of the operator: it gets that database, which
//! it had before, for as long as that session lasts.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sqlx::{Connection, PgConnection};
use tenantry::domain::usage::entitlements::Entitlements;
use tenantry_test_support::Wait;

use super::as_tool;
use crate::servers::{SERVERS, Tenant, ready, session_logins};

/// A trigger that changes the password of the session's login, and tries to keep the login.
const TAKEOVER: &str = r"
CREATE TABLE public.callers (who text);
GRANT ALL ON public.callers TO PUBLIC;
CREATE FUNCTION public.planted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE who text := session_user; change text; BEGIN
    IF who LIKE 'tenantry_migrator_%' THEN
        INSERT INTO public.callers VALUES (who);
        SET ROLE NONE;
        EXECUTE format('ALTER ROLE %I PASSWORD ''mine''', who);
        FOREACH change IN ARRAY ARRAY[
            'ALTER ROLE %I CONNECTION LIMIT 10', 'ALTER ROLE %I VALID UNTIL ''infinity''',
            'COMMENT ON ROLE %I IS NULL', 'ALTER ROLE tenantry_migrator LOGIN', 'CREATE TABLE public.mine_%s (a int)'
        ] LOOP
            BEGIN
                EXECUTE format(change, who);
                RAISE EXCEPTION 'it could: %', change;
            EXCEPTION WHEN insufficient_privilege THEN NULL; END;
        END LOOP;
        SET ROLE tenantry_migrator;
        ALTER ROLE tenantry_migrator PASSWORD 'mine';
        SET ROLE tenantry_owner;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER planted AFTER INSERT ON tenantry.plan FOR EACH STATEMENT EXECUTE FUNCTION public.planted()";

#[tokio::test]
async fn planted_trigger_takes_over_one_login_that_is_gone_with_its_session() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (tenant, victim) = (Tenant::new("planted_takeover"), Tenant::new("planted_victim"));
        for tenant in [&tenant, &victim] {
            tenant.provision(&server, 1).await;
        }
        as_tool(&server, postgres, &tenant, TAKEOVER).await;
        let entitlements = Entitlements::default();
        let done = AtomicBool::new(false);
        let operator = async {
            for _ in 0..20 {
                server.apply_limits(&tenant.placement, &entitlements).await.unwrap();
                server.read_counters(&victim.placement).await.unwrap();
            }
            done.store(true, Ordering::Relaxed);
        };
        // It knows the password from when the trigger has run.
        let thief = async {
            let mut looking = postgres.connect(&tenant.placement.database).await.unwrap();
            let mut attempts = 0;
            while !done.load(Ordering::Relaxed) {
                let logins =
                    "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, 'tenantry_migrator')";
                let logins: Vec<String> = sqlx::query_scalar(logins).fetch_all(&mut looking).await.unwrap();
                for (login, target) in logins.iter().flat_map(|login| [(login, &tenant), (login, &victim)]) {
                    attempts += 1;
                    let url = postgres.url(login, "mine", &target.placement.database);
                    let entered = PgConnection::connect(&url).await;
                    assert!(entered.is_err(), "{login} entered {}", target.placement.database);
                }
            }
            attempts
        };
        let ((), attempts) = tokio::join!(operator, thief);
        assert!(attempts > 0);
        let mut admin = postgres.connect(&tenant.placement.database).await.unwrap();
        let called = "SELECT DISTINCT who FROM callers";
        let called: Vec<String> = sqlx::query_scalar(called).fetch_all(&mut admin).await.unwrap();
        assert!(!called.is_empty());
        let left = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY ($1)";
        let left: Vec<String> = sqlx::query_scalar(left).bind(&called).fetch_all(&mut admin).await.unwrap();
        assert_eq!(left, [""; 0]);
    }
}

/// A trigger that ends its own session: the operation fails, and takes nothing away itself.
const SUICIDE: &str = "
CREATE FUNCTION public.planted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF session_user LIKE 'tenantry_migrator_%' THEN
        SET ROLE NONE;
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER planted AFTER INSERT ON tenantry.plan FOR EACH STATEMENT EXECUTE FUNCTION public.planted()";

#[tokio::test]
async fn session_that_planted_code_ended_leaves_no_login() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("planted_suicide");
        tenant.provision(&server, 1).await;
        as_tool(&server, postgres, &tenant, SUICIDE).await;
        for _ in 0..5 {
            server.apply_limits(&tenant.placement, &Entitlements::default()).await.unwrap_err();
        }
        let gone = async || session_logins(postgres, &tenant.placement.database).await == 0;
        Wait::until("the logins are gone").within(Duration::from_secs(60)).is_true(gone).await;
    }
}
