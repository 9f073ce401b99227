//! Migration logins: what an application's tool can do with one, what it cannot, and that none is left.

mod end;
mod restricted;

use jiff::{Timestamp, ToSpan};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{
    api::reason::Reason,
    domain::{access::AccessLevel, names::migration_login_name, placement::Placement, rights::RightsReport},
    modules::{Migration, Module, ModuleSet},
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

    async fn until(server: &Server, placement: &Placement, until: impl Into<Option<Timestamp>>) -> Self {
        let (password, run) = (generate_password(), Uuid::new_v4());
        let wanted = MigrationLogin {
            run,
            schema: "public",
            verifier: &scram_verifier(&password),
            valid_until: until.into(),
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
        let (tenant, other) = (Tenant::new("tenant_tool"), Tenant::new("tenant_beside_tool"));
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
        // It ended the tool, whose login is gone.
        assert!(tool.execute("COMMIT").await.is_err() && passwords.execute("COMMIT").await.is_err());
        assert_eq!(roles_named(postgres, &opened.name).await, 0);
        server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
        let opened = Opened::of(&server, placement).await;
        let mut tool = opened.session(postgres, &placement.database).await.unwrap();
        let grant = format!("GRANT SELECT ON members TO {}", placement.login);
        tool.execute(AssertSqlSafe(grant)).await.unwrap();
        server.set_access(placement, AccessLevel::ReadOnly).await.unwrap();
        server.set_login(placement, &scram_verifier(&tenant.password), true).await.unwrap();
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
async fn template_that_a_tool_has_migrated_is_cloned_with_everything() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_of_tool_template");
        // A set of this test, so that no other test uses its template; it is made one that is being built.
        let sql = format!("-- {}", tenant.placement.tenant);
        let file = Migration { version: 1, file: "0001_none.sql".into(), sql: sql.into() };
        let mut modules = ModuleSet::built_in().modules().to_vec();
        modules.push(Module::new("none", vec![file]));
        let modules = ModuleSet::new(modules);
        let template = server.ensure_template(&modules).await.unwrap();
        let building = format!("tenantry_template_new_{}", modules.digest());
        let mut superuser = postgres.connect("postgres").await.unwrap();
        for sql in [
            format!("ALTER DATABASE {template} RENAME TO {building}"),
            format!("ALTER DATABASE {building} ALLOW_CONNECTIONS true"),
        ] {
            superuser.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        let password = generate_password();
        let wanted = MigrationLogin {
            run: Uuid::new_v4(),
            schema: "public",
            verifier: &scram_verifier(&password),
            valid_until: None,
        };
        let database = MigratedDatabase::Template(modules.digest());
        let name = server.open_migration_login(&database, &wanted).await.unwrap();
        assert_eq!(name, migration_login_name(&building));
        let mut tool =
            PgConnection::connect(&postgres.url(&name, password.expose(), &building)).await.unwrap();
        let made = "CREATE EXTENSION citext; CREATE TABLE members (id bigserial PRIMARY KEY, email citext);
            SELECT tenantry.meter('members', 'members')";
        tool.execute(made).await.unwrap();
        server.close_migration_login(&name).await.unwrap();
        assert!(tool.execute("SELECT 1").await.is_err());
        let other = MigratedDatabase::Template("0123456789abcdef01234567");
        let error = server.open_migration_login(&other, &wanted).await.unwrap_err();
        assert_eq!(error.reason(), Reason::DatabaseMissing);
        for sql in [
            format!("ALTER DATABASE {building} ALLOW_CONNECTIONS false"),
            format!("ALTER DATABASE {building} RENAME TO {template}"),
        ] {
            superuser.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        let placement = &tenant.placement;
        server.create_login(placement).await.unwrap();
        server.create_database(placement, &template).await.unwrap();
        server.publish_database(placement).await.unwrap();
        server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
        server.set_login(placement, &scram_verifier(&tenant.password), true).await.unwrap();
        assert_eq!(server.settle_rights(placement).await.unwrap(), RightsReport::default());
        let mut application = tenant.session(postgres).await.unwrap();
        application.execute("INSERT INTO members (email) VALUES ('ada@acme.example')").await.unwrap();
    }
}

#[tokio::test]
async fn version_is_reported_by_the_migration_login_alone() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_reports");
        tenant.provision(&server, 1).await;
        let placement = &tenant.placement;
        let mut superuser = postgres.connect(&placement.database).await.unwrap();
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
