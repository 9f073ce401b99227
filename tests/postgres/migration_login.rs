//! Migration logins: what an application's tool can do with one, what it cannot, and that none is left.

use jiff::{Timestamp, ToSpan};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{
    api::reason::Reason,
    domain::{
        access::AccessLevel, migration_login::MigrationOwner, names::migration_login_name,
        placement::Placement, rights::RightsReport,
    },
    modules::ModuleSet,
    postgres::{
        server::Server,
        tenant::{
            credentials::{SecretText, generate_password, scram_verifier},
            migration_login::{MigratedDatabase, MigrationLogin},
        },
    },
};
use tenantry_dev::Postgres;
use uuid::Uuid;

use crate::servers::{SERVERS, Tenant, access, ready};

/// A migration login that a test opened.
struct Opened {
    name: String,
    password: SecretText,
    run: Uuid,
}

impl Opened {
    async fn of(server: &Server, placement: &Placement) -> Self {
        Self::until(server, placement, Timestamp::now() + 1.hour()).await
    }

    async fn until(server: &Server, placement: &Placement, until: Timestamp) -> Self {
        let (password, run) = (generate_password(), Uuid::new_v4());
        let wanted = MigrationLogin {
            run,
            schema: "public",
            verifier: &scram_verifier(&password),
            valid_until: Some(until),
        };
        let name =
            server.open_migration_login(&MigratedDatabase::OfTenant(placement), &wanted).await.unwrap();
        assert_eq!(name, migration_login_name(&placement.database));
        Self { name, password, run }
    }

    async fn session(&self, postgres: &Postgres, database: &str) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&postgres.url(&self.name, self.password.expose(), database)).await
    }
}

/// The SQLSTATE of a statement's refusal, in a transaction of its own.
async fn refused(session: &mut PgConnection, sql: &str) -> Option<String> {
    let result = session.execute(AssertSqlSafe(sql.to_owned())).await;
    session.execute("ROLLBACK; RESET ROLE").await.unwrap();
    let error = result.err()?;
    Some(error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned())
}

async fn roles_named(postgres: &Postgres, name: &str) -> i64 {
    let mut superuser = postgres.connect("postgres").await.unwrap();
    let count = "SELECT count(*) FROM pg_roles WHERE rolname = $1";
    sqlx::query_scalar(count).bind(name).fetch_one(&mut superuser).await.unwrap()
}

#[tokio::test]
async fn what_a_tool_makes_belongs_to_the_owner_and_follows_the_tenants_access() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (tenant, other) = (Tenant::new("tenant_tool"), Tenant::new("tenant_beside"));
        for tenant in [&tenant, &other] {
            tenant.provision(&server, 1).await;
        }
        let placement = &tenant.placement;
        let opened = Opened::of(&server, placement).await;
        let mut tool = opened.session(postgres, &placement.database).await.unwrap();
        let roles: (String, String) = sqlx::query_as("SELECT current_user::text, session_user::text")
            .fetch_one(&mut tool)
            .await
            .unwrap();
        assert_eq!(roles, ("tenantry_owner".into(), opened.name.clone()));
        let migration = "BEGIN; CREATE EXTENSION citext; CREATE SCHEMA audit;
            CREATE TABLE members (id bigserial PRIMARY KEY, email citext UNIQUE); CREATE TABLE audit.log (a int);
            SELECT tenantry.meter('members', 'members'); COMMIT";
        tool.execute(migration).await.unwrap();
        // Connection pools send this between clients; a role that is reset becomes the stored one again.
        tool.execute("DISCARD ALL").await.unwrap();
        let denied = refused(&mut tool, "BEGIN; SET ROLE NONE; CREATE TABLE public.own (a int)").await;
        assert_eq!(denied.as_deref(), Some("42501"));
        tool.execute("CREATE TABLE later (a int)").await.unwrap();

        let owners = "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class
            WHERE relname IN ('members', 'members_id_seq', 'log', 'later')";
        let owners: Vec<String> = sqlx::query_scalar(owners).fetch_all(&mut tool).await.unwrap();
        assert_eq!(owners, ["tenantry_owner"]);
        assert_eq!(server.settle_rights(placement).await.unwrap(), RightsReport::default());
        let mut application = tenant.session(postgres).await.unwrap();
        application.execute("INSERT INTO members (email) VALUES ('Ada@acme.example')").await.unwrap();
        drop(application);

        // The tool goes on in a transaction that holds what it can, and a suspension waits for none of it.
        let hold = format!(
            "BEGIN; ALTER TABLE members ADD COLUMN name text; GRANT SELECT ON members TO {}; LOCK TABLE tenantry.limits",
            placement.login
        );
        tool.execute(AssertSqlSafe(hold)).await.unwrap();
        let mut passwords = opened.session(postgres, &placement.database).await.unwrap();
        passwords.execute("BEGIN; ALTER ROLE tenantry_owner PASSWORD 'x'").await.unwrap();
        // Nor do the migrations of other tenants.
        let neighbour = Opened::of(&server, &other.placement).await;
        neighbour.session(postgres, &other.placement.database).await.unwrap();
        server.close_migration_login(&neighbour.name).await.unwrap();
        for level in [AccessLevel::ReadOnly, AccessLevel::Blocked] {
            server.set_access(placement, level).await.unwrap();
            assert_eq!(access(&server.observe(placement).await.unwrap()), Some(level));
        }
        server.verify_refused(placement, &tenant.password).await.unwrap();
        // Neither is the tool's work lost.
        tool.execute("COMMIT").await.unwrap();
        server.set_access(placement, AccessLevel::ReadOnly).await.unwrap();
        server.set_login(placement, &scram_verifier(&tenant.password), true).await.unwrap();
        server.close_migration_login(&opened.name).await.unwrap();
        // What the tool granted to the login by itself is revoked.
        let report = server.settle_rights(placement).await.unwrap();
        assert!(report.left.is_empty() && report.repaired.len() == 1, "{report:?}");
        server.set_access(placement, AccessLevel::ReadOnly).await.unwrap();
        let mut application = tenant.session(postgres).await.unwrap();
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM members").fetch_one(&mut application).await.unwrap();
        assert_eq!(count, 1);
        let denied = refused(&mut application, "INSERT INTO members (email) VALUES ('b@acme.example')").await;
        assert_eq!(denied.as_deref(), Some("42501"));
    }
}

/// What is tried as `tenantry_owner` in the tenant's database: `{own}` and `{other}` are the tenant's login and that of
/// another, `{login}` the migration login.
const ATTACKS: [&str; 26] = [
    "GRANT tenantry_owner TO {own}",
    "SET ROLE NONE; GRANT tenantry_owner TO {own}",
    "GRANT tenantry_rw TO {own}",
    "CREATE ROLE mine",
    "CREATE DATABASE mine",
    "DROP ROLE {own}",
    "ALTER ROLE {own} PASSWORD 'x'",
    "ALTER ROLE {own} SUPERUSER",
    "ALTER ROLE tenantry_migrator PASSWORD 'x'",
    "ALTER ROLE {login} VALID UNTIL 'infinity'",
    "SET ROLE NONE; ALTER ROLE {login} VALID UNTIL 'infinity'",
    "SET ROLE NONE; ALTER ROLE {login} CONNECTION LIMIT 100",
    "SET ROLE NONE; COMMENT ON ROLE {login} IS NULL",
    "SET ROLE tenantry_dba",
    "SET ROLE tenantry_admin",
    "SET ROLE tenantry_migrator",
    "SET ROLE {own}",
    "SET SESSION AUTHORIZATION {other}",
    "ALTER TABLE users OWNER TO {login}",
    "CREATE SCHEMA mine AUTHORIZATION {login}",
    "ALTER SCHEMA public OWNER TO tenantry_owner",
    "ALTER SYSTEM SET log_statement = 'all'",
    "COPY users TO PROGRAM 'cat'",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT * FROM pg_authid",
    "CREATE EXTENSION postgres_fdw",
];

#[tokio::test]
async fn tool_reaches_nothing_outside_its_database() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (tenant, other) = (Tenant::new("tenant_attacker"), Tenant::new("tenant_attacked"));
        for tenant in [&tenant, &other] {
            tenant.provision(&server, 1).await;
        }
        let placement = &tenant.placement;
        let opened = Opened::of(&server, placement).await;
        let mut tool = opened.session(postgres, &placement.database).await.unwrap();
        for attack in ATTACKS {
            let sql = attack
                .replace("{own}", &placement.login)
                .replace("{other}", &other.placement.login)
                .replace("{login}", &opened.name);
            let denied = refused(&mut tool, &format!("BEGIN; {sql}")).await;
            let allowed = ["42501", "25001", "22023"];
            assert!(denied.as_deref().is_some_and(|state| allowed.contains(&state)), "{sql}: {denied:?}");
        }
        for sql in ["ALTER DATABASE {} OWNER TO {}", "DROP DATABASE {}", "COMMENT ON DATABASE {} IS NULL"] {
            let sql = sql.replacen("{}", &placement.database, 1).replace("{}", &opened.name);
            assert_eq!(refused(&mut tool, &sql).await.as_deref(), Some("42501"), "{sql}");
        }
        let template = server.ensure_template(&ModuleSet::built_in()).await.unwrap();
        for database in [&other.placement.database, "postgres", "template1", &template] {
            let error = opened.session(postgres, database).await.unwrap_err();
            let state = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
            assert!(matches!(&*state, "42501" | "55000"), "{database}: {error}");
        }
        // Sessions of others: those that it sees, it may not end.
        let bystander = other.session(postgres).await.unwrap();
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'",
            other.placement.login
        );
        assert_eq!(refused(&mut tool, &end).await.as_deref(), Some("42501"));
        drop(bystander);
        server.close_migration_login(&opened.name).await.unwrap();
    }
}

#[tokio::test]
async fn login_is_gone_after_its_run_whatever_the_tool_does() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (tenant, other) = (Tenant::new("tenant_done"), Tenant::new("tenant_meddler"));
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

/// To become a file of the internal module.
const REPORTED: &str = include_str!("reported_versions.sql");

#[tokio::test]
async fn version_is_reported_by_the_migration_login_alone() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_reports");
        tenant.provision(&server, 1).await;
        let placement = &tenant.placement;
        let mut superuser = postgres.connect(&placement.database).await.unwrap();
        superuser.execute("SET ROLE tenantry_owner").await.unwrap();
        superuser.execute(REPORTED).await.unwrap();
        assert_eq!(server.settle_rights(placement).await.unwrap(), RightsReport::default());
        let report = "SELECT tenantry.report_version('shop', '2026.11.3')";
        assert_eq!(
            refused(&mut tenant.session(postgres).await.unwrap(), report).await.as_deref(),
            Some("42501")
        );
        // Not even the role that it becomes, by another login.
        superuser.execute("SET ROLE tenantry_owner").await.unwrap();
        let error = superuser.execute(report).await.unwrap_err().to_string();
        assert!(error.contains("postgres may not report a version"), "{error}");

        let opened = Opened::of(&server, placement).await;
        let mut pipeline = opened.session(postgres, &placement.database).await.unwrap();
        for (module, version) in [("Shop!", "1"), ("shop", ""), ("shop", "1 2"), ("", "1")] {
            let report = format!("SELECT tenantry.report_version('{module}', '{version}')");
            let error = pipeline.execute(AssertSqlSafe(report)).await.unwrap_err().to_string();
            assert!(error.contains("must be"), "{error}");
        }
        // It is as true as the migration that it belongs to.
        pipeline
            .execute("BEGIN; CREATE TABLE shops (a int); SELECT tenantry.report_version('shop', '1')")
            .await
            .unwrap();
        pipeline.execute("ROLLBACK").await.unwrap();
        for version in ["2026.11.2", "2026.11.3"] {
            let report = format!("SELECT tenantry.report_version('shop', '{version}')");
            pipeline.execute(AssertSqlSafe(report)).await.unwrap();
        }
        // The application can read it, to refuse to start below a version.
        let read = "SELECT module, version FROM tenantry.reported_versions";
        let mut application = tenant.session(postgres).await.unwrap();
        let reported: Vec<(String, String)> = sqlx::query_as(read).fetch_all(&mut application).await.unwrap();
        assert_eq!(reported, [("shop".into(), "2026.11.3".into())]);
        server.close_migration_login(&opened.name).await.unwrap();
    }
}
