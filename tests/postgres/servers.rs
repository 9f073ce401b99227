//! One server per version for the whole run, set up as an administrator would.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use sqlx::{Connection, Executor, PgConnection};
use tenantry::{
    domain::{
        access::AccessLevel,
        drift::access_in_force,
        identity::TenantId,
        names,
        placement::Placement,
        tenant_facts::{RecordedOids, TenantFacts},
    },
    modules::ModuleSet,
    postgres::{
        ServerConfig, Tls,
        install::{
            rights::MissingRight,
            setup::{SetupOptions, SetupReport, server_setup},
        },
        server::Server,
        tenant::{
            credentials::{SecretText, generate_password, scram_verifier},
            seed::Seed,
        },
    },
};
use tenantry_dev::{Postgres, PostgresOptions, Version, environment::on_a_thread};
use uuid::Uuid;

pub const OPERATOR: &str = "operator";
pub const PASSWORD: &str = "operator-password";
/// The installation of this run.
pub const INSTALLATION: Uuid = Uuid::from_u128(0x7e57);

/// The oldest and the newest supported version.
pub static SERVERS: LazyLock<[Postgres; 2]> = LazyLock::new(|| {
    // Off by default, but an application may need prepared transactions: then a tenant can leave some behind.
    let settings = vec![("max_prepared_transactions".to_owned(), "20".to_owned())];
    [15, 18].map(|major| {
        let settings = settings.clone();
        on_a_thread(move || async move { Ok(set_up(start(major, settings).await).await) }).unwrap()
    })
});

/// Starts a server for one test.
pub async fn start(major: u16, settings: Vec<(String, String)>) -> Postgres {
    let options = PostgresOptions { version: Version::Major(major), settings, ..PostgresOptions::default() };
    Postgres::start(options).await.unwrap()
}

/// Runs the setup on a server.
pub async fn set_up(postgres: Postgres) -> Postgres {
    let report = set_up_as(&postgres.admin_url("postgres")).await;
    assert!(report.refused.is_empty() && report.reduced.is_empty(), "{report:?}");
    postgres
}

/// Runs the setup with an administrator's URL.
pub async fn set_up_as(url: &str) -> SetupReport {
    server_setup(url.parse().unwrap(), &setup_options()).await.unwrap()
}

pub fn setup_options() -> SetupOptions {
    SetupOptions {
        operator: OPERATOR.into(),
        password: SecretText::new(PASSWORD),
        system_database: Some("tenantry_system".into()),
    }
}

/// The operator's connection to a server.
pub fn config(postgres: &Postgres) -> ServerConfig {
    config_at(postgres.port())
}

/// As [`config`], of a server that another process started.
pub fn config_at(port: u16) -> ServerConfig {
    ServerConfig {
        name: "test".into(),
        host: "127.0.0.1".into(),
        port,
        tls: Tls::Disable,
        username: OPERATOR.into(),
        password: SecretText::new(PASSWORD),
        prefix: "tenant_".into(),
        application_name: "tests".into(),
        max_connections: 8,
    }
}

/// A handle that passed its preflight. Another test may have created a database that PUBLIC may connect to.
pub async fn ready(postgres: &Postgres) -> Server {
    let server = Server::new(config(postgres));
    let preflight = server.preflight(INSTALLATION).await.unwrap();
    let is_usable = !preflight.missing.iter().any(MissingRight::is_required);
    assert!(is_usable && preflight.in_use_by.is_none(), "{preflight:?}");
    server.prepare(INSTALLATION).await.unwrap();
    server
}

/// A tenant as the steps create it.
pub struct Tenant {
    pub placement: Placement,
    pub password: SecretText,
}

impl Tenant {
    pub fn new(database: &str) -> Self {
        Self { placement: placement(database), password: generate_password() }
    }

    /// All operations of a provisioning with the built-in modules, each as often as given.
    pub async fn provision(&self, server: &Server, times: usize) {
        self.provision_with(server, &ModuleSet::built_in(), times).await;
    }

    /// As [`Self::provision`], with other modules.
    pub async fn provision_with(&self, server: &Server, modules: &ModuleSet, times: usize) {
        claim_name(server, &self.placement.database);
        let again = 0..times;
        for _ in again.clone() {
            server.create_login(&self.placement).await.unwrap();
        }
        let template = server.ensure_template(modules).await.unwrap();
        for _ in again.clone() {
            server.create_database(&self.placement, &template).await.unwrap();
        }
        for _ in again.clone() {
            server.seed(&self.placement, &empty_seed(), None).await.unwrap();
        }
        for _ in again.clone() {
            server.publish_database(&self.placement).await.unwrap();
        }
        for _ in again.clone() {
            server.set_access(&self.placement, AccessLevel::ReadWrite).await.unwrap();
        }
        for _ in again {
            server.set_login(&self.placement, &scram_verifier(&self.password), true).await.unwrap();
        }
    }

    /// A session of the tenant's login.
    pub async fn session(&self, postgres: &Postgres) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&postgres.url(
            &self.placement.login,
            self.password.expose(),
            &self.placement.database,
        ))
        .await
    }
}

/// Tests that run in parallel share the servers. Two with the same name would fail only where they meet; this fails
/// whichever is second, in every run.
fn claim_name(server: &Server, database: &str) {
    static CLAIMED: LazyLock<Mutex<HashMap<(u16, String), String>>> = LazyLock::new(Mutex::default);

    // The test harness names each thread for its test.
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let name = (server.config().port, database.to_owned());
    let first = CLAIMED.lock().unwrap().entry(name).or_insert_with(|| test.clone()).clone();
    assert_eq!(first, test, "both tests use the database {database}: give one of them another name");
}

/// Where a new tenant's data is.
pub fn placement(database: &str) -> Placement {
    Placement {
        tenant: TenantId(Uuid::new_v4()),
        server: "test".into(),
        database: database.into(),
        schema: None,
        login: names::login_name(database),
        previous_login: None,
        reader_login: None,
    }
}

/// The access level that is in force according to the ownership comments.
pub fn access(facts: &TenantFacts) -> Option<AccessLevel> {
    access_in_force(facts, RecordedOids::default())
}

/// The number of logins that sessions of the operator have in this database: none is left after an operation.
pub async fn session_logins(postgres: &Postgres, database: &str) -> i64 {
    let query =
        "SELECT count(*) FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = 'tenantry:session:' || $1";
    let mut superuser = postgres.connect("postgres").await.unwrap();
    sqlx::query_scalar(query).bind(database).fetch_one(&mut superuser).await.unwrap()
}

pub fn empty_seed() -> Seed {
    Seed { settings: Default::default(), admins: vec![], demo_data: false, credentials_only: false }
}

/// The SQLSTATE with which a statement is refused.
pub async fn refusal(session: &mut PgConnection, statement: &'static str) -> String {
    match session.execute(statement).await {
        Ok(_) => panic!("{statement} was not refused"),
        Err(error) => {
            error.as_database_error().unwrap_or_else(|| panic!("{error}")).code().unwrap().into_owned()
        }
    }
}
