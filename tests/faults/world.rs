//! An operator of a test's own.

use std::{collections::BTreeMap, path::PathBuf, sync::LazyLock, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tenantry::{
    api::tenant::Tenant,
    postgres::{
        credentials::SecretText,
        setup::{SetupOptions, server_setup},
    },
};
use tenantry_dev::{
    ControlPlane, ControlPlaneOptions, Installation, InstallationOptions, Postgres, PostgresOptions,
    environment::on_a_thread, installation::Names, kubectl::Kubectl,
};

use crate::fleet::Fleet;

/// The control plane of the run.
pub static PLANE: LazyLock<ControlPlane> =
    LazyLock::new(|| on_a_thread(|| ControlPlane::start(ControlPlaneOptions::default())).unwrap());

/// Longer than anything should take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// An operator with a PostgreSQL and a namespace of its own.
pub struct World {
    pub name: &'static str,
    pub installation: Installation,
    pub fleet: Fleet,
    clock: PathBuf,
    // After the operator, which ends first.
    own_plane: Option<ControlPlane>,
}

/// What kind of world.
#[derive(Default)]
pub struct Options {
    pub postgres: PostgresOptions,
    /// Behind proxies that can disturb it.
    pub interposed: bool,
    /// A namespace that is watched besides its own.
    pub also_watches: Option<&'static str>,
    /// On a control plane of its own.
    pub own_plane: bool,
    /// With the breaker of mass deletions, which more than so many open.
    pub breaker: Option<u32>,
}

impl World {
    /// Starts it; `name` is that of the namespace and the server.
    pub async fn new(name: &'static str) -> Self {
        Self::with(name, Options::default()).await
    }

    /// Starts it behind proxies that can disturb it.
    pub async fn interposed(name: &'static str, postgres: PostgresOptions) -> Self {
        Self::with(name, Options { postgres, interposed: true, ..Options::default() }).await
    }

    /// Starts one of another kind.
    pub async fn with(name: &'static str, world: Options) -> Self {
        let own_plane = match world.own_plane {
            true => Some(ControlPlane::start(ControlPlaneOptions::default()).await.unwrap()),
            false => None,
        };
        let plane = own_plane.as_ref().unwrap_or(&PLANE);
        let (client, kubectl) = (plane.client().await.unwrap(), plane.kubectl());
        let namespaces: Vec<&str> = [name].into_iter().chain(world.also_watches).collect();
        for namespace in &namespaces {
            kubectl.run(&["create", "namespace", namespace]).await.unwrap();
        }
        let clock = std::env::temp_dir().join(format!("tenantry-clock-{}-{name}", std::process::id()));
        std::fs::write(&clock, "0").unwrap();
        let options = InstallationOptions {
            names: Names { namespace: format!("{name}-system"), server: name.to_owned(), ..Names::default() },
            server_labels: BTreeMap::from([("tenantry.dev/test".to_owned(), name.to_owned())]),
            watch_namespaces: namespaces.into_iter().map(str::to_owned).collect(),
            arguments: [
                format!("--server-selector=tenantry.dev/test={name}"),
                format!("--test-clock={}", clock.display()),
            ]
            .into_iter()
            .chain(world.breaker.map(|_| "--mass-deletion-breaker=on".to_owned()))
            .chain(world.breaker.map(|minimum| format!("--mass-deletion-minimum={minimum}")))
            .collect(),
            interposed: world.interposed,
            ..InstallationOptions::default()
        };
        let binary = env!("CARGO_BIN_EXE_tenantry").into();
        let installation = Installation::start(binary, &kubectl, world.postgres, options).await.unwrap();
        let fleet = Fleet::of(client, name, installation.operator().log());
        Self { name, installation, fleet, clock, own_plane }
    }

    /// kubectl, as the cluster's administrator.
    pub fn kubectl(&self) -> Kubectl {
        self.own_plane.as_ref().unwrap_or(&PLANE).kubectl()
    }

    /// Applies a Tenant on this world's server, with more spec.
    pub async fn apply(&self, name: &str, more: Value) -> Tenant {
        let mut spec = json!({"server": self.name, "offboarding": null});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.fleet.apply(name, spec).await
    }

    /// Applies a Tenant on another server.
    pub async fn apply_on(&self, server: &str, name: &str) {
        self.apply(name, json!({"server": server, "offboarding": {"gracePeriodSeconds": 0}})).await;
    }

    /// Another PostgreSQL, as a `DatabaseServer` of this name: one that can be stopped without the registry.
    pub async fn second_server(&self, server: &str) -> Postgres {
        let postgres = set_up(PostgresOptions::default()).await;
        self.serve(server, postgres.port()).await;
        postgres
    }

    /// Applies a `DatabaseServer` of this name for the second PostgreSQL, which is reached at this port.
    pub async fn serve(&self, server: &str, port: u16) {
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": server, "namespace": format!("{}-system", self.name)},
                "stringData": {"username": "second_operator", "password": "second-password"}},
            {"apiVersion": "tenantry.dev/v1alpha1", "kind": "DatabaseServer",
                "metadata": {"name": server, "labels": {"tenantry.dev/test": self.name}},
                "spec": {"engine": "PostgreSQL", "host": "127.0.0.1", "port": port,
                    "adminSecretRef": {"name": server}, "tls": {"mode": "Disable"}}},
        ]});
        self.kubectl().apply(&objects.to_string()).await.unwrap();
    }

    /// Sets the operator's clock ahead by so many seconds in all.
    pub fn ahead(&self, seconds: i64) {
        std::fs::write(&self.clock, seconds.to_string()).unwrap();
    }

    /// Deletes the Lease, which an operator that was killed left behind.
    pub async fn free_the_lease(&self) {
        let leases = Api::<Lease>::namespaced(self.fleet.client.clone(), &format!("{}-system", self.name));
        leases.delete("tenantry", &DeleteParams::default()).await.unwrap();
    }

    /// A superuser's session.
    pub async fn superuser(&self, database: &str) -> PgConnection {
        self.installation.postgres().connect(database).await.unwrap()
    }

    /// A truth of the registry or the catalogues.
    pub async fn holds(&self, database: &str, query: &'static str, name: &str) -> bool {
        let mut session = self.superuser(database).await;
        sqlx::query_scalar(query).bind(name).fetch_one(&mut session).await.unwrap()
    }

    /// A truth about a number.
    pub async fn holds_number(&self, database: &str, query: &'static str, number: i64) -> bool {
        let mut session = self.superuser(database).await;
        sqlx::query_scalar(query).bind(number).fetch_one(&mut session).await.unwrap()
    }

    pub async fn database_exists(&self, name: &str) -> bool {
        self.holds("postgres", "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).await
    }

    pub async fn role_exists(&self, name: &str) -> bool {
        self.holds("postgres", "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name).await
    }

    /// The registry's status of the newest tenant with a slug.
    pub async fn status(&self, slug: &str) -> Option<String> {
        let query = "SELECT status FROM tenants WHERE slug = $1 ORDER BY created_at DESC LIMIT 1";
        let mut session = self.superuser("tenantry_system").await;
        sqlx::query_scalar(query).bind(slug).fetch_optional(&mut session).await.unwrap()
    }

    /// Every tenant can use its database.
    pub async fn all_work(&self, names: &[String]) {
        for name in names {
            let mut session: PgConnection = self.fleet.login(name).await.unwrap();
            let users: i64 =
                sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
            assert_eq!(users, 0);
        }
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, mut so: impl AsyncFnMut() -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            let mut looks = tokio::time::interval(Duration::from_millis(50));
            while !so().await {
                looks.tick().await;
            }
        });
        assert!(waited.await.is_ok(), "not so: {what}\n{}", self.fleet.operator_log());
    }

    /// Waits until the registry has this status for a slug.
    pub async fn until_status(&self, slug: &str, status: &str) {
        self.until(&format!("{slug} is {status}"), async || {
            self.status(slug).await.as_deref() == Some(status)
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.clock);
    }
}

/// So many names.
pub fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// A PostgreSQL of its own for `second_operator`.
pub async fn set_up(options: PostgresOptions) -> Postgres {
    let postgres = Postgres::start(options).await.unwrap();
    let setup = SetupOptions {
        operator: "second_operator".into(),
        password: SecretText::new("second-password"),
        system_database: None,
    };
    server_setup(postgres.admin_url("postgres").parse().unwrap(), &setup).await.unwrap();
    postgres
}

/// Logs in with the URI of a Secret that was read before.
pub async fn login(uri: &str) -> sqlx::Result<PgConnection> {
    use sqlx::ConnectOptions;
    uri.parse::<PgConnectOptions>()?.connect().await
}
