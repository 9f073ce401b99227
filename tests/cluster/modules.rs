//! Modules from outside: they reach tenants, their mistakes do not, and what a tenant has stays.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::{
    API_VERSION, LABEL_MANAGED_BY,
    conditions::{READY, STALLED, find_condition},
    tenant::Tenant,
    tenant_module::{TenantModule, TenantModuleStatus},
    tenant_status::{Access, ModuleState, ModuleStatus},
};
use tenantry_test_support::{Fleet, shared_operator::superuser};

use crate::secrets::event_in;

/// The modules of a test, and a namespace for its tenants.
pub struct Modules {
    pub fleet: Fleet,
    pub api: Api<TenantModule>,
    maps: Api<ConfigMap>,
}

impl Modules {
    pub async fn new(namespace: &str) -> Self {
        let fleet = Fleet::new(namespace).await;
        let (api, maps) =
            (Api::all(fleet.client.clone()), Api::namespaced(fleet.client.clone(), "tenantry-system"));
        Self { fleet, api, maps }
    }

    /// Replaces the files of a ConfigMap.
    pub async fn files(&self, name: &str, files: &[(&str, &str)]) {
        let data: serde_json::Map<String, Value> =
            files.iter().map(|(file, sql)| ((*file).to_owned(), json!(sql))).collect();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        self.maps.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(map)).await.unwrap();
    }

    /// Applies a module whose files are in ConfigMaps, by default the one of its name.
    pub async fn apply(&self, name: &str, changes: Value) {
        let mut spec = json!({"source": {"configMaps": [{"name": name}]}});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let module = json!({"apiVersion": API_VERSION, "kind": "TenantModule",
            "metadata": {"name": name}, "spec": spec});
        self.api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(module)).await.unwrap();
    }

    pub async fn delete(&self, name: &str) {
        self.api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until the status of a module, for its current generation, is so.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        so: impl Fn(&TenantModuleStatus) -> bool,
    ) -> TenantModuleStatus {
        let wait = self.fleet.until(format!("module {name} is {what}"));
        wait.observe(async || {
            let module = self.api.get_opt(name).await.unwrap();
            let generation = module.as_ref().and_then(|module| module.metadata.generation);
            let status = module.and_then(|module| module.status).unwrap_or_default();
            let is_observed = generation.is_some() && status.observed_generation == generation;
            if is_observed && so(&status) { Ok(status) } else { Err(status) }
        })
        .await
    }

    /// Waits until this version is accepted.
    pub async fn accepted(&self, name: &str, version: &str) -> TenantModuleStatus {
        self.until(name, &format!("Ready at {version}"), |status| {
            status.version.as_deref() == Some(version)
                && find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "True")
        })
        .await
    }

    /// Waits until a module is refused for a reason; returns the message.
    pub async fn refused(&self, name: &str, reason: &str) -> String {
        let is_it = |status: &TenantModuleStatus| {
            let ready = find_condition(&status.conditions, READY);
            ready.is_some_and(|ready| ready.status == "False" && ready.reason == reason)
        };
        let status = self.until(name, reason, is_it).await;
        assert_eq!(find_condition(&status.conditions, STALLED).unwrap().reason, reason);
        find_condition(&status.conditions, READY).unwrap().message.clone()
    }

    /// Waits until a tenant's module is so.
    async fn tenant(
        &self,
        tenant: &str,
        module: &str,
        what: &str,
        so: impl Fn(&ModuleStatus) -> bool,
    ) -> ModuleStatus {
        let wait = self.fleet.until(format!("module {module} of {tenant} is {what}"));
        wait.observe(async || {
            let status = self.fleet.tenants.get(tenant).await.unwrap().status.unwrap_or_default();
            match status.modules.iter().find(|found| found.name == module) {
                Some(found) if so(found) => Ok(found.clone()),
                found => Err(found.cloned()),
            }
        })
        .await
    }

    /// Waits until a tenant has this version of a module.
    pub async fn at(&self, tenant: &str, module: &str, version: i64) {
        let current =
            |found: &ModuleStatus| found.version == version && found.state == Some(ModuleState::Current);
        self.tenant(tenant, module, &format!("at {version}"), current).await;
    }
}

/// Whether a table of the schema public is in a tenant's database.
pub async fn has_table(tenant: &str, table: &str) -> bool {
    let database = format!("tenant_{}", tenant.replace('-', "_"));
    let query = "SELECT to_regclass('public.' || $1) IS NOT NULL";
    sqlx::query_scalar(query).bind(table).fetch_one(&mut superuser(&database).await).await.unwrap()
}

const FIRST: (&str, &str) = ("0001_news.sql", "CREATE TABLE public.news (id integer, title text NOT NULL)");
const SECOND: (&str, &str) = ("0002_read.sql", "ALTER TABLE public.news ADD COLUMN is_read boolean");

#[tokio::test]
async fn two_files_reach_three_tenants_and_a_third_file_follows() {
    let modules = Modules::new("modules-news").await;
    let (fleet, names) = (&modules.fleet, ["mod-news-a", "mod-news-b", "mod-news-c"]);
    let wants = || json!({"modules": [{"name": "news"}]});
    // One exists before the module, one is waiting for it, and one follows.
    fleet.apply(names[0], json!({})).await;
    fleet.ready(names[0]).await;
    fleet.apply(names[0], wants()).await;
    fleet.apply(names[1], wants()).await;
    fleet.reason(names[1], READY, "ModuleNotFound").await;
    modules.files("news", &[FIRST, SECOND]).await;
    modules.apply("news", json!({})).await;
    let status = modules.accepted("news", "2").await;
    let rehearsal = status.rehearsal.unwrap();
    assert_eq!(rehearsal.files, ["0001_news.sql", "0002_read.sql"]);
    fleet.apply(names[2], wants()).await;
    for name in names {
        fleet.ready(name).await;
        modules.at(name, "news", 2).await;
        assert!(has_table(name, "news").await, "{name}");
    }
    let counted = |total| {
        move |status: &TenantModuleStatus| {
            status.tenants.is_some_and(|tenants| (tenants.total, tenants.current) == (total, total))
        }
    };
    modules.until("news", "in three tenants", counted(3)).await;

    let third = ("0003_tags.sql", "CREATE TABLE public.news_tags (tag text)");
    modules.files("news", &[FIRST, SECOND, third]).await;
    for name in names {
        modules.at(name, "news", 3).await;
        assert!(has_table(name, "news_tags").await, "{name}");
        let secret = async || fleet.secret(&format!("{name}-db"), "schema.news").await == "3";
        fleet.until("the Secret has the version").is_true(secret).await;
        fleet.ready(name).await;
    }
    let built_in = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}=tenantry"));
    let wait = fleet.until("the built-in modules are listed");
    wait.observe(async || {
        let listed = modules.api.list(&built_in).await.unwrap();
        let listed: Vec<String> = listed.into_iter().filter_map(|module| module.metadata.name).collect();
        if listed == ["core", "identity", "projects"] { Ok(()) } else { Err(listed) }
    })
    .await;
    modules.delete("core").await;
    let exists = async || modules.api.get_opt("core").await.unwrap().is_some();
    fleet.until("core is listed again").is_true(exists).await;
    modules.accepted("core", "4").await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn mistakes_are_refused_with_a_remedy_and_change_no_tenant() {
    let modules = Modules::new("modules-wrong").await;
    let name = "wrong";
    let says =
        |message: &str, words: &str| assert!(message.contains(words), "{words:?} is not in {message:?}");
    modules.apply(name, json!({})).await;
    says(
        &modules.refused(name, "SourceNotFound").await,
        "no ConfigMap \"wrong\" in namespace \"tenantry-system\"",
    );
    modules.files(name, &[]).await;
    modules.refused(name, "NoFiles").await;
    modules.files(name, &[FIRST, ("0003_c.sql", "SELECT 1")]).await;
    says(&modules.refused(name, "VersionGap").await, "no file with number 0002");
    modules.files(name, &[FIRST, ("2.sql", "SELECT 1")]).await;
    says(
        &modules.refused(name, "InvalidFile").await,
        "ConfigMap \"wrong\": \"2.sql\" is not the name of a file",
    );
    modules.files("wrong-2", &[("0001_more.sql", "SELECT 1")]).await;
    modules.apply(name, json!({"source": {"configMaps": [{"name": name}, {"name": "wrong-2"}]}})).await;
    modules.files(name, &[FIRST]).await;
    says(&modules.refused(name, "DuplicateVersion").await, "0001_news.sql (ConfigMap \"wrong\")");
    modules.apply(name, json!({"version": "7"})).await;
    says(&modules.refused(name, "VersionNotFound").await, "name a number from 1 to 1");
    modules.apply(name, json!({"dependsOn": ["nothing"]})).await;
    says(&modules.refused(name, "DependencyNotFound").await, "no module \"nothing\"");
    modules.apply("wrong-b", json!({"dependsOn": [name]})).await;
    modules.apply(name, json!({"dependsOn": ["wrong-b"]})).await;
    modules.refused("wrong-b", "SourceNotFound").await;
    let message = modules.refused(name, "DependencyCycle").await;
    says(&message, "wrong depends on wrong-b depends on wrong");
    assert_eq!(event_in("default", &modules.fleet, name, "DependencyCycle").await, message);
    modules.delete("wrong-b").await;
    // Of two objects that change together, the operator may see either first. So the files that are accepted below are
    // there before those of another ConfigMap, whose changes it sees afterwards.
    let good = [("0001_wrong.sql", "CREATE TABLE public.wrong (id integer)"), ("0002_b.sql", "SELECT 1")];
    modules.files(name, &good).await;
    let broken =
        ("0001_wrong.sql", "CREATE TABLE public.wrong (id integer);\nCREATE TABEL public.wrong_2 ()");
    let other = json!({"configMaps": [{"name": "wrong-3"}]});
    modules.files("wrong-3", &[broken]).await;
    modules.apply(name, json!({"source": other, "dependsOn": ["identity"]})).await;
    says(&modules.refused(name, "RehearsalFailed").await, "0001_wrong.sql line 2 column 8");
    modules.files("wrong-3", &[("0001_wrong.sql", "ALTER TABLE public.users ADD COLUMN mine text")]).await;
    says(&modules.refused(name, "UnsafeMigration").await, "public.users");
    let extensions = json!([{"name": "no_such_extension"}]);
    modules.apply(name, json!({"source": other, "dependsOn": ["identity"], "extensions": extensions})).await;
    says(&modules.refused(name, "ExtensionNotFound").await, "no_such_extension");

    // Accepted, and then changed.
    modules.apply(name, json!({})).await;
    modules.accepted(name, "2").await;
    let fleet = &modules.fleet;
    fleet.apply("mod-wrong", json!({"modules": [{"name": name}]})).await;
    fleet.ready("mod-wrong").await;
    modules
        .files(
            name,
            &[("0001_wrong.sql", "CREATE TABLE public.wrong (id bigint)"), ("0002_b.sql", "SELECT 1")],
        )
        .await;
    says(
        &modules.refused(name, "ChecksumChanged").await,
        "0001_wrong.sql was changed after it had been accepted",
    );
    modules.files(name, &[("0001_wrong.sql", "CREATE TABLE public.wrong (id integer)")]).await;
    says(&modules.refused(name, "VersionWentBack").await, "0002 (0002_b.sql) was accepted");
    modules.files(name, &good).await;
    modules.apply(name, json!({"schema": "elsewhere"})).await;
    says(&modules.refused(name, "SchemaChanged").await, "\"elsewhere\" and was \"public\"");
    modules.files(name, &[("nonsense", "")]).await;
    modules.apply(name, json!({})).await;
    modules.refused(name, "InvalidFile").await;
    // The tenant has what it had, and its other work goes on; a new one waits.
    let before = fleet.tenants.get("mod-wrong").await.unwrap().status.unwrap();
    let module = before.modules.iter().find(|module| module.name == name).unwrap();
    assert_eq!((module.version, module.state), (2, Some(ModuleState::Current)));
    let suspended = json!({"state": "Suspended", "stateReason": "unpaid", "modules": [{"name": name}]});
    fleet.apply("mod-wrong", suspended).await;
    fleet.access("mod-wrong", Access::Blocked).await;
    fleet.apply("mod-wrong-2", json!({"modules": [{"name": name}]})).await;
    fleet.reason("mod-wrong-2", READY, "ModuleNotReady").await;
    modules
        .files(
            name,
            &[("0001_wrong.sql", "CREATE TABLE public.wrong (id integer)"), ("0002_b.sql", "SELECT 1")],
        )
        .await;
    fleet.ready("mod-wrong-2").await;
    // What is wrong in a new file alone delays no new tenant: it gets what was accepted, also of modules that depend on it.
    modules.files("wrong-b", &[("0001_b.sql", "SELECT 1")]).await;
    modules.apply("wrong-b", json!({"dependsOn": [name]})).await;
    modules.accepted("wrong-b", "1").await;
    modules.files(name, &[good[0], good[1], ("0003_bad.sql", "SELECT 1/0")]).await;
    says(&modules.refused(name, "RehearsalFailed").await, "0003_bad.sql line 1");
    modules.refused("wrong-b", "DependencyNotReady").await;
    fleet.apply("mod-wrong-3", json!({"modules": [{"name": "wrong-b"}]})).await;
    fleet.ready("mod-wrong-3").await;
    modules.at("mod-wrong-3", name, 2).await;
    modules.at("mod-wrong-3", "wrong-b", 1).await;
    modules.files(name, &good).await;
    // The name of a built-in module belongs to it.
    let taken = json!({"source": {"configMaps": [{"name": name}], "builtIn": null}});
    let patch = Patch::Merge(json!({"spec": taken}));
    modules.api.patch("projects", &PatchParams::default(), &patch).await.unwrap();
    says(&modules.refused("projects", "Conflict").await, "give your module another name");
    modules.delete("projects").await;
    modules.accepted("projects", "1").await;
}

#[tokio::test]
async fn pinned_unknown_and_deleted_modules_leave_a_tenant_at_work() {
    let modules = Modules::new("modules-kept").await;
    let fleet = &modules.fleet;
    let table = |n: i32| format!("CREATE TABLE public.kept_{n} ()");
    let (one, two, three) = (table(1), table(2), table(3));
    let files = [("0001_a.sql", one.as_str()), ("0002_b.sql", two.as_str()), ("0003_c.sql", three.as_str())];
    modules.files("kept", &files).await;
    modules.apply("kept", json!({})).await;
    modules.accepted("kept", "3").await;
    fleet.apply("mod-kept", json!({"modules": [{"name": "kept", "version": "2"}]})).await;
    fleet.ready("mod-kept").await;
    modules.at("mod-kept", "kept", 2).await;
    assert!(has_table("mod-kept", "kept_2").await && !has_table("mod-kept", "kept_3").await);
    fleet.apply("mod-kept", json!({"modules": [{"name": "kept", "version": "9"}]})).await;
    fleet.reason("mod-kept", READY, "VersionNotFound").await;
    fleet.apply("mod-kept", json!({"modules": [{"name": "kept"}]})).await;
    modules.at("mod-kept", "kept", 3).await;
    fleet.ready("mod-kept").await;

    // An unknown module keeps nothing else from being done.
    let unknown = json!({"modules": [{"name": "kept"}, {"name": "unheard"}]});
    fleet.apply("mod-kept", unknown.clone()).await;
    fleet.reason("mod-kept", READY, "ModuleNotFound").await;
    let mut suspended = unknown.clone();
    suspended.as_object_mut().unwrap().extend(
        json!({"state": "Suspended", "stateReason": "unpaid", "suspension": {"mode": "ReadOnly"}})
            .as_object()
            .unwrap()
            .clone(),
    );
    fleet.apply("mod-kept", suspended).await;
    fleet
        .wait("mod-kept", "ReadOnly", |tenant: Option<&Tenant>| {
            tenant
                .and_then(|tenant| tenant.status.as_ref())
                .is_some_and(|status| status.access == Some(Access::ReadOnly))
        })
        .await;
    fleet.apply("mod-kept", json!({"modules": [{"name": "kept"}]})).await;
    fleet.ready("mod-kept").await;

    modules.delete("kept").await;
    let held =
        modules.tenant("mod-kept", "kept", "held", |module| module.state == Some(ModuleState::Held)).await;
    assert_eq!((held.version, held.target), (3, 3));
    assert!(held.message.unwrap().contains("does not exist any more"));
    let tenant = fleet.reason("mod-kept", READY, "ModuleNotFound").await;
    let ready = find_condition(&tenant.status.as_ref().unwrap().conditions, READY).unwrap().message.clone();
    assert!(ready.contains("what the tenant has of it, version 3, stays"), "{ready}");
    assert!(has_table("mod-kept", "kept_3").await);
    fleet.apply("mod-kept", json!({})).await;
    fleet.ready("mod-kept").await;
    // What was accepted is known while a tenant has it.
    modules.files("kept", &[("0001_a.sql", "SELECT 1"), files[1], files[2]]).await;
    modules.apply("kept", json!({})).await;
    modules.refused("kept", "ChecksumChanged").await;
    fleet.delete("mod-kept").await;
    modules.delete("kept").await;
    // And forgotten once none has.
    let applied = async || {
        modules.apply("kept", json!({})).await;
        let status = modules.api.get("kept").await.unwrap().status.unwrap_or_default();
        let is_ready = find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "True");
        if !is_ready && status.observed_generation.is_some_and(|generation| generation > 0) {
            modules.delete("kept").await;
        }
        is_ready
    };
    fleet.until("a new module of that name is accepted").is_true(applied).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn file_that_fails_on_many_tenants_stops_until_it_is_corrected() {
    let modules = Modules::new("modules-halt").await;
    let fleet = &modules.fleet;
    let first = ("0001_a.sql", "CREATE TABLE public.halted (id integer)");
    modules.files("halted", &[first]).await;
    modules.apply("halted", json!({})).await;
    modules.accepted("halted", "1").await;
    let names: Vec<String> = (0..6).map(|n| format!("mod-halt-{n}")).collect();
    for name in &names {
        fleet.apply(name, json!({"modules": [{"name": "halted"}]})).await;
    }
    for name in &names {
        fleet.ready(name).await;
        modules.at(name, "halted", 1).await;
        let mut session = superuser(&format!("tenant_{}", name.replace('-', "_"))).await;
        session.execute("INSERT INTO public.halted VALUES (1), (1)").await.unwrap();
    }
    let wrong = "CREATE UNIQUE INDEX ON public.halted (id)";
    modules.files("halted", &[first, ("0002_b.sql", wrong)]).await;
    modules.accepted("halted", "2").await;
    let halted = |status: &TenantModuleStatus| {
        find_condition(&status.conditions, STALLED).is_some_and(|stalled| stalled.reason == "RolloutHalted")
    };
    modules.until("halted", "halted", halted).await;
    let failed = modules
        .tenant(&names[0], "halted", "behind", |module| module.version == 1 && module.target == 2)
        .await;
    if failed.state == Some(ModuleState::Failed) {
        assert!(failed.message.as_ref().unwrap().contains("0002_b.sql"), "{failed:?}");
    }
    // Access goes on.
    fleet.login(&names[0]).await.unwrap();
    let digest = {
        let mut session = superuser("tenantry_system").await;
        let query =
            "SELECT encode(checksum, 'hex') FROM module_files WHERE module = 'halted' AND version = 2";
        let found: String = sqlx::query_scalar(query).fetch_one(&mut session).await.unwrap();
        found
    };
    let corrected = format!("-- replaces: {digest}\nCREATE INDEX ON public.halted (id)");
    modules.files("halted", &[first, ("0002_b.sql", &corrected)]).await;
    for name in &names {
        modules.at(name, "halted", 2).await;
        fleet.ready(name).await;
    }
    modules.until("halted", "going on", |status| !halted(status)).await;
}

#[tokio::test]
async fn module_waits_for_the_version_that_it_needs() {
    let modules = Modules::new("modules-minimum").await;
    let fleet = &modules.fleet;
    let base = ("0001_a.sql", "CREATE TABLE public.minimum_base ()");
    modules.files("minimum-base", &[base]).await;
    modules.apply("minimum-base", json!({})).await;
    modules.files("minimum-shop", &[("0001_a.sql", "CREATE TABLE public.minimum_shop ()")]).await;
    let shop = json!({"dependsOn": ["minimum-base"], "minimumVersions": {"minimum-base": "2"}});
    modules.apply("minimum-shop", shop).await;
    let message = modules.refused("minimum-shop", "DependencyTooOld").await;
    assert!(message.contains("version 2 of module \"minimum-base\" is needed"), "{message}");
    let second = ("0002_b.sql", "ALTER TABLE public.minimum_base ADD COLUMN b integer");
    modules.files("minimum-base", &[base, second]).await;
    modules.accepted("minimum-shop", "1").await;
    // A tenant that is kept at an older version reports it, and goes on with everything else.
    let wants = |version: &str| json!({"modules": [{"name": "minimum-base", "version": version}]});
    fleet.apply("minimum", wants("1")).await;
    fleet.ready("minimum").await;
    let both = |version: &str| json!({"modules": [{"name": "minimum-base", "version": version}, {"name": "minimum-shop"}]});
    fleet.apply("minimum", both("1")).await;
    let tenant = fleet.reason("minimum", READY, "DependencyTooOld").await;
    let conditions = tenant.status.unwrap().conditions;
    let message = &find_condition(&conditions, READY).unwrap().message;
    assert!(message.contains("\"minimum-shop\" needs version 2 of module \"minimum-base\""), "{message}");
    fleet.login("minimum").await.unwrap();
    assert!(!has_table("minimum", "minimum_shop").await);
    fleet.apply("minimum", both("2")).await;
    modules.at("minimum", "minimum-shop", 1).await;
    fleet.ready("minimum").await;
}
