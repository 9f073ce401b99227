//! The runs of applications' own migration tools, as far as this process knows them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::runtime::reflector::ObjectRef;
use uuid::Uuid;

use crate::{api::tenant::Tenant, domain::identity::TenantId};

/// How many tenants of one server are migrated at once.
const AT_ONCE: usize = 4;
/// After what time a template that failed is built again.
const TEMPLATE_RETRY: Duration = Duration::from_secs(600);

/// All of it.
#[derive(Default)]
pub struct MigrationRuns {
    memory: Mutex<RunMemory>,
}

#[derive(Default)]
struct RunMemory {
    /// Of tenants: one tool at a time changes a database.
    running: HashMap<TenantId, TenantRun>,
    failed: HashMap<(TenantId, String), FailedRun>,
    /// Of each server: the tenants that wait for one of its runs to end.
    waiting: HashMap<String, VecDeque<ObjectRef<Tenant>>>,
    /// By server and digest.
    templates: HashMap<(String, String), Template>,
    /// The runs that templates have now, and those that are wound up.
    template_runs: HashMap<Uuid, String>,
}

/// A run in a tenant's database.
struct TenantRun {
    run: Uuid,
    server: String,
    module: String,
    message: String,
}

/// A run that failed, until the tenant's reconcile reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRun {
    /// Its id.
    pub run: Uuid,
    /// The version that it was to bring.
    pub version: i32,
    /// Why.
    pub message: String,
}

struct Template {
    state: TemplateRun,
    /// What the module's source was.
    source: String,
    changed_at: Instant,
    waiting: Vec<ObjectRef<Tenant>>,
}

/// How far a template is that needs an application's own tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateRun {
    /// It is being built; what runs.
    Building(String),
    /// It is there, after this many milliseconds.
    Built(i64),
    /// The tool failed.
    Failed(String),
    /// The server did.
    NotBuilt(String),
}

impl MigrationRuns {
    /// The ids of the runs that may have a login.
    pub fn ids(&self) -> HashSet<Uuid> {
        let memory = self.lock();
        memory.running.values().map(|run| run.run).chain(memory.template_runs.keys().copied()).collect()
    }

    /// Whether a run in a tenant's database may begin, or one has failed that is not reported yet. Else the tenant waits.
    pub fn is_due(&self, id: TenantId, module: &str, server: &str, tenant: ObjectRef<Tenant>) -> bool {
        let mut memory = self.lock();
        if memory.running.contains_key(&id) {
            return false;
        }
        if memory.failed.contains_key(&(id, module.to_owned())) || memory.has_room(server) {
            return true;
        }
        let waiting = memory.waiting.entry(server.to_owned()).or_default();
        if !waiting.contains(&tenant) {
            waiting.push_back(tenant);
        }
        false
    }

    /// Begins a run, unless another one has its place.
    pub fn begin(&self, id: TenantId, run: Uuid, server: &str, module: &str, message: String) -> bool {
        let mut memory = self.lock();
        if memory.running.contains_key(&id) || !memory.has_room(server) {
            return false;
        }
        let run = TenantRun { run, server: server.to_owned(), module: module.to_owned(), message };
        memory.running.insert(id, run);
        true
    }

    /// A run that an earlier process has begun.
    pub fn resume(&self, id: TenantId, run: Uuid, server: &str, module: &str, message: String) {
        let run = TenantRun { run, server: server.to_owned(), module: module.to_owned(), message };
        self.lock().running.insert(id, run);
    }

    /// What the run of a module in a tenant's database does.
    pub fn message(&self, id: TenantId, module: &str) -> Option<String> {
        let memory = self.lock();
        memory.running.get(&id).filter(|run| run.module == module).map(|run| run.message.clone())
    }

    /// What the run of a tenant waits for.
    pub fn set_message(&self, id: TenantId, message: String) {
        if let Some(run) = self.lock().running.get_mut(&id) {
            run.message = message;
        }
    }

    /// A run has ended. Returns the next tenant of its server.
    pub fn ended(&self, id: TenantId, failed: Option<FailedRun>) -> Option<ObjectRef<Tenant>> {
        let mut memory = self.lock();
        let run = memory.running.remove(&id)?;
        if let Some(failed) = failed {
            memory.failed.insert((id, run.module), failed);
        }
        memory.waiting.get_mut(&run.server)?.pop_front()
    }

    /// Whether a run has failed that is not reported yet.
    pub fn has_failed(&self, id: TenantId, module: &str) -> bool {
        self.lock().failed.contains_key(&(id, module.to_owned()))
    }

    /// The failure of a run, which the caller reports.
    pub fn take_failure(&self, id: TenantId, module: &str) -> Option<FailedRun> {
        self.lock().failed.remove(&(id, module.to_owned()))
    }

    /// How far a template is. Returns whether the caller has to build it. A tenant may wait for it.
    pub fn template(
        &self,
        server: &str,
        digest: &str,
        source: &str,
        waits: Option<ObjectRef<Tenant>>,
    ) -> (TemplateRun, bool) {
        let mut memory = self.lock();
        let new = || Template {
            state: TemplateRun::Building("it is being created".to_owned()),
            source: source.to_owned(),
            changed_at: Instant::now(),
            waiting: Vec::new(),
        };
        let key = (server.to_owned(), digest.to_owned());
        let is_outdated = |template: &Template| match template.state {
            TemplateRun::Building(_) => false,
            // It may have been dropped since.
            TemplateRun::Built(_) | TemplateRun::NotBuilt(_) => true,
            TemplateRun::Failed(_) => {
                template.source != source || template.changed_at.elapsed() >= TEMPLATE_RETRY
            }
        };
        let before = memory.templates.remove(&key);
        let is_begun = before.as_ref().is_none_or(is_outdated);
        let mut template = before.filter(|template| !is_outdated(template)).unwrap_or_else(new);
        template.waiting.extend(waits.filter(|_| !matches!(template.state, TemplateRun::Failed(_))));
        let state = template.state.clone();
        memory.templates.insert(key, template);
        (state, is_begun)
    }

    /// How a template's building went on, or ended. Returns the tenants that waited for it.
    pub fn set_template(&self, server: &str, digest: &str, state: TemplateRun) -> Vec<ObjectRef<Tenant>> {
        let mut memory = self.lock();
        let Some(template) = memory.templates.get_mut(&(server.to_owned(), digest.to_owned())) else {
            return Vec::new();
        };
        (template.state, template.changed_at) = (state, Instant::now());
        match template.state {
            TemplateRun::Building(_) => Vec::new(),
            _ => std::mem::take(&mut template.waiting),
        }
    }

    /// The state of a template that was built by this process, or of which that failed.
    pub fn template_state(&self, server: &str, digest: &str) -> Option<TemplateRun> {
        let memory = self.lock();
        memory.templates.get(&(server.to_owned(), digest.to_owned())).map(|template| template.state.clone())
    }

    /// The digests of the templates that are being built.
    pub fn building(&self) -> HashSet<String> {
        let memory = self.lock();
        let building = memory
            .templates
            .iter()
            .filter(|(_, template)| matches!(template.state, TemplateRun::Building(_)))
            .map(|((_, digest), _)| digest.clone());
        building.collect()
    }

    /// A run for a template begins, or is wound up.
    pub fn template_run(&self, run: Uuid, digest: &str) {
        self.lock().template_runs.insert(run, digest.to_owned());
    }

    /// A run for a template has ended.
    pub fn template_run_ended(&self, run: Uuid) {
        self.lock().template_runs.remove(&run);
    }

    /// Whether a run for a template is not wound up yet.
    pub fn has_template_run(&self, digest: &str) -> bool {
        self.lock().template_runs.values().any(|of| of == digest)
    }

    fn lock(&self) -> MutexGuard<'_, RunMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunMemory {
    fn has_room(&self, server: &str) -> bool {
        self.running.values().filter(|run| run.server == server).count() < AT_ONCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_server_are_few_and_the_next_tenant_follows() {
        let runs = MigrationRuns::default();
        let id = |n: u128| TenantId(Uuid::from_u128(n));
        let tenant = |n: u128| ObjectRef::<Tenant>::new(&format!("t{n}"));
        let begin = |n: u128| runs.begin(id(n), Uuid::from_u128(n), "a", "shop", String::new());
        for n in 0..4 {
            assert!(runs.is_due(id(n), "shop", "a", tenant(n)) && begin(n));
        }
        assert!(!runs.is_due(id(0), "wiki", "a", tenant(0)), "one tool at a time");
        assert!(!runs.is_due(id(4), "shop", "a", tenant(4)) && !runs.is_due(id(4), "shop", "a", tenant(4)));
        assert!(!begin(4) && runs.is_due(id(4), "shop", "b", tenant(4)));
        assert_eq!(runs.ids().len(), 4);
        assert_eq!(runs.ended(id(0), None), Some(tenant(4)));
        let failed = FailedRun { run: Uuid::nil(), version: 1, message: "x".into() };
        assert_eq!(runs.ended(id(1), Some(failed.clone())), None);
        assert!(
            begin(4) && begin(5) && runs.is_due(id(1), "shop", "a", tenant(1)),
            "its failure is reported"
        );
        assert!(runs.has_failed(id(1), "shop") && !runs.has_failed(id(1), "other"));
        assert_eq!(
            (runs.take_failure(id(1), "shop"), runs.take_failure(id(1), "shop")),
            (Some(failed), None)
        );
        assert!(!runs.is_due(id(1), "shop", "a", tenant(1)));
    }

    #[test]
    fn template_is_built_once_and_again_when_its_source_changed() {
        let runs = MigrationRuns::default();
        let tenant = ObjectRef::<Tenant>::new("t");
        assert!(runs.template("a", "d", "image:1", None).1);
        let (state, is_begun) = runs.template("a", "d", "image:1", Some(tenant.clone()));
        assert!(!is_begun && matches!(state, TemplateRun::Building(_)));
        assert_eq!(runs.building(), HashSet::from(["d".to_owned()]));
        assert_eq!(runs.set_template("a", "d", TemplateRun::Failed("exit code 1".into())), [tenant]);
        let failed = (TemplateRun::Failed("exit code 1".into()), false);
        assert_eq!(runs.template("a", "d", "image:1", None), failed);
        assert!(runs.template("a", "d", "image:2", None).1);
        assert_eq!(runs.set_template("a", "d", TemplateRun::Built(5)), []);
        assert_eq!(runs.template_state("a", "d"), Some(TemplateRun::Built(5)));
    }
}
