//! One server per version for the whole run, set up as an administrator would.

use std::sync::LazyLock;

use sqlx::{Connection, Executor, PgConnection};
use tenantry::{
    domain::{access::AccessLevel, identity::TenantId, names},
    postgres::{
        ServerConfig, Tls,
        credentials::{SecretText, generate_password, scram_verifier},
        modules::ModuleSet,
        seed::Seed,
        server::Server,
        setup::{SetupOptions, server_setup},
    },
};
use tenantry_dev::{Postgres, PostgresOptions, Version, environment::on_a_thread};
use uuid::Uuid;

pub const OPERATOR: &str = "operator";
pub const PASSWORD: &str = "operator-password";
/// The one installation of this run.
pub const INSTALLATION: Uuid = Uuid::from_u128(0x7e57);

/// The versions that everything is tried on: the oldest that is supported, and the newest.
pub static SERVERS: LazyLock<[Postgres; 2]> = LazyLock::new(|| {
    // Off by default, but an application may need them: then a tenant can leave some behind.
    let settings = vec![("max_prepared_transactions".to_owned(), "20".to_owned())];
    [15, 18].map(|major| {
        let settings = settings.clone();
        on_a_thread(move || async move { Ok(set_up(start(major, settings).await).await) }).unwrap()
    })
});

/// A server of one's own.
pub async fn start(major: u16, settings: Vec<(String, String)>) -> Postgres {
    let options = PostgresOptions { version: Version::Major(major), settings, ..PostgresOptions::default() };
    Postgres::start(options).await.unwrap()
}

/// Runs the setup on a server.
pub async fn set_up(postgres: Postgres) -> Postgres {
    let options = SetupOptions {
        operator: OPERATOR.into(),
        password: SecretText::new(PASSWORD),
        system_database: Some("tenantry_system".into()),
    };
    let report = server_setup(postgres.admin_url("postgres").parse().unwrap(), &options).await.unwrap();
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    postgres
}

/// How the operator reaches a server.
pub fn config(postgres: &Postgres) -> ServerConfig {
    ServerConfig {
        name: "test".into(),
        host: "127.0.0.1".into(),
        port: postgres.port(),
        tls: Tls::Disable,
        username: OPERATOR.into(),
        password: SecretText::new(PASSWORD),
        prefix: "tenant_".into(),
        application_name: "tests".into(),
        max_connections: 8,
    }
}

/// A handle that passed its preflight.
pub async fn ready(postgres: &Postgres) -> Server {
    let server = Server::new(config(postgres));
    let preflight = server.preflight(INSTALLATION).await.unwrap();
    assert!(preflight.missing.is_empty() && preflight.in_use_by.is_none(), "{preflight:?}");
    server.prepare(INSTALLATION).await.unwrap();
    server
}

/// A tenant as the steps make it.
pub struct Tenant {
    pub id: TenantId,
    pub database: String,
    pub login: String,
    pub password: SecretText,
}

impl Tenant {
    pub fn new(database: &str) -> Self {
        Self {
            id: TenantId(Uuid::new_v4()),
            database: database.into(),
            login: names::login_name(database),
            password: generate_password(),
        }
    }

    /// All that provisioning does on a server, each operation as often as said.
    pub async fn provision(&self, server: &Server, times: usize) {
        let again = 0..times;
        for _ in again.clone() {
            server.create_login(self.id, &self.login).await.unwrap();
        }
        let template = server.ensure_template(&ModuleSet::built_in()).await.unwrap();
        for _ in again.clone() {
            server.create_database(self.id, &template).await.unwrap();
        }
        for _ in again.clone() {
            server.seed(self.id, &self.database, &empty_seed(), None).await.unwrap();
        }
        for _ in again.clone() {
            server.publish_database(self.id, &self.database).await.unwrap();
        }
        for _ in again.clone() {
            server.set_access(self.id, &self.database, &self.login, AccessLevel::ReadWrite).await.unwrap();
        }
        for _ in again {
            server.set_login(self.id, &self.login, &scram_verifier(&self.password), true).await.unwrap();
        }
    }

    /// A session of the tenant's own.
    pub async fn session(&self, postgres: &Postgres) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&postgres.url(&self.login, self.password.expose(), &self.database)).await
    }
}

pub fn empty_seed() -> Seed {
    Seed { settings: Default::default(), admins: vec![], demo_data: false }
}

/// The SQLSTATE of what a statement is refused with.
pub async fn refusal(session: &mut PgConnection, statement: &'static str) -> String {
    match session.execute(statement).await {
        Ok(_) => panic!("{statement} was not refused"),
        Err(error) => {
            error.as_database_error().unwrap_or_else(|| panic!("{error}")).code().unwrap().into_owned()
        }
    }
}
