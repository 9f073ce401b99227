//! The end of migration logins: whatever a tool, a tenant or an administrator has done with one, none is left.

use jiff::{Timestamp, ToSpan};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, postgres::PgConnectOptions};
use tenantry::{
    api::reason::Reason,
    domain::{migration_login::MigrationOwner, placement::Placement},
    postgres::tenant::{
        credentials::scram_verifier,
        migration_login::{MigratedDatabase, MigrationLogin},
    },
};
use tenantry_test_support::Wait;
use uuid::Uuid;

use super::{Opened, refused, roles_named};
use crate::servers::{SERVERS, Tenant, ready, set_up, start};

#[tokio::test]
async fn login_is_gone_after_its_run_whatever_the_tool_does() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (tenant, other) = (Tenant::new("tenant_ended"), Tenant::new("tenant_meddler"));
        for tenant in [&tenant, &other] {
            tenant.provision(&server, 1).await;
        }
        let placement = &tenant.placement;
        let opened = Opened::of(&server, placement).await;
        let database = &placement.database;
        let mut application = tenant.session(postgres).await.unwrap();
        // It holds a lock that every change of its role waits for.
        let mut holder = opened.session(postgres, database).await.unwrap();
        holder.execute("BEGIN; SET ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'x'").await.unwrap();
        let mut preparer = opened.session(postgres, database).await.unwrap();
        preparer.execute("BEGIN; LOCK TABLE users; PREPARE TRANSACTION 'left by a tool'").await.unwrap();
        // Rights of it in its own database and in another tenant's, and something that it owns.
        let mut tool = opened.session(postgres, database).await.unwrap();
        let grant = format!("CREATE TABLE granted (a int); GRANT SELECT ON granted TO {}", opened.name);
        tool.execute(AssertSqlSafe(grant)).await.unwrap();
        let mut superuser = postgres.connect(database).await.unwrap();
        let own = format!("CREATE TABLE own (a int); ALTER TABLE own OWNER TO {}", opened.name);
        superuser.execute(AssertSqlSafe(own)).await.unwrap();
        let mut meddler = other.session(postgres).await.unwrap();
        let grant = format!("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {}", opened.name);
        meddler.execute(AssertSqlSafe(grant)).await.unwrap();
        // It cannot be passed on by the tool, but by an administrator: who has it becomes the owner in its own database.
        let passed_on = format!("GRANT {} TO {}", opened.name, other.placement.login);
        let denied = refused(&mut tool, &format!("BEGIN; SET ROLE NONE; {passed_on}")).await;
        assert_eq!(denied.as_deref(), Some("42501"));
        let mut owner = other.session(postgres).await.unwrap();
        assert_eq!(refused(&mut owner, "SET ROLE tenantry_owner").await.as_deref(), Some("42501"));
        superuser.execute(AssertSqlSafe(passed_on)).await.unwrap();
        // Nor does it matter what else it was made a member of.
        superuser.execute(AssertSqlSafe(format!("GRANT pg_monitor TO {}", opened.name))).await.unwrap();
        owner.execute("SET ROLE tenantry_owner").await.unwrap();
        let found = server.observe_all().await.unwrap().migration_logins();
        let [found] = &found.iter().filter(|login| login.name == opened.name).collect::<Vec<_>>()[..] else {
            panic!("{found:?}")
        };
        assert_eq!((&found.owner, found.run), (&MigrationOwner::Tenant(placement.tenant), opened.run));
        assert_eq!(found.members, std::slice::from_ref(&other.placement.login));

        let reassigned = server.close_migration_login(&opened.name).await.unwrap();
        assert_eq!(reassigned, ["table public.own"]);
        assert_eq!(roles_named(postgres, &opened.name).await, 0);
        assert!(opened.session(postgres, database).await.is_err());
        for session in [&mut holder, &mut preparer, &mut tool, &mut owner] {
            assert!(session.execute("SELECT 1").await.is_err());
        }
        // The tenant's own sessions go on, and the lock of the prepared transaction is gone.
        application.execute("SELECT * FROM users").await.unwrap();
        let left = "SELECT (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())
            + (SELECT count(*) FROM pg_class WHERE relname = 'own' AND relowner <> 'tenantry_owner'::regrole)
            + has_database_privilege('tenantry_owner', current_database(), 'CREATE')::int";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&mut superuser).await.unwrap();
        assert_eq!(left, 0);
        // Again, and with nothing to do.
        assert!(server.close_migration_login(&opened.name).await.unwrap().is_empty());
        assert!(server.revoke_borrowed_memberships().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn session_that_is_still_starting_does_not_outlive_its_login() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_slow_start");
        tenant.provision(&server, 1).await;
        let placement = &tenant.placement;
        let opened = Opened::of(&server, placement).await;
        // It has passed every check, and is not listed with its role yet.
        let url = postgres.url(&opened.name, opened.password.expose(), &placement.database);
        let options = url.parse::<PgConnectOptions>().unwrap().options([("post_auth_delay", "60")]);
        let client = tokio::spawn(async move { options.connect().await });
        let mut superuser = postgres.connect("postgres").await.unwrap();
        let starting = "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.objid
            WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND d.datname = 'tenant_slow_start'";
        Wait::until("the session starts")
            .is_true(async || {
                sqlx::query_scalar::<_, i64>(starting).fetch_one(&mut superuser).await.unwrap() > 0
            })
            .await;
        server.close_migration_login(&opened.name).await.unwrap();
        // PostgreSQL may finish its start before it ends it.
        if let Ok(mut session) = client.await.unwrap() {
            assert!(session.execute("SELECT 1").await.is_err());
        }
        assert_eq!(roles_named(postgres, &opened.name).await, 0);
    }
}

#[tokio::test]
async fn login_is_ended_without_the_right_to_signal_others() {
    let postgres = set_up(start(18, Vec::new()).await).await;
    let mut superuser = postgres.connect("postgres").await.unwrap();
    superuser.execute("REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin").await.unwrap();
    let server = ready(&postgres).await;
    let tenant = Tenant::new("tenant_no_signals");
    tenant.provision(&server, 1).await;
    let opened = Opened::of(&server, &tenant.placement).await;
    let mut tool = opened.session(&postgres, &tenant.placement.database).await.unwrap();
    tool.execute("BEGIN; CREATE TABLE half (a int)").await.unwrap();
    server.close_migration_login(&opened.name).await.unwrap();
    assert!(tool.execute("SELECT 1").await.is_err());
    assert_eq!(roles_named(&postgres, &opened.name).await, 0);
}

#[tokio::test]
async fn login_of_an_earlier_run_is_replaced_and_another_role_is_not_touched() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_rerun");
        tenant.provision(&server, 1).await;
        let placement = &tenant.placement;
        let first = Opened::of(&server, placement).await;
        let mut earlier = first.session(postgres, &placement.database).await.unwrap();
        let second = Opened::of(&server, placement).await;
        assert!(earlier.execute("SELECT 1").await.is_err());
        assert!(first.session(postgres, &placement.database).await.is_err());
        second.session(postgres, &placement.database).await.unwrap();
        // Its password is valid for its run only.
        let late = Opened::until(&server, placement, Timestamp::now() - 1.second()).await;
        assert!(late.session(postgres, &placement.database).await.is_err());
        server.close_migration_login(&late.name).await.unwrap();

        let mut superuser = postgres.connect("postgres").await.unwrap();
        let foreign = format!("CREATE ROLE {} LOGIN", late.name);
        superuser.execute(AssertSqlSafe(foreign)).await.unwrap();
        let wanted = MigrationLogin {
            run: Uuid::new_v4(),
            schema: "public",
            verifier: &scram_verifier(&late.password),
            valid_until: None,
        };
        let open = server.open_migration_login(&MigratedDatabase::OfTenant(placement), &wanted).await;
        assert_eq!(open.unwrap_err().reason(), Reason::Conflict);
        assert_eq!(roles_named(postgres, &late.name).await, 1);
        superuser.execute(AssertSqlSafe(format!("DROP ROLE {}", late.name))).await.unwrap();
        // A database that is not the tenant's gets none.
        let stranger = Placement { tenant: Tenant::new("x").placement.tenant, ..placement.clone() };
        let open = server.open_migration_login(&MigratedDatabase::OfTenant(&stranger), &wanted).await;
        assert_eq!(open.unwrap_err().reason(), Reason::Conflict);
    }
}
