//! Two logins of one tenant, during a rotation of its credentials.

use sqlx::{Connection, Executor, PgConnection};
use tenantry::{
    domain::{
        access::AccessLevel,
        drift::{Expected, mismatches},
        names::next_login_name,
        placement::Placement,
        tenant_facts::RecordedOids,
        usage::entitlements::LoginLimits,
    },
    modules::ModuleSet,
    postgres::{
        server::Server,
        tenant::{
            credentials::{SecretText, generate_password, scram_verifier},
            storage::SampleRequest,
        },
    },
};
use tenantry_dev::Postgres;

use crate::servers::{SERVERS, Tenant, access, ready, refusal};

/// A tenant whose credentials are being rotated: both logins work.
struct Rotating<'a> {
    postgres: &'a Postgres,
    server: Server,
    /// With the new login, and the one before it.
    placement: Placement,
    /// Of the new login.
    password: SecretText,
    /// The tenant with its previous login.
    previous: Tenant,
}

impl<'a> Rotating<'a> {
    async fn new(postgres: &'a Postgres, database: &str) -> Self {
        let server = ready(postgres).await;
        let tenant = Tenant::new(database);
        tenant.provision(&server, 1).await;
        let (login, password) = (next_login_name(database, &tenant.placement.login), generate_password());
        let placement = Placement {
            login,
            previous_login: Some(tenant.placement.login.clone()),
            ..tenant.placement.clone()
        };
        server.create_login(&placement).await.unwrap();
        server.set_access(&placement, AccessLevel::ReadWrite).await.unwrap();
        server.set_login(&placement, &scram_verifier(&password), true).await.unwrap();
        Self { postgres, server, placement, password, previous: tenant }
    }

    async fn session(&self) -> sqlx::Result<PgConnection> {
        let Placement { login, database, .. } = &self.placement;
        PgConnection::connect(&self.postgres.url(login, self.password.expose(), database)).await
    }

    /// The phrases of what differs from this level.
    async fn differences(&self, level: AccessLevel, connections: i32) -> Vec<String> {
        let facts = self.server.observe(&self.placement).await.unwrap();
        let recorded = RecordedOids::default();
        let expected = Expected { recorded, access: level, connections, is_previous_over: false };
        mismatches(&facts, &expected).iter().map(ToString::to_string).collect()
    }

    async fn superuser(&self, sql: &'static str) {
        self.postgres.connect("postgres").await.unwrap().execute(sql).await.unwrap();
    }
}

#[tokio::test]
async fn suspension_narrows_both_logins_and_ends_the_sessions_of_both() {
    for postgres in &*SERVERS {
        let stage = Rotating::new(postgres, "tenant_rotate_suspended").await;
        for level in [AccessLevel::ReadOnly, AccessLevel::Blocked] {
            let full = AccessLevel::ReadWrite;
            stage.server.set_access(&stage.placement, full).await.unwrap();
            let mut one = stage.session().await.unwrap();
            let mut other = stage.previous.session(postgres).await.unwrap();
            one.execute("INSERT INTO users (email) VALUES ('a@b.example')").await.unwrap();
            other.execute("DELETE FROM users").await.unwrap();
            stage.server.set_access(&stage.placement, level).await.unwrap();
            for session in [&mut one, &mut other] {
                assert!(session.execute("SELECT 1").await.is_err(), "it ended at {level}");
            }
            let facts = stage.server.observe(&stage.placement).await.unwrap();
            assert_eq!(access(&facts), Some(level));
            assert!(facts.strays.is_empty(), "neither login is a stray one");
            if level == AccessLevel::ReadOnly {
                for mut session in
                    [stage.session().await.unwrap(), stage.previous.session(postgres).await.unwrap()]
                {
                    session.execute("SELECT * FROM users").await.unwrap();
                    assert_eq!(refusal(&mut session, "DELETE FROM users").await, "42501");
                }
            }
        }
        stage.server.verify_refused(&stage.placement, &stage.password).await.unwrap();
        let previous = &stage.previous;
        stage.server.verify_refused(&previous.placement, &previous.password).await.unwrap();
        assert_eq!(stage.differences(AccessLevel::Blocked, -1).await, [""; 0]);
    }
}

#[tokio::test]
async fn previous_login_ends_and_the_login_and_its_sessions_stay() {
    for postgres in &*SERVERS {
        let stage = Rotating::new(postgres, "tenant_rotate_retired").await;
        let mut one = stage.session().await.unwrap();
        let mut other = stage.previous.session(postgres).await.unwrap();
        other.execute("SET application_name = 'nightly report'").await.unwrap();
        let modules = ModuleSet::built_in();
        let request =
            SampleRequest { placement: &stage.placement, modules: &modules, written: None, due: false };
        let sample =
            stage.server.sample(&[request]).await.unwrap().remove(&stage.placement.database).unwrap();
        assert!(sample.is_previous_in_use && sample.connections == 1, "{sample:?}");
        let previous = stage.placement.of_previous_login().unwrap();
        let last_use = stage.server.retire_login(&previous).await.unwrap();
        assert_eq!(last_use.sessions, 1);
        assert!(last_use.describe().contains("nightly report") && last_use.last_active.is_some());
        assert!(other.execute("SELECT 1").await.is_err());
        assert!(stage.previous.session(postgres).await.is_err());
        one.execute("INSERT INTO users (email) VALUES ('a@b.example')").await.unwrap();
        stage.session().await.unwrap();
        let sample =
            stage.server.sample(&[request]).await.unwrap().remove(&stage.placement.database).unwrap();
        assert!(!sample.is_previous_in_use, "{sample:?}");
        // It is dropped, and to end it again changes nothing.
        let facts = stage.server.observe(&stage.placement).await.unwrap();
        assert!(facts.previous.unwrap().role.is_none() && facts.strays.is_empty());
        assert_eq!(stage.server.retire_login(&previous).await.unwrap().sessions, 0);
        one.execute("SELECT 1").await.unwrap();
        // A role of another owner under that name is left alone.
        stage.superuser("CREATE ROLE tenant_rotate_retired_app LOGIN").await;
        assert_eq!(stage.server.retire_login(&previous).await.unwrap().sessions, 0);
        let facts = stage.server.observe(&stage.placement).await.unwrap();
        assert!(facts.previous.unwrap().role.unwrap().can_login);
        stage.superuser("DROP ROLE tenant_rotate_retired_app").await;
    }
}

#[tokio::test]
async fn limits_and_rights_of_the_previous_login_are_compared_and_restored() {
    for postgres in &*SERVERS {
        let stage = Rotating::new(postgres, "tenant_rotate_drift").await;
        let limits = LoginLimits { connections: 7, temp_file_kilobytes: -1 };
        stage.server.limit_login(&stage.placement, limits).await.unwrap();
        let full = AccessLevel::ReadWrite;
        assert_eq!(stage.differences(full, 7).await, [""; 0]);
        stage
            .superuser(
                "ALTER ROLE tenant_rotate_drift_app NOLOGIN CONNECTION LIMIT 1 VALID UNTIL '2001-01-01';
                 ALTER ROLE tenant_rotate_drift_app SET work_mem = '1MB';
                 REVOKE CONNECT ON DATABASE tenant_rotate_drift FROM tenant_rotate_drift_app",
            )
            .await;
        let found = stage.differences(full, 7).await;
        assert!(
            found.len() == 5 && found.iter().all(|phrase| phrase.contains("previous login")),
            "{found:?}"
        );
        stage.server.set_access(&stage.placement, full).await.unwrap();
        stage.server.limit_login(&stage.placement, limits).await.unwrap();
        let previous = stage.placement.of_previous_login().unwrap();
        stage.server.set_login(&previous, &scram_verifier(&stage.previous.password), true).await.unwrap();
        assert_eq!(stage.differences(full, 7).await, [""; 0]);
        stage.previous.session(postgres).await.unwrap();
        // One that lost its comment is recognized by its oid.
        let facts = stage.server.observe(&stage.placement).await.unwrap();
        let recorded = RecordedOids {
            previous_login: facts.previous.and_then(|previous| Some(previous.role?.oid)),
            ..RecordedOids::default()
        };
        stage.superuser("COMMENT ON ROLE tenant_rotate_drift_app IS NULL").await;
        stage.server.restore_ownership(&stage.placement, recorded).await.unwrap();
        stage.server.set_access(&stage.placement, full).await.unwrap();
        assert_eq!(stage.differences(full, 7).await, [""; 0]);
    }
}
