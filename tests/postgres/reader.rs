//! The reader login of a tenant: it reads, and nothing else, and what restricts the tenant restricts it.

use sqlx::{Connection, Executor, PgConnection};
use tenantry::{
    domain::{
        access::AccessLevel,
        drift::{Expected, mismatches},
        names::reader_login_name,
        placement::Placement,
        tenant_facts::RecordedOids,
        usage::entitlements::LoginLimits,
    },
    postgres::{
        server::Server,
        tenant::credentials::{generate_password, scram_verifier},
    },
};
use tenantry_dev::Postgres;

use crate::servers::{SERVERS, Tenant, access, ready, refusal};

/// A tenant with a reader login.
pub struct Reading<'a> {
    postgres: &'a Postgres,
    pub server: Server,
    /// The tenant, with the name of the reader login.
    pub placement: Placement,
    tenant: Tenant,
    /// The tenant as its reader login sees it.
    pub reader: Tenant,
}

impl<'a> Reading<'a> {
    pub async fn new(postgres: &'a Postgres, database: &str) -> Self {
        let tenant = Tenant::new(database);
        tenant.provision(&ready(postgres).await, 1).await;
        Self::beside(postgres, tenant).await
    }

    /// Gives a tenant a reader login, as the step does.
    pub async fn beside(postgres: &'a Postgres, tenant: Tenant) -> Self {
        let server = ready(postgres).await;
        let name = reader_login_name(&tenant.placement.database);
        let placement = Placement { reader_login: Some(name), ..tenant.placement.clone() };
        let reader =
            Tenant { placement: placement.of_reader_login().unwrap(), password: generate_password() };
        server.create_login(&reader.placement).await.unwrap();
        let limits = LoginLimits { connections: -1, temp_file_kilobytes: -1 };
        server.limit_reader(&reader.placement, limits).await.unwrap();
        server.set_reader_access(&placement, AccessLevel::ReadWrite).await.unwrap();
        let stage = Self { postgres, server, placement, tenant, reader };
        stage.let_in().await;
        stage
    }

    async fn let_in(&self) {
        let verifier = scram_verifier(&self.reader.password);
        self.server.set_login(&self.reader.placement, &verifier, true).await.unwrap();
    }

    async fn session(&self) -> PgConnection {
        self.reader.session(self.postgres).await.unwrap()
    }

    /// The phrases of what differs from this level.
    pub async fn differences(&self, level: AccessLevel, connections: i32) -> Vec<String> {
        let facts = self.server.observe(&self.placement).await.unwrap();
        assert!(facts.strays.is_empty(), "neither login is a stray one");
        let recorded = RecordedOids::default();
        let expected = Expected { recorded, access: level, connections, is_previous_over: false };
        mismatches(&facts, &expected).iter().map(ToString::to_string).collect()
    }

    async fn superuser(&self, sql: &'static str) {
        self.postgres.connect("postgres").await.unwrap().execute(sql).await.unwrap();
    }
}

#[tokio::test]
async fn reader_reads_at_every_level_but_blocked_and_a_suspension_ends_its_sessions() {
    for postgres in &*SERVERS {
        let stage = Reading::new(postgres, "tenant_reader_levels").await;
        let mut own = stage.tenant.session(postgres).await.unwrap();
        own.execute("INSERT INTO users (email) VALUES ('a@b.example')").await.unwrap();
        let mut session = stage.session().await;
        for level in [AccessLevel::ReadWrite, AccessLevel::ShrinkOnly, AccessLevel::ReadOnly] {
            stage.server.set_access(&stage.placement, level).await.unwrap();
            // Its rights do not change: the session before stays, beside a new one.
            for session in [&mut session, &mut stage.session().await] {
                session.execute("SELECT * FROM users").await.unwrap();
                for sql in ["INSERT INTO users (email) VALUES ('b@c.example')", "DELETE FROM users"] {
                    assert_eq!(refusal(session, sql).await, "42501", "{sql}");
                }
            }
            assert_eq!(stage.differences(level, -1).await, [""; 0], "{level}");
        }
        stage.server.set_access(&stage.placement, AccessLevel::Blocked).await.unwrap();
        assert!(session.execute("SELECT 1").await.is_err());
        stage.server.verify_refused(&stage.reader.placement, &stage.reader.password).await.unwrap();
        assert_eq!(stage.differences(AccessLevel::Blocked, -1).await, [""; 0]);
        assert_eq!(
            access(&stage.server.observe(&stage.placement).await.unwrap()),
            Some(AccessLevel::Blocked)
        );
        stage.server.set_access(&stage.placement, AccessLevel::ReadOnly).await.unwrap();
        stage.let_in().await;
        stage.server.verify(&stage.reader.placement, &stage.reader.password).await.unwrap();
    }
}

#[tokio::test]
async fn changes_of_the_reader_login_are_compared_and_restored() {
    for postgres in &*SERVERS {
        let stage = Reading::new(postgres, "tenant_reader_drift").await;
        let full = AccessLevel::ReadWrite;
        let limits = |connections| LoginLimits { connections, temp_file_kilobytes: -1 };
        // Those of the login, and of the reader login where they are not its own five.
        for (connections, found) in [(2, 2), (-1, 2), (20, 1)] {
            assert_eq!(stage.differences(full, connections).await.len(), found, "{connections}");
            stage.server.limit_login(&stage.placement, limits(connections)).await.unwrap();
            assert_eq!(stage.differences(full, connections).await, [""; 0]);
        }
        stage
            .superuser(
                "GRANT tenantry_rw TO tenant_reader_drift_ro;
                 ALTER ROLE tenant_reader_drift_ro NOLOGIN CREATEDB CONNECTION LIMIT 99;
                 ALTER ROLE tenant_reader_drift_ro SET work_mem = '1MB';
                 REVOKE CONNECT ON DATABASE tenant_reader_drift FROM tenant_reader_drift_ro",
            )
            .await;
        let found = stage.differences(full, 20).await;
        assert!(found.len() >= 6 && found.iter().all(|phrase| phrase.contains("reader login")), "{found:?}");
        if postgres.binaries().major >= 16 {
            // Only a superuser takes back what a superuser granted.
            stage.superuser("REVOKE tenantry_rw FROM tenant_reader_drift_ro").await;
        }
        stage.server.set_access(&stage.placement, full).await.unwrap();
        stage.server.limit_login(&stage.placement, limits(20)).await.unwrap();
        stage.let_in().await;
        assert_eq!(stage.differences(full, 20).await, [""; 0]);
        // One that lost its comment is recognized by its oid.
        let facts = stage.server.observe(&stage.placement).await.unwrap();
        let oid = facts.reader.and_then(|reader| Some(reader.role?.oid));
        let recorded = RecordedOids { reader_login: oid, ..RecordedOids::default() };
        stage.superuser("COMMENT ON ROLE tenant_reader_drift_ro IS NULL").await;
        stage.server.restore_ownership(&stage.placement, recorded).await.unwrap();
        stage.server.set_access(&stage.placement, full).await.unwrap();
        assert_eq!(stage.differences(full, 20).await, [""; 0]);
    }
}

#[tokio::test]
async fn neither_login_becomes_or_changes_the_other() {
    for postgres in &*SERVERS {
        let stage = Reading::new(postgres, "tenant_reader_apart").await;
        let mut own = stage.tenant.session(postgres).await.unwrap();
        for sql in [
            "SET ROLE tenant_reader_apart_ro",
            "SET SESSION AUTHORIZATION tenant_reader_apart_ro",
            "ALTER ROLE tenant_reader_apart_ro PASSWORD 'x'",
            "ALTER ROLE tenant_reader_apart_ro CONNECTION LIMIT 50",
            "ALTER ROLE tenant_reader_apart_ro SET work_mem = '1GB'",
            "GRANT tenantry_rw TO tenant_reader_apart_ro",
            "DROP ROLE tenant_reader_apart_ro",
        ] {
            assert_eq!(refusal(&mut own, sql).await, "42501", "{sql}");
        }
        let mut reader = stage.session().await;
        for sql in [
            "SET ROLE tenant_reader_apart_app",
            "ALTER ROLE tenant_reader_apart_app PASSWORD 'x'",
            "GRANT tenant_reader_apart_app TO tenant_reader_apart_ro",
        ] {
            assert_eq!(refusal(&mut reader, sql).await, "42501", "{sql}");
        }
    }
}

#[tokio::test]
async fn reader_login_ends_and_the_login_and_its_sessions_stay() {
    for postgres in &*SERVERS {
        let stage = Reading::new(postgres, "tenant_reader_ended").await;
        let mut own = stage.tenant.session(postgres).await.unwrap();
        let mut session = stage.session().await;
        session.execute("SELECT * FROM users").await.unwrap();
        assert_eq!(stage.server.retire_login(&stage.reader.placement).await.unwrap().sessions, 1);
        assert!(session.execute("SELECT 1").await.is_err());
        assert!(stage.reader.session(postgres).await.is_err());
        own.execute("INSERT INTO users (email) VALUES ('a@b.example')").await.unwrap();
        let facts = stage.server.observe(&stage.placement).await.unwrap();
        assert!(facts.reader.unwrap().role.is_none() && facts.strays.is_empty());
        // A purge drops one that is left, and leaves the role of another owner.
        let again = Reading::beside(postgres, stage.tenant).await;
        again.server.drop_other_logins(&again.placement).await.unwrap();
        assert!(again.reader.session(postgres).await.is_err());
        again.superuser("CREATE ROLE tenant_reader_ended_ro").await;
        again.server.drop_other_logins(&again.placement).await.unwrap();
        assert!(again.server.check_login(&again.reader.placement).await.is_err(), "it is still there");
        again.superuser("DROP ROLE tenant_reader_ended_ro").await;
        own.execute("DELETE FROM users").await.unwrap();
        own.close().await.unwrap();
    }
}
