//! A separate registry database for each test, on servers that all tests share.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use jiff::SignedDuration;
use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, postgres::PgConnectOptions};
use tenantry::{
    domain::{
        access::AccessLevel, declaration::Declaration, identity::TenantId, names::DatabaseNaming,
        observed::RegistryStatus, record::TenantRecord, slug::Slug,
    },
    postgres::{
        install::setup::{SetupOptions, server_setup},
        tenant::credentials::SecretText,
    },
    registry::{Deadline, NewState, NewTenant, Registration, Registry},
};
use tenantry_dev::{Postgres, PostgresOptions, Version, environment::on_a_thread};
use tenantry_test_support::Wait;
use uuid::Uuid;

const LOGIN: &str = "operator";
const PASSWORD: &str = "operator-password";

static SERVERS: LazyLock<[Postgres; 2]> =
    LazyLock::new(|| [15, 18].map(|major| on_a_thread(move || prepared(major)).unwrap()));

/// A server after `server-setup`.
pub async fn prepared(major: u16) -> tenantry_dev::Result<Postgres> {
    prepared_with(PostgresOptions { version: Version::Major(major), ..PostgresOptions::default() }).await
}

/// A server with options, after `server-setup`.
pub async fn prepared_with(options: PostgresOptions) -> tenantry_dev::Result<Postgres> {
    let server = Postgres::start(options).await?;
    let options = SetupOptions {
        operator: LOGIN.to_owned(),
        password: SecretText::new(PASSWORD),
        system_database: None,
    };
    let report = server_setup(server.admin_url("postgres").parse().unwrap(), &options).await.unwrap();
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    Ok(server)
}

/// A database for a registry on one of the servers.
pub struct System<'a> {
    pub server: &'a Postgres,
    pub database: String,
}

impl System<'static> {
    /// One per version, with the migrations run.
    pub async fn both() -> Vec<Self> {
        let mut systems = Vec::new();
        for server in &*SERVERS {
            let system = System::empty_on(server).await;
            system.registry("migration").await.migrate().await.unwrap();
            systems.push(system);
        }
        systems
    }

    /// One per version, empty.
    pub async fn both_empty() -> Vec<Self> {
        let mut systems = Vec::new();
        for server in &*SERVERS {
            systems.push(System::empty_on(server).await);
        }
        systems
    }
}

impl<'a> System<'a> {
    pub async fn empty_on(server: &'a Postgres) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let database = format!("registry_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = server.connect("postgres").await.unwrap();
        admin
            .execute(AssertSqlSafe(format!("CREATE DATABASE {database} OWNER tenantry_admin")))
            .await
            .unwrap();
        Self { server, database }
    }

    pub fn url(&self) -> String {
        self.server.url(LOGIN, PASSWORD, &self.database)
    }

    /// The registry of a process with this name.
    pub async fn registry(&self, name: &str) -> Registry {
        Registry::connect(&self.url(), name, 5).await.unwrap()
    }

    /// A superuser's session in the registry's database.
    pub async fn superuser(&self) -> PgConnection {
        self.server.connect(&self.database).await.unwrap()
    }

    /// A session with the operator's role, for other statements.
    pub async fn session(&self) -> PgConnection {
        let options: PgConnectOptions = self.url().parse().unwrap();
        options.options([("role", "tenantry_admin")]).connect().await.unwrap()
    }
}

/// The registration of the tenant `slug`, for a Tenant of the same name.
pub fn tenant(slug: &str) -> NewTenant {
    NewTenant {
        slug: Slug::parse(slug).unwrap(),
        name: format!("The company {slug}"),
        plan: "starter".to_owned(),
        settings: [("theme".to_owned(), json!("dark"))].into(),
        server: "default".to_owned(),
        naming: DatabaseNaming::Slug { prefix: "tenant_".to_owned() },
        resource_namespace: "customers".to_owned(),
        resource_name: slug.to_owned(),
        resource_uid: format!("uid-of-{slug}"),
        retain: false,
        actor: "ada".to_owned(),
        declaration: Declaration {
            object: format!("uid-of-{slug}"),
            generation: 1,
            spec: serde_json::Map::new(),
            slug_reason: None,
        },
        created: Vec::new(),
        correlation: None,
    }
}

/// Registers a new tenant.
pub async fn created(registry: &Registry, new: &NewTenant) -> TenantRecord {
    match registry.register(new).await.unwrap() {
        Registration::Created { row, .. } => row,
        other => panic!("not created: {other:?}"),
    }
}

/// The SQLSTATE of a statement that must fail.
pub async fn refused(session: &mut PgConnection, statement: impl Into<String>) -> String {
    let statement: String = statement.into();
    match session.execute(AssertSqlSafe(statement.clone())).await {
        Ok(done) => panic!("{statement} was allowed: {done:?}"),
        Err(error) => error.as_database_error().unwrap().code().unwrap().into_owned(),
    }
}

/// Waits for an asynchronous change, such as the end of a session after its connection was closed.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    Wait::until(what).observe(async || look().await.ok_or("not yet")).await
}

/// The usual status at activation.
pub fn in_use() -> NewState<'static> {
    let (to, access) = (RegistryStatus::Active, AccessLevel::ReadWrite);
    NewState { to, why: None, access, actor: "tenantry", generation: Some(1), at: jiff::Timestamp::now() }
}

/// Closes a tenant's row, with the uid of its current object.
pub async fn close(
    registry: &Registry,
    id: TenantId,
    correlation: Uuid,
) -> tenantry::registry::Result<Deadline> {
    let uid = registry.by_id(id).await.unwrap().unwrap().resource_uid;
    let closing = registry.close(id, &uid, SignedDuration::ZERO, correlation).await;
    closing.map(|closing| closing.deadline)
}

/// Whether the registry allowed what a tombstone's terms must allow.
pub fn passed(deadline: &Deadline) -> bool {
    matches!(deadline, Deadline::Passed(_))
}
