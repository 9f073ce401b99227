//! Modules whose migrations an application's own tool applies: `source.job`. There is no kubelet: the test runs the command
//! of each container with its environment, and completes the pod's status.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sqlx::{Connection, Executor};
use tenantry::{
    api::{
        API_VERSION,
        conditions::{READY, find_condition},
        tenant_module::{TenantModule, TenantModuleStatus},
        tenant_status::{ModuleState, ModuleStatus},
    },
    controller::tenant_module::job::{LABEL_MIGRATED_TENANT, LABEL_RUN},
};
use tenantry_test_support::{JobPods, Options, World};

use crate::adopting::{allow, application, old_login, unblock};

pub const MODULE: &str = "tools-shop";
/// Like a tool, it leaves what is there.
const FIRST: &str = "CREATE TABLE IF NOT EXISTS users (id bigserial PRIMARY KEY, email text)";

/// A world with the module of a tool, and what the tool's pods need.
pub struct Tools {
    pub world: World,
    pods: JobPods,
    jobs: Api<Job>,
    modules: Api<TenantModule>,
}

impl Tools {
    /// Starts a world; `name` is that of the namespace and of the server.
    pub async fn with(name: &'static str, options: Options) -> Self {
        let world = World::with(name, options).await;
        let (client, namespace) = (world.fleet.client.clone(), format!("{}-system", world.name));
        Self {
            pods: JobPods::new(&client, &namespace),
            jobs: Api::namespaced(client.clone(), &namespace),
            modules: Api::all(client),
            world,
        }
    }

    /// The module at this version, whose tool is one statement by psql.
    pub async fn apply(&self, version: &str, sql: &str) {
        let command = ["psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "$(DATABASE_URL)", "--command", sql];
        let job = json!({"image": "registry.example/shop:1", "command": command});
        let module = json!({"apiVersion": API_VERSION, "kind": "TenantModule",
            "metadata": {"name": MODULE, "labels": {"tenantry.dev/test": self.world.name}},
            "spec": {"source": {"job": job}, "version": version}});
        self.modules
            .patch(MODULE, &PatchParams::apply("tests").force(), &Patch::Apply(module))
            .await
            .unwrap();
    }

    /// Runs the containers of all pods that wait, as a kubelet would. Returns how many, and of how many tenants.
    async fn kubelet(&self, for_tenants: bool) -> (usize, usize) {
        let (mut count, mut of_tenants) = (0, 0);
        let is_for_tenant = |pod: &Pod| pod.labels().contains_key(LABEL_MIGRATED_TENANT);
        for pod in self.pods.waiting().await.into_iter().filter(|pod| for_tenants || !is_for_tenant(pod)) {
            if self.pods.run(&pod).await.is_none() {
                continue;
            }
            count += 1;
            of_tenants += usize::from(pod.labels().contains_key(LABEL_MIGRATED_TENANT));
        }
        (count, of_tenants)
    }

    /// Waits until the module is so, while the kubelet works if it does.
    pub async fn module(
        &self,
        what: &str,
        works: bool,
        so: impl Fn(&TenantModuleStatus) -> bool,
    ) -> TenantModuleStatus {
        let wait = self.world.fleet.until(format!("the module is {what}"));
        wait.observe(async || {
            if works {
                self.kubelet(false).await;
            }
            let module = self.modules.get(MODULE).await.unwrap();
            let status = module.status.unwrap_or_default();
            let is_read = status.observed_generation == module.metadata.generation;
            if is_read && so(&status) { Ok(status) } else { Err(status) }
        })
        .await
    }

    pub async fn tenant(
        &self,
        name: &str,
        what: &str,
        works: bool,
        so: impl Fn(&ModuleStatus) -> bool,
    ) -> ModuleStatus {
        let wait = self.world.fleet.until(format!("the module of {name} is {what}"));
        wait.observe(async || {
            if works {
                self.kubelet(true).await;
            }
            let status = self.world.fleet.tenants.get(name).await.unwrap().status.unwrap_or_default();
            match status.modules.into_iter().find(|module| module.name == MODULE) {
                Some(module) if so(&module) => Ok(module),
                other => Err(other),
            }
        })
        .await
    }

    /// Waits until no login, Secret and record of a run is left.
    pub async fn nothing_is_left(&self) {
        let query = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE '%\\_migrate'";
        let wait = self.world.fleet.until("no login is left");
        wait.observe(async || {
            let mut superuser = self.world.superuser("postgres").await;
            let left: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut superuser).await.unwrap();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
        let query = "SELECT NOT EXISTS (SELECT FROM migration_runs WHERE $1 = '')";
        self.world
            .until("no run is left", async || self.world.holds("tenantry_system", query, "").await)
            .await;
        let secrets = self.pods.secrets().await;
        assert!(secrets.is_empty(), "{secrets:?}");
    }

    async fn jobs(&self) -> usize {
        self.jobs.list(&ListParams::default().labels(LABEL_RUN)).await.unwrap().items.len()
    }
}

pub fn is_accepted(version: &str) -> impl Fn(&TenantModuleStatus) -> bool {
    move |status| {
        status.version.as_deref() == Some(version)
            && find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "True")
    }
}

pub fn is_at(version: &str) -> impl Fn(&ModuleStatus) -> bool {
    move |module| {
        module.version_name.as_deref() == Some(version) && module.state == Some(ModuleState::Current)
    }
}

fn has_reason(reason: &str) -> impl Fn(&TenantModuleStatus) -> bool {
    move |status| find_condition(&status.conditions, READY).is_some_and(|ready| ready.reason == reason)
}

#[tokio::test]
async fn tool_runs_once_on_the_template_and_in_each_older_tenant() {
    let tools = Tools::with("tools-job", Options::default()).await;
    let fleet = &tools.world.fleet;
    let wants = || json!({"modules": [{"name": MODULE}]});

    // A Job that does not come to its end, as with an image that does not exist, is replaced when the module is corrected.
    tools.apply("2026.1", "SELECT 1").await;
    let waiting = async || tools.pods.waiting().await.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    tools.world.until("a pod waits", async || waiting().await.len() == 1).await;
    let first = waiting().await;

    // What fails on the template reaches no tenant, and another image is another attempt.
    tools.apply("2026.1", "CREATE TABLE users (id bigserial").await;
    let is_replaced = async || {
        let now = waiting().await;
        now.len() == 1 && now != first
    };
    tools.world.until("its Job is replaced", is_replaced).await;
    let refused = tools.module("refused", true, has_reason("RehearsalFailed")).await;
    let message = &find_condition(&refused.conditions, READY).unwrap().message;
    for part in
        ["version 2026.1 failed", "before any tenant was touched: exit code 1", "[removed]", "syntax error"]
    {
        assert!(message.contains(part), "{message}");
    }
    tools.nothing_is_left().await;
    tools.apply("2026.1", FIRST).await;
    tools.module("accepted", true, is_accepted("2026.1")).await;
    tools.nothing_is_left().await;

    // New tenants are clones: no Job runs for them, and their login has its rights on the tool's tables.
    let before = tools.jobs().await;
    for name in ["tools-a", "tools-b"] {
        tools.world.apply(name, wants()).await;
    }
    for name in ["tools-a", "tools-b"] {
        fleet.ready(name).await;
        tools.tenant(name, "current", false, is_at("2026.1")).await;
        assert_eq!(fleet.secret(&format!("{name}-db"), "schema.tools-shop").await, "2026.1");
        let mut login = fleet.login(name).await.unwrap();
        sqlx::query("INSERT INTO users (email) VALUES ('a@example.com')").execute(&mut login).await.unwrap();
        login.close().await.unwrap();
    }
    assert_eq!(tools.jobs().await, before);

    // A new version: the template first, then each tenant, also after a restart in the middle of a run. On one it fails.
    let mut other = fleet.login("tools-b").await.unwrap();
    sqlx::query("INSERT INTO users (email) VALUES ('a@example.com')").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    tools.apply("2026.2", &format!("{FIRST}; CREATE UNIQUE INDEX emails ON users (email)")).await;
    tools.module("accepted", true, is_accepted("2026.2")).await;
    tools.world.until("the pods of both tenants wait", async || tools.pods.waiting().await.len() == 2).await;
    assert_eq!(fleet.secret("tools-a-db", "schema.tools-shop").await, "2026.1");
    let operator = tools.world.installation.operator();
    operator.kill().await.unwrap();
    assert_eq!(tools.kubelet(true).await, (2, 2));
    tools.world.delete_lease().await;
    operator.start().await.unwrap();
    tools.tenant("tools-a", "current", false, is_at("2026.2")).await;
    let failed =
        tools.tenant("tools-b", "failed", false, |module| module.state == Some(ModuleState::Failed)).await;
    let message = failed.message.unwrap();
    assert!(
        message.contains("exit code 1") && message.contains("could not create unique index"),
        "{message}"
    );
    assert_eq!(
        (failed.version_name.as_deref(), failed.target_name.as_deref()),
        (Some("2026.1"), Some("2026.2"))
    );
    fleet.reason("tools-b", READY, "MigrationFailed").await;
    fleet.ready("tools-a").await;
    tools.nothing_is_left().await;
    // Its application works as before, and a new version that takes care of it is the way out.
    fleet.login("tools-b").await.unwrap().close().await.unwrap();
    tools.apply("2026.3", &format!("{FIRST}; CREATE INDEX IF NOT EXISTS some_emails ON users (email)")).await;
    tools.module("accepted", true, is_accepted("2026.3")).await;
    for name in ["tools-a", "tools-b"] {
        tools.tenant(name, "current", true, is_at("2026.3")).await;
        fleet.ready(name).await;
    }
    tools.nothing_is_left().await;

    // A database whose tool made its tables before it was a tenant's: they stand against nothing, and the tool brings the rest
    // once the tenant is active.
    let (world, database) = (&tools.world, "tools_adopted");
    application(world, database).await;
    old_login(world, database).await.unwrap().execute(FIRST).await.unwrap();
    allow(world, json!([database])).await;
    let adopts = |adopt: Value| json!({"modules": [{"name": MODULE}], "adopt": adopt});
    world.apply("tools-adopted", adopts(json!({"database": database}))).await;
    let digest = unblock(world, "tools-adopted", database).await;
    world.apply("tools-adopted", adopts(json!({"database": database, "confirm": digest}))).await;
    tools.tenant("tools-adopted", "current", true, is_at("2026.3")).await;
    fleet.ready("tools-adopted").await;
    let mut login = fleet.login("tools-adopted").await.unwrap();
    let indexes = "SELECT count(*) FROM pg_indexes WHERE indexname = 'some_emails'";
    assert_eq!(sqlx::query_scalar::<_, i64>(indexes).fetch_one(&mut login).await.unwrap(), 1);
    tools.nothing_is_left().await;
}
