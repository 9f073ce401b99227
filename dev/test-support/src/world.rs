//! An operator with a PostgreSQL and a namespace of its own, for a test that stops, kills or disturbs it.

use std::{collections::BTreeMap, path::PathBuf, sync::LazyLock, time::Duration};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Namespace, events::v1::Event};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use tenantry::api::tenant::Tenant;
use tenantry_dev::{
    ControlPlane, Installation, InstallationOptions, InstalledWebhook, Postgres, PostgresOptions,
    environment::on_a_thread,
    installation::{Names, install_crds, install_plans},
    kubectl::Kubectl,
};
use tokio::sync::OnceCell;

use crate::{
    Fleet,
    audit::{audited, demand_rights_suffice},
    objects, postgres, prepared_postgres,
};

/// The control plane of the process.
pub static CONTROL_PLANE: LazyLock<ControlPlane> =
    LazyLock::new(|| on_a_thread(|| ControlPlane::start(audited())).unwrap());

/// The CRDs and the plans of `CONTROL_PLANE`, installed once: several runs of kubectl less for each world.
static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Tests wait for the drift check: it runs ten times as often as by default.
pub(crate) const QUICK_DRIFT_CHECK: &str = "--drift-interval=3";

/// An operator with a PostgreSQL and a namespace of its own.
pub struct World {
    /// The name of its namespace and of its DatabaseServer.
    pub name: &'static str,
    /// The operator and its PostgreSQL.
    pub installation: Installation,
    /// Its tenants.
    pub fleet: Fleet,
    clock: PathBuf,
    // Dropped after the operator.
    own_plane: Option<ControlPlane>,
}

/// How a `World` differs from the default.
#[derive(Default)]
pub struct Options {
    /// The operator's program; by default, that of this checkout.
    pub binary: Option<PathBuf>,
    /// Its PostgreSQL.
    pub postgres: PostgresOptions,
    /// The operator connects through proxies that can disturb it.
    pub interposed: bool,
    /// A second namespace that the operator watches.
    pub also_watches: Option<&'static str>,
    /// It has a control plane of its own.
    pub own_plane: bool,
    /// That control plane records which users change objects.
    pub records_users: bool,
    /// What is asked of its admission webhook; anything needs a control plane of its own.
    pub webhook: InstalledWebhook,
    /// The mass-deletion breaker is on, and tolerates this many deletions.
    pub breaker: Option<u32>,
    /// Neither drift checks nor samples of usage, for a test that counts effects.
    pub no_background_checks: bool,
    /// More arguments of `tenantry run`.
    pub arguments: Vec<String>,
    /// More environment variables of the operator.
    pub environment: Vec<(String, String)>,
}

impl World {
    /// Starts one; `name` is that of the namespace and of the server.
    pub async fn new(name: &'static str) -> Self {
        Self::with(name, Options::default()).await
    }

    /// Starts one behind proxies that can disturb it.
    pub async fn interposed(name: &'static str, postgres: PostgresOptions) -> Self {
        Self::with(name, Options { postgres, interposed: true, ..Options::default() }).await
    }

    /// Starts one with options.
    pub async fn with(name: &'static str, options: Options) -> Self {
        let own_plane = match options.own_plane {
            true => Some(ControlPlane::start(audited()).await.unwrap()),
            false => None,
        };
        let plane = own_plane.as_ref().unwrap_or_else(|| &CONTROL_PLANE);
        let (client, kubectl) = (plane.client().await.unwrap(), plane.kubectl());
        let namespaces: Vec<&str> = [name].into_iter().chain(options.also_watches).collect();
        for namespace in &namespaces {
            create_namespace(&client, namespace).await;
        }
        if own_plane.is_none() {
            INSTALLED.get_or_init(async || install_crds_and_plans(&kubectl).await).await;
        }
        let clock = std::env::temp_dir().join(format!("tenantry-clock-{}-{name}", std::process::id()));
        std::fs::write(&clock, "0").unwrap();
        let mut arguments = vec![
            format!("--server-selector=tenantry.dev/test={name}"),
            format!("--test-clock={}", clock.display()),
        ];
        if let Some(tolerated) = options.breaker {
            arguments.push("--mass-deletion-breaker=on".to_owned());
            arguments.push(format!("--mass-deletion-minimum={tolerated}"));
        }
        match options.no_background_checks {
            true => arguments.extend(
                ["--drift-interval=3600", "--usage-interval=3600", "--lock-watch-interval=3600"]
                    .map(str::to_owned),
            ),
            false => arguments.push(QUICK_DRIFT_CHECK.to_owned()),
        }
        arguments.extend(options.arguments);
        // A release that does not know modules ignores it.
        let mut environment =
            vec![("TENANTRY_MODULE_SELECTOR".to_owned(), format!("tenantry.dev/test={name}"))];
        environment.extend(options.environment);
        let installation = InstallationOptions {
            names: Names { namespace: format!("{name}-system"), server: name.to_owned(), ..Names::default() },
            server_labels: BTreeMap::from([("tenantry.dev/test".to_owned(), name.to_owned())]),
            watch_namespaces: namespaces.into_iter().map(str::to_owned).collect(),
            environment,
            arguments,
            interposed: options.interposed,
            crds_installed: own_plane.is_none(),
            records_users: options.records_users,
            webhook: options.webhook,
            ..InstallationOptions::default()
        };
        let binary = options.binary.unwrap_or_else(crate::tenantry);
        let installation =
            Installation::start(binary, &kubectl, options.postgres, installation).await.unwrap();
        let fleet = Fleet::of(client, name, installation.operator().log());
        Self { name, installation, fleet, clock, own_plane }
    }

    /// kubectl, as the cluster's administrator.
    pub fn kubectl(&self) -> Kubectl {
        self.plane().kubectl()
    }

    /// Its control plane.
    pub fn plane(&self) -> &ControlPlane {
        self.own_plane.as_ref().unwrap_or_else(|| &CONTROL_PLANE)
    }

    /// Installs the CRDs again.
    pub async fn install_crds(&self) {
        install_crds(&crate::tenantry(), &self.kubectl()).await.unwrap();
    }

    /// Applies a Tenant on this world's server, with the plan's grace period.
    pub async fn apply(&self, name: &str, changes: Value) -> Tenant {
        let spec = json!({"server": self.name, "offboarding": null});
        let mut all = spec.as_object().unwrap().clone();
        all.extend(changes.as_object().unwrap().clone());
        self.fleet.apply(name, Value::Object(all)).await
    }

    /// Applies a Tenant on another server, without a grace period.
    pub async fn apply_on(&self, server: &str, name: &str) {
        self.fleet.apply(name, json!({"server": server})).await;
    }

    /// A second PostgreSQL, which can be stopped without the registry, as a DatabaseServer of this name.
    pub async fn second_server(&self, server: &str) -> Postgres {
        let postgres = prepared_postgres(PostgresOptions::default()).await;
        self.apply_server(server, postgres.port()).await;
        postgres
    }

    /// Applies a DatabaseServer for a server of `prepared_postgres` that is reached at this port.
    pub async fn apply_server(&self, server: &str, port: u16) {
        let login = json!({"username": postgres::LOGIN, "password": postgres::PASSWORD});
        let mut secret = objects::secret(server, login);
        secret["metadata"]["namespace"] = json!(format!("{}-system", self.name));
        let mut object = objects::database_server(server, port, json!({}));
        object["metadata"]["labels"] = json!({"tenantry.dev/test": self.name});
        self.kubectl().apply(&objects::list(&[secret, object]).to_string()).await.unwrap();
    }

    /// Sets the operator's clock ahead by this many seconds in all. At once: the operator never reads half a file.
    pub fn set_clock_ahead(&self, seconds: i64) {
        let next = self.clock.with_extension("next");
        std::fs::write(&next, seconds.to_string()).unwrap();
        std::fs::rename(next, &self.clock).unwrap();
    }

    /// Deletes the Lease that a killed operator left.
    pub async fn delete_lease(&self) {
        let leases = Api::<Lease>::namespaced(self.fleet.client.clone(), &format!("{}-system", self.name));
        leases.delete("tenantry", &DeleteParams::default()).await.unwrap();
    }

    /// A superuser's session.
    pub async fn superuser(&self, database: &str) -> PgConnection {
        self.installation.postgres().connect(database).await.unwrap()
    }

    /// A boolean of the registry or the catalogues, of which `$1` is a text.
    pub async fn holds(&self, database: &str, query: &'static str, name: &str) -> bool {
        let mut session = self.superuser(database).await;
        sqlx::query_scalar(query).bind(name).fetch_one(&mut session).await.unwrap()
    }

    /// The same, of which `$1` is a number.
    pub async fn holds_number(&self, database: &str, query: &'static str, number: i64) -> bool {
        let mut session = self.superuser(database).await;
        sqlx::query_scalar(query).bind(number).fetch_one(&mut session).await.unwrap()
    }

    /// Whether a database exists.
    pub async fn database_exists(&self, name: &str) -> bool {
        self.holds("postgres", "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).await
    }

    /// Whether a role exists.
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
    pub async fn all_usable(&self, names: &[String]) {
        for name in names {
            let mut session: PgConnection = self.fleet.login(name).await.unwrap();
            let users: i64 =
                sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
            assert_eq!(users, 0);
        }
    }

    /// Waits until `ask` answers true.
    pub async fn until(&self, what: &str, ask: impl AsyncFnMut() -> bool) {
        self.fleet.until(what).is_true(ask).await;
    }

    /// Waits until the registry has this status for a slug.
    pub async fn until_status(&self, slug: &str, status: &str) {
        let wait = self.fleet.until(format!("the registry has {slug} as {status}"));
        wait.observe(async || match self.status(slug).await {
            Some(found) if found == status => Ok(()),
            other => Err(other),
        })
        .await;
    }

    /// Waits for an Event about a Tenant, with this reason and with this text in its note.
    pub async fn event(&self, name: &str, reason: &str, text: &str) {
        let events = Api::<Event>::namespaced(self.fleet.client.clone(), self.name);
        let wait = self.fleet.until(format!("an Event {reason} about {name} contains {text:?}"));
        wait.observe(async || {
            let all = events.list(&ListParams::default()).await.unwrap();
            let about = all.into_iter().filter(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name)
            });
            let notes: Vec<String> = about.filter_map(|event| event.note).collect();
            if notes.iter().any(|note| note.contains(text)) { Ok(()) } else { Err(notes) }
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.clock);
        if !std::thread::panicking() {
            demand_rights_suffice(self.plane(), &format!("{}-system", self.name));
        }
    }
}

async fn install_crds_and_plans(kubectl: &Kubectl) {
    install_crds(&crate::tenantry(), kubectl).await.unwrap();
    install_plans(kubectl).await.unwrap();
}

/// Creates a namespace.
pub(crate) async fn create_namespace(client: &Client, name: &str) {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

/// Names with a prefix and a number, from 0.
pub fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}
