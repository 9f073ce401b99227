//! Templates of sets with a module whose migrations an application's own tool applies: built beside the reconciles that wait
//! for one, because the tool may take minutes. The tool runs once, and every new tenant is a clone of what it made.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::runtime::reflector::ObjectRef;
use tokio::time::sleep;
use tracing::info;

use super::runs::{carry_on, forget, new_run};
use crate::{
    api::{tenant::Tenant, tenant_module::TenantModule},
    controller::{
        context::{Context, SharedContext},
        state::{migration_runs::TemplateRun, servers::ServerState},
        watch::requeue::requeue_tenant,
    },
    domain::{migration_login::MigrationOwner, migration_run::RunOutcome, stored_run::StoredRun},
    modules::ModuleSet,
};

/// How long the run of an earlier process is waited for.
const PAUSE: Duration = Duration::from_millis(200);

/// How far the template of a set is on a server; its building begins if it has not. A tenant that waits for it is reconciled
/// when it is there.
pub fn template(
    server: &str,
    modules: &Arc<ModuleSet>,
    waits: Option<&Tenant>,
    context: &SharedContext,
) -> TemplateRun {
    let source = sources(modules, context);
    let waits = waits.map(ObjectRef::from_obj);
    let (state, is_begun) = context.state.runs.template(server, modules.digest(), &source, waits);
    if is_begun {
        let (server, modules, context) = (server.to_owned(), modules.clone(), context.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let state = match build(&server, &modules, &context).await {
                Ok(()) => TemplateRun::Built(i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX)),
                Err(state) => state,
            };
            info!(server, template = modules.digest(), ?state, "built a template with an application's tool");
            for tenant in context.state.runs.set_template(&server, modules.digest(), state) {
                requeue_tenant(tenant.namespace.as_deref().unwrap_or_default(), &tenant.name, &context);
            }
            context.state.modules.sources_changed.notify_one();
        });
    }
    state
}

/// The jobs of a set's modules, and their versions: a template is built again when one is another one.
fn sources(modules: &ModuleSet, context: &Context) -> String {
    let of = |name: &str| {
        let module = context.stores.tenant_modules.get(&ObjectRef::<TenantModule>::new(name))?;
        serde_json::to_string(&(module.spec.source.job.as_ref()?, &module.spec.version)).ok()
    };
    modules.modules().iter().filter_map(|module| of(&module.name)).collect()
}

async fn build(server: &str, modules: &ModuleSet, context: &SharedContext) -> Result<(), TemplateRun> {
    let digest = modules.digest();
    let begun_with = sources(modules, context);
    // Its login has the name of the one that is made here.
    while context.state.runs.has_template_run(digest) {
        sleep(PAUSE).await;
    }
    let mut is_new = true;
    loop {
        let ServerState::Ready(handle) = context.state.servers.get(server) else {
            return Err(TemplateRun::NotBuilt(format!("DatabaseServer {server:?} is not Ready")));
        };
        let built = handle.continue_template(modules, is_new).await;
        let awaited = built.map_err(|error| match error.is_permanent() {
            true => TemplateRun::Failed(error.to_string()),
            false => TemplateRun::NotBuilt(error.to_string()),
        })?;
        let Some(name) = awaited else { return Ok(()) };
        is_new = false;
        let Some((module, version)) =
            modules.module(&name).and_then(|module| Some((module, module.migrations.last()?)))
        else {
            return Err(TemplateRun::Failed(format!("module {name} has no version")));
        };
        let owner = MigrationOwner::Template(digest.to_owned());
        let mut run = new_run(owner, server, module, version, context);
        context.state.runs.template_run(run.run, digest);
        let recorded = context.registry.record_migration_run(&run).await;
        if let Err(error) = recorded {
            context.state.runs.template_run_ended(run.run);
            return Err(TemplateRun::NotBuilt(error.to_string()));
        }
        let show = |message: String| {
            context.state.runs.set_template(server, digest, TemplateRun::Building(message));
            context.state.modules.sources_changed.notify_one();
        };
        // What half a tool did to a template is dropped with it: a mistyped image need not wait for its deadline.
        let is_unwanted = |_: &StoredRun| sources(modules, context) != begun_with;
        let outcome = carry_on(&mut run, context, is_unwanted, show).await;
        forget(&run, context).await;
        context.state.runs.template_run_ended(run.run);
        match outcome {
            RunOutcome::Succeeded => {}
            RunOutcome::Cancelled => {
                return Err(TemplateRun::NotBuilt("the module has another version or Job now".to_owned()));
            }
            RunOutcome::Failed { message, .. } => {
                let seconds = context.clock.now().duration_since(run.started_at).as_secs();
                return Err(TemplateRun::Failed(format!(
                    "the Job of module {name} for version {} failed after {seconds} s on the template, before any tenant was touched: {message}; correct it, and change spec.source.job or spec.version",
                    version.file
                )));
            }
        }
    }
}
