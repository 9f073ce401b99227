//! Servers whose administrator is not a superuser, as on managed services. The superuser creates the administrator, as the
//! service does, and nothing else.

use sqlx::{Connection, Executor, PgConnection};
use tenantry::{
    domain::access::AccessLevel,
    modules::ModuleSet,
    postgres::{
        install::rights::MissingRight,
        server::Server,
        tenant::{credentials::scram_verifier, databases::Dropped, storage::SampleRequest},
    },
};
use tenantry_dev::Postgres;

use crate::{
    servers::{INSTALLATION, Tenant, access, config, ready, refusal, set_up, set_up_as, start},
    templates::modules,
};

/// What the service gave to the administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The databases `postgres` and `template1`, and from 16 on the two predefined roles.
    OwnsBoth,
    /// Nothing but CREATEDB and CREATEROLE.
    OwnsNeither,
}

impl Kind {
    /// Starts a server of this kind.
    pub async fn start(self, major: u16) -> Postgres {
        let postgres = start(major, vec![]).await;
        let mut superuser = postgres.connect("postgres").await.unwrap();
        superuser.execute("CREATE ROLE master LOGIN CREATEDB CREATEROLE PASSWORD 'master'").await.unwrap();
        if self == Self::OwnsBoth {
            for statement in
                ["ALTER DATABASE postgres OWNER TO master", "ALTER DATABASE template1 OWNER TO master"]
            {
                superuser.execute(statement).await.unwrap();
            }
            if major >= 16 {
                let grant = "GRANT pg_signal_backend, pg_read_all_stats TO master WITH ADMIN OPTION";
                superuser.execute(grant).await.unwrap();
            }
        }
        superuser.close().await.unwrap();
        postgres
    }

    /// The rights that remain missing once the administrator did what it can. Before 16, CREATEROLE is enough to grant
    /// the predefined roles.
    pub fn missing(self, major: u16) -> Vec<MissingRight> {
        let mut missing = Vec::new();
        if self == Self::OwnsNeither && major >= 16 {
            missing.extend([MissingRight::SignalBackend, MissingRight::ReadAllStats]);
        }
        if major >= 16 {
            missing.push(MissingRight::ReservedConnections);
        }
        missing.push(MissingRight::TempFileLimit);
        if self == Self::OwnsNeither {
            missing.extend([MissingRight::PostgresOpen, MissingRight::Template1Open]);
        }
        missing
    }

    /// What the setup reports as reduced.
    fn reduced(self, major: u16) -> Vec<&'static str> {
        let mut reduced = Vec::new();
        if self == Self::OwnsNeither && major >= 16 {
            reduced.extend(["pg_signal_backend for", "pg_read_all_stats for"]);
        }
        if major >= 16 {
            reduced.push("pg_use_reserved_connections for");
        }
        reduced.push("SET of temp_file_limit");
        if self == Self::OwnsNeither {
            reduced.extend([
                "CONNECT on postgres for",
                "all rights on postgres revoked",
                "all rights on template1 revoked",
            ]);
        }
        // No administrator that a provider gives owns it.
        reduced.push("all rights on template0 revoked");
        reduced.push("large-object writers");
        reduced
    }
}

#[tokio::test]
async fn tenants_live_on_a_server_whose_administrator_owns_postgres_and_template1() {
    for major in [15, 18] {
        whole_life(Kind::OwnsBoth, major).await;
    }
}

#[tokio::test]
async fn tenants_live_on_a_server_whose_administrator_owns_no_database() {
    for major in [15, 18] {
        whole_life(Kind::OwnsNeither, major).await;
    }
}

/// From the setup to the purge.
async fn whole_life(kind: Kind, major: u16) {
    let postgres = kind.start(major).await;
    let url = postgres.url("master", "master", "postgres");
    // A second run finds everything, and continues after what it may not change.
    for _ in 0..2 {
        let report = set_up_as(&url).await;
        assert!(report.refused.is_empty(), "{kind:?} {major}: {report:?}");
        let expected = kind.reduced(major);
        assert_eq!(report.reduced.len(), expected.len(), "{kind:?} {major}: {report:?}");
        for (found, expected) in report.reduced.iter().zip(expected) {
            assert!(found.contains(expected), "{kind:?} {major}: {expected}: {report:?}");
        }
    }
    // The administrator does not stay a member of the registry's owner.
    let mut master = PgConnection::connect(&url).await.unwrap();
    let is_member: bool = sqlx::query_scalar("SELECT pg_has_role('tenantry_admin', 'USAGE')")
        .fetch_one(&mut master)
        .await
        .unwrap();
    assert!(!is_member, "{kind:?} {major}");

    let server = ready(&postgres).await;
    let missing = server.preflight(INSTALLATION).await.unwrap().missing;
    assert_eq!(missing, kind.missing(major), "{kind:?} {major}");
    let (tenant, neighbour) = (Tenant::new("tenant_managed"), Tenant::new("tenant_beside"));
    tenant.provision(&server, 2).await;
    neighbour.provision(&server, 1).await;
    let versions = server.verify(&tenant.placement, &tenant.password).await.unwrap();
    assert_eq!(versions, ModuleSet::built_in().targets());
    // Once the template is built, the large objects are known as well.
    let missing = server.preflight(INSTALLATION).await.unwrap().missing;
    assert!(
        matches!(missing.last(), Some(MissingRight::LargeObjects { .. })),
        "{kind:?} {major}: {missing:?}"
    );

    levels(kind, &postgres, &server, &tenant).await;
    large_objects_count_as_storage(&postgres, &server, &tenant).await;
    is_isolated(kind, &postgres, &tenant, &neighbour).await;
    later_tenants_are_clean(kind, &postgres, &server, &neighbour).await;
    suspension_is_proven(&postgres, &server, &tenant).await;
    is_purged(&postgres, &server, &tenant).await;
    // The neighbour is as it was.
    server.verify(&neighbour.placement, &neighbour.password).await.unwrap();
}

/// Each level has its rights on tables. What no level covers here, and the condition says: large objects.
async fn levels(kind: Kind, postgres: &Postgres, server: &Server, tenant: &Tenant) {
    let mut session = tenant.session(postgres).await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('a@b.example'), ('c@d.example')").await.unwrap();
    for level in [AccessLevel::ShrinkOnly, AccessLevel::ReadOnly] {
        server.set_access(&tenant.placement, level).await.unwrap();
        assert!(session.execute("SELECT 1").await.is_err(), "{kind:?}: the earlier session was not ended");
        session = tenant.session(postgres).await.unwrap();
        session.execute("SELECT * FROM users").await.unwrap();
        let insert = "INSERT INTO users (email) VALUES ('e@f.example')";
        assert_eq!(refusal(&mut session, insert).await, "42501");
        let delete = "DELETE FROM users WHERE email = 'a@b.example'";
        match level {
            AccessLevel::ShrinkOnly => drop(session.execute(delete).await.unwrap()),
            _ => assert_eq!(refusal(&mut session, delete).await, "42501"),
        }
        assert_eq!(refusal(&mut session, "CREATE TEMP TABLE t (a int)").await, "42501");
        session.execute("SELECT lo_from_bytea(0, 'not covered')").await.unwrap();
        let facts = server.observe(&tenant.placement).await.unwrap();
        assert_eq!(access(&facts), Some(level));
    }
    server.set_access(&tenant.placement, AccessLevel::ReadWrite).await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('g@h.example')").await.unwrap();
}

/// Large objects are not free: the sample that is compared with the storage limit has them.
async fn large_objects_count_as_storage(postgres: &Postgres, server: &Server, tenant: &Tenant) {
    let modules = ModuleSet::built_in();
    let sample = async |written| {
        let request = SampleRequest { placement: &tenant.placement, modules: &modules, written, due: false };
        server.sample(&[request]).await.unwrap().into_values().next().unwrap()
    };
    let before = sample(None).await;
    let mut session = tenant.session(postgres).await.unwrap();
    // 2 MB that cannot be compressed.
    session
        .execute(
            "SELECT lo_from_bytea(0, (
                 SELECT string_agg(sha256(g::text::bytea), ''::bytea) FROM generate_series(1, 65536) AS g));
             SELECT pg_stat_force_next_flush()",
        )
        .await
        .unwrap();
    session.execute("SELECT 1").await.unwrap();
    let after = sample(Some(before.written)).await;
    let grown = after.bytes.unwrap() - before.bytes.unwrap();
    assert!(grown >= 2 << 20, "{before:?} {after:?}");
}

/// No tenant reaches another one's data, whatever other databases it may connect to.
async fn is_isolated(kind: Kind, postgres: &Postgres, tenant: &Tenant, neighbour: &Tenant) {
    let connect = async |database: &str| {
        PgConnection::connect(&postgres.url(&tenant.placement.login, tenant.password.expose(), database))
            .await
    };
    for database in [&neighbour.placement.database, "tenantry_system"] {
        let error = connect(database).await.expect_err(database);
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{database}");
    }
    for database in ["postgres", "template1"] {
        match (kind, connect(database).await) {
            (Kind::OwnsBoth, Err(error)) => {
                assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{database}");
            }
            // It can leave something there; no tenant's data is there, and it can create nothing that others would use.
            (Kind::OwnsNeither, Ok(mut session)) => {
                session.execute("SELECT lo_from_bytea(0, 'left')").await.unwrap();
                assert_eq!(refusal(&mut session, "CREATE TABLE public.t (a int)").await, "42501");
            }
            (_, found) => panic!("{kind:?} {database}: {found:?}"),
        }
    }
}

/// What a tenant left in template1, where it may connect there, is in no database of a later tenant.
async fn later_tenants_are_clean(kind: Kind, postgres: &Postgres, server: &Server, neighbour: &Tenant) {
    let count = "SELECT count(*) FROM pg_largeobject_metadata";
    let template = server.ensure_template(&modules("SELECT 'later'")).await.unwrap();
    let later = Tenant::new("tenant_later");
    server.create_login(&later.placement).await.unwrap();
    server.create_database(&later.placement, &template).await.unwrap();
    server.publish_database(&later.placement).await.unwrap();
    server.set_access(&later.placement, AccessLevel::ReadWrite).await.unwrap();
    server.set_login(&later.placement, &scram_verifier(&later.password), true).await.unwrap();
    for tenant in [&later, neighbour] {
        let mut session = tenant.session(postgres).await.unwrap();
        let found: i64 = sqlx::query_scalar(count).fetch_one(&mut session).await.unwrap();
        assert_eq!(found, 0);
    }
    // The control: another copy of template1 has what template1 has.
    let mut master = PgConnection::connect(&postgres.url("master", "master", "postgres")).await.unwrap();
    master.execute("CREATE DATABASE copy TEMPLATE template1").await.unwrap();
    let mut found = Vec::new();
    for database in ["template1", "copy"] {
        let mut session = PgConnection::connect(&postgres.url("master", "master", database)).await.unwrap();
        found.push(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut session).await.unwrap());
        session.close().await.unwrap();
    }
    let left = i64::from(kind == Kind::OwnsNeither);
    assert_eq!(found, [left, left]);
    master.execute("DROP DATABASE copy").await.unwrap();
}

/// Blocked ends every session, in every database, and refuses new ones.
async fn suspension_is_proven(postgres: &Postgres, server: &Server, tenant: &Tenant) {
    let mut session = tenant.session(postgres).await.unwrap();
    session.execute("BEGIN; UPDATE users SET name = 'x'").await.unwrap();
    let elsewhere = postgres.url(&tenant.placement.login, tenant.password.expose(), "postgres");
    let mut elsewhere = PgConnection::connect(&elsewhere).await.ok();
    server.set_access(&tenant.placement, AccessLevel::Blocked).await.unwrap();
    assert!(session.execute("SELECT 1").await.is_err());
    if let Some(elsewhere) = &mut elsewhere {
        assert!(elsewhere.execute("SELECT 1").await.is_err());
    }
    server.verify_refused(&tenant.placement, &tenant.password).await.unwrap();
    for database in [&tenant.placement.database, "postgres", "template1"] {
        let url = postgres.url(&tenant.placement.login, tenant.password.expose(), database);
        assert!(PgConnection::connect(&url).await.is_err(), "{database}");
    }
    let facts = server.observe(&tenant.placement).await.unwrap();
    assert_eq!(access(&facts), Some(AccessLevel::Blocked));
}

/// Nothing of the tenant is left, also of what it wrote elsewhere.
async fn is_purged(postgres: &Postgres, server: &Server, tenant: &Tenant) {
    assert_eq!(server.drop_database(&tenant.placement).await.unwrap(), Dropped::Dropped);
    server.drop_login(&tenant.placement).await.unwrap();
    let facts = server.observe(&tenant.placement).await.unwrap();
    assert!(facts.database.is_none() && facts.login.is_none());
    for database in ["postgres", "template1"] {
        let mut master = PgConnection::connect(&postgres.url("master", "master", database)).await.unwrap();
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_largeobject_metadata")
            .fetch_one(&mut master)
            .await
            .unwrap();
        assert_eq!(left, 0, "{database}");
    }
}

/// An administrator has other databases on the server, in which a tenant left large objects before they were closed.
#[tokio::test]
async fn large_objects_in_a_database_that_the_operator_cannot_enter_keep_the_login() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute("CREATE DATABASE defaultdb TEMPLATE template0").await.unwrap();
        let tenant = Tenant::new("tenant_left");
        tenant.provision(&server, 1).await;
        let url = postgres.url(&tenant.placement.login, tenant.password.expose(), "defaultdb");
        let mut elsewhere = PgConnection::connect(&url).await.unwrap();
        elsewhere.execute("SELECT lo_create(0) FROM generate_series(1, 2500)").await.unwrap();
        admin.execute("REVOKE CONNECT ON DATABASE defaultdb FROM PUBLIC").await.unwrap();
        server.set_access(&tenant.placement, AccessLevel::Blocked).await.unwrap();
        server.drop_database(&tenant.placement).await.unwrap();
        let error = server.drop_login(&tenant.placement).await.unwrap_err();
        assert_eq!(error.reason(), tenantry::api::reason::Reason::LoginInUse, "{error}");
        // Where it may connect, the operator deletes them: more than fit into one transaction.
        admin.execute("GRANT CONNECT ON DATABASE defaultdb TO tenantry_admin").await.unwrap();
        server.drop_login(&tenant.placement).await.unwrap();
        let facts = server.observe(&tenant.placement).await.unwrap();
        assert!(facts.login.is_none());
        let borrowed: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_auth_members AS m WHERE m.member = 'tenantry_admin'::regrole \
             AND pg_get_userbyid(m.roleid) = 'tenant_left_app'",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        assert_eq!(borrowed, 0);
    }
}

#[tokio::test]
async fn superuser_completes_the_setup_of_an_administrator() {
    for major in [15, 18] {
        let postgres = Kind::OwnsNeither.start(major).await;
        let report = set_up_as(&postgres.url("master", "master", "postgres")).await;
        assert!(!report.reduced.is_empty());
        let report = set_up_as(&postgres.admin_url("postgres")).await;
        assert!(report.reduced.is_empty() && report.refused.is_empty(), "{report:?}");
        let server = Server::new(config(&postgres));
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, []);
    }
}

async fn missing_on(postgres: &Postgres) -> Vec<MissingRight> {
    Server::new(config(postgres)).preflight(INSTALLATION).await.unwrap().missing
}

#[tokio::test]
async fn server_upgraded_from_14_gets_a_closed_schema_public() {
    let postgres = start(18, vec![]).await;
    let mut template1 = postgres.connect("template1").await.unwrap();
    template1
        .execute("ALTER SCHEMA public OWNER TO postgres; GRANT CREATE ON SCHEMA public TO PUBLIC")
        .await
        .unwrap();
    sqlx::Connection::close(template1).await.unwrap();
    let postgres = set_up(postgres).await;
    let server = ready(&postgres).await;
    let tenant = Tenant::new("tenant_upgraded");
    tenant.provision(&server, 1).await;
    let mut session = tenant.session(&postgres).await.unwrap();
    assert_eq!(crate::servers::refusal(&mut session, "CREATE TABLE t (a int)").await, "42501");
}

#[tokio::test]
async fn membership_without_set_or_inherit_is_missing() {
    let postgres = set_up(start(18, vec![]).await).await;
    let mut admin = postgres.connect("postgres").await.unwrap();
    admin.execute("GRANT CONNECT ON DATABASE postgres TO operator").await.unwrap();
    for (option, missing) in [("SET", MissingRight::Membership), ("INHERIT", MissingRight::Membership)] {
        let change = |to: &str| format!("GRANT tenantry_admin TO operator WITH {option} {to}");
        admin.execute(sqlx::AssertSqlSafe(change("FALSE"))).await.unwrap();
        assert_eq!(missing_on(&postgres).await, [missing], "{option}");
        admin.execute(sqlx::AssertSqlSafe(change("TRUE"))).await.unwrap();
    }
    admin.execute("GRANT tenantry_admin TO operator WITH ADMIN FALSE").await.unwrap();
    assert_eq!(missing_on(&postgres).await, [MissingRight::AdminOption]);
    // Once the id is written, the right is no longer needed.
    admin.execute("GRANT tenantry_admin TO operator WITH ADMIN TRUE").await.unwrap();
    ready(&postgres).await;
    admin.execute("GRANT tenantry_admin TO operator WITH ADMIN FALSE").await.unwrap();
    assert_eq!(missing_on(&postgres).await, []);
}

#[tokio::test]
async fn sessions_are_ended_without_the_predefined_roles() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute("REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin").await.unwrap();
        let tenant = Tenant::new("tenant_borrowed");
        tenant.provision(&server, 1).await;
        for level in [AccessLevel::ReadOnly, AccessLevel::Blocked] {
            let mut session = tenant.session(&postgres).await.unwrap();
            session.execute("BEGIN; SELECT * FROM users").await.unwrap();
            server.set_access(&tenant.placement, level).await.unwrap();
            assert!(session.execute("SELECT 1").await.is_err(), "{major} {level}");
            let facts = server.observe(&tenant.placement).await.unwrap();
            assert_eq!(access(&facts), Some(level));
        }
        // The operator's membership in the login has ended.
        let borrowed: bool =
            sqlx::query_scalar("SELECT pg_has_role('tenantry_admin', 'tenant_borrowed_app', 'USAGE')")
                .fetch_one(&mut admin)
                .await
                .unwrap();
        assert!(!borrowed);
        assert_eq!(server.drop_database(&tenant.placement).await.unwrap(), Dropped::Dropped);
        server.drop_login(&tenant.placement).await.unwrap();
    }
}
