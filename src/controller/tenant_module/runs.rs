//! The runs of applications' own migration tools: begun by a tenant's reconcile or for a template, carried on beside it, and
//! resumed after a restart. A run is recorded before its login is made, and forgotten after the login is gone.

use std::time::Duration;

use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    job::MigrationRun,
    run::{MigrationRunner, RunRecord},
};
use crate::{
    api::{
        tenant::Tenant,
        tenant_module::TenantModule,
        tenant_status::{Access, TenantState},
    },
    controller::{
        context::{Context, SharedContext},
        state::{migration_runs::FailedRun, servers::ServerState},
        tenant::secrets::Address,
        watch::requeue::requeue_tenant,
    },
    domain::{
        access::AccessLevel,
        migration_login::{MigrationOwner, level_ends_migrations},
        migration_run::{RunAction, RunOutcome},
        module_refusal::check_beside_operator,
        modules::ChosenModule,
        record::TenantRecord,
        stored_run::StoredRun,
    },
    modules::{Migration, Module},
    postgres::tenant::migration_login::MigratedDatabase,
    registry,
};

/// How often the Job of a run is looked at: at first, and later.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// How a run of a tenant's reconcile stands.
pub enum TenantRunState {
    /// It is under way, or waits for its turn.
    Running,
    /// It failed; why.
    Failed(String),
}

/// Whether a run for a module may begin in a tenant's database, or has ended. Else the tenant waits for its turn; with
/// restricted access, for its resumption.
pub fn is_due(
    tenant: &Tenant,
    record: &TenantRecord,
    module: &ChosenModule,
    wanted: AccessLevel,
    context: &Context,
) -> bool {
    if level_ends_migrations(wanted) {
        return context.state.runs.has_failed(record.id, &module.name);
    }
    let server = &record.placement.server;
    context.state.runs.is_due(record.id, &module.name, server, ObjectRef::from_obj(tenant))
}

/// Begins the run of a module in a tenant's database, unless one is under way or the wanted access is restricted; or returns
/// the failure of the last one, once.
///
/// # Errors
/// The registry's.
pub async fn advance(
    tenant: &Tenant,
    record: &TenantRecord,
    module: &Module,
    wanted: AccessLevel,
    context: &SharedContext,
) -> Result<TenantRunState, registry::Error> {
    let Some(version) = module.migrations.last() else { return Ok(TenantRunState::Running) };
    if let Some(failed) = context.state.runs.take_failure(record.id, &module.name) {
        context.registry.forget_migration_run(failed.run).await?;
        // One of an earlier version says nothing about this one.
        if failed.version == version.version {
            return Ok(TenantRunState::Failed(failed.message));
        }
    }
    if level_ends_migrations(wanted) {
        return Ok(TenantRunState::Running);
    }
    let run = new_run(MigrationOwner::Tenant(record.id), &record.placement.server, module, version, context);
    let run = StoredRun {
        database: Some(record.placement.database.clone()),
        tenant: Some((tenant.namespace().unwrap_or_default(), tenant.name_any())),
        ..run
    };
    if context.state.runs.begin(record.id, run.run, &run.server, &run.module, describe(&run, None)) {
        if let Err(error) = context.registry.record_migration_run(&run).await {
            context.state.runs.ended(record.id, None);
            return Err(error);
        }
        let context = context.clone();
        tokio::spawn(async move { run_for_tenant(run, &context).await });
    }
    Ok(TenantRunState::Running)
}

/// A run that begins now.
pub fn new_run(
    owner: MigrationOwner,
    server: &str,
    module: &Module,
    version: &Migration,
    context: &Context,
) -> StoredRun {
    StoredRun {
        run: Uuid::new_v4(),
        server: server.to_owned(),
        owner,
        database: None,
        tenant: None,
        module: module.name.to_string(),
        version: version.version,
        version_name: version.file.to_string(),
        schema: module.schema.to_string(),
        namespace: context.config.migration_namespace.clone(),
        started_at: context.clock.now(),
        job_created_at: None,
        outcome: None,
        is_cancelled: false,
    }
}

/// Goes on with the runs of earlier processes: those of tenants go on, those of templates are wound up, because a template is
/// built from the beginning.
///
/// # Errors
/// The registry's.
pub async fn resume(context: &SharedContext) -> Result<(), registry::Error> {
    for mut run in context.registry.migration_runs().await? {
        let context = context.clone();
        match &run.owner {
            MigrationOwner::Tenant(id) => {
                context.state.runs.resume(*id, run.run, &run.server, &run.module, describe(&run, None));
                tokio::spawn(async move {
                    // Before that, every tenant would look deleted.
                    if context.stores.scopes.are_known(&CancellationToken::new()).await {
                        run_for_tenant(run, &context).await;
                    }
                });
            }
            MigrationOwner::Template(digest) => {
                context.state.runs.template_run(run.run, digest);
                tokio::spawn(async move {
                    carry_on(&mut run, &context, |_| true, |_| {}).await;
                    forget(&run, &context).await;
                    context.state.runs.template_run_ended(run.run);
                });
            }
        }
    }
    Ok(())
}

/// Carries a run for a tenant to its end, and has the tenant reconciled.
async fn run_for_tenant(mut run: StoredRun, context: &SharedContext) {
    let MigrationOwner::Tenant(id) = run.owner else { return };
    let show = |message| context.state.runs.set_message(id, message);
    let outcome = carry_on(&mut run, context, |run| is_unwanted(run, context), show).await;
    info!(module = run.module, version = run.version_name, tenant = %id, ?outcome, "a run of a module's tool ended");
    let message = run.failure(context.clock.now());
    let failed = message.map(|message| FailedRun { run: run.run, version: run.version, message });
    // The record of a failure stays until it is reported.
    if failed.is_none() {
        forget(&run, context).await;
    }
    let next = context.state.runs.ended(id, failed);
    if let Some((namespace, name)) = &run.tenant {
        requeue_tenant(namespace, name, context);
    }
    if let Some(next) = next {
        context.stores.scopes.requeue(next.namespace.as_deref().unwrap_or_default(), &next.name);
    }
}

/// Forgets a run; tried until the registry answers.
pub async fn forget(run: &StoredRun, context: &Context) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = context.registry.forget_migration_run(run.run).await {
        warn!(module = run.module, %error, "could not forget a run that has ended");
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Carries a run to its end: its login is gone then, and the database has the version in its ledger if the tool succeeded.
/// What fails is tried again. A run that becomes unwanted is ended, with its Job.
pub async fn carry_on(
    run: &mut StoredRun,
    context: &SharedContext,
    is_unwanted: impl Fn(&StoredRun) -> bool,
    show: impl Fn(String),
) -> RunOutcome {
    let (mut pause, mut shown) = (FIRST_PAUSE, String::new());
    loop {
        run.is_cancelled |= is_unwanted(run);
        match next(run, context).await {
            Ok(Some(RunAction::Done(outcome))) => return outcome,
            Ok(Some(RunAction::Wait { waiting_for, .. })) => {
                let message = describe(run, waiting_for.as_deref());
                if shown != message {
                    show(message.clone());
                    shown = message;
                }
            }
            // The next one follows at once.
            Ok(Some(_)) => {
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(None) => {}
            Err(why) => {
                warn!(module = run.module, version = run.version_name, run = %run.run, why, "a run is tried again");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Does the next action of a run, and records it. None while its server cannot be used.
async fn next(run: &mut StoredRun, context: &SharedContext) -> Result<Option<RunAction>, String> {
    let ServerState::Ready(server) = context.state.servers.get(&run.server) else { return Ok(None) };
    let module = context.stores.tenant_modules.get(&ObjectRef::<TenantModule>::new(&run.module));
    let source = module.as_ref().and_then(|module| module.spec.source.job.clone());
    let is_outdated = source.is_none()
        || module.is_some_and(|module| module.spec.version.as_deref() != Some(run.version_name.as_str()));
    run.is_cancelled |= run.job_created_at.is_none() && is_outdated;
    let source = source.unwrap_or_default();
    // Changed after its version was accepted.
    if run.job_created_at.is_none() && run.namespace == context.config.operator_namespace {
        check_beside_operator(&source, &run.namespace).map_err(|refusal| refusal.to_string())?;
    }
    let placement = run.placement();
    let database = match (&run.owner, &placement) {
        (MigrationOwner::Template(digest), _) => MigratedDatabase::Template(digest),
        (MigrationOwner::Tenant(_), Some(placement)) => MigratedDatabase::OfTenant(placement),
        (MigrationOwner::Tenant(_), None) => return Err("its record has no database".to_owned()),
    };
    let resource = context.database_server(&run.server);
    let address = Address::of(&server, resource.as_deref());
    let runner = MigrationRunner {
        client: &context.client,
        server: &server,
        address: (&address).into(),
        database,
        run: MigrationRun {
            run: run.run,
            module: &run.module,
            version: &run.version_name,
            schema: &run.schema,
            owner: &run.owner,
            namespace: &run.namespace,
        },
        source: &source,
    };
    let record = RunRecord {
        job_created_at: run.job_created_at,
        outcome: run.outcome.clone(),
        is_cancelled: run.is_cancelled,
    };
    let now = context.clock.now();
    let action = runner.advance(&record, now).await.map_err(|error| error.to_string())?;
    let (created, outcome) = match &action {
        RunAction::CreateJob => (Some(now), None),
        RunAction::Record(outcome) => (run.job_created_at, Some(outcome.clone())),
        // The database has it, and no tool changes it any more.
        RunAction::Done(RunOutcome::Succeeded) => {
            let version = Migration::named(run.version, &run.version_name);
            server
                .record_version(&database, &run.module, &version)
                .await
                .map_err(|error| error.to_string())?;
            return Ok(Some(action));
        }
        _ => return Ok(Some(action)),
    };
    (run.job_created_at, run.outcome) = (created, outcome);
    context.registry.record_migration_run(run).await.map_err(|error| error.to_string())?;
    Ok(Some(action))
}

/// Whether the tenant of a run is gone, or goes, or has restricted access before the run's Job exists: it has not begun then,
/// and another one begins after the resumption.
fn is_unwanted(run: &StoredRun, context: &Context) -> bool {
    let Some((namespace, name)) = &run.tenant else { return false };
    let Some(tenant) = context.stores.scopes.tenant(namespace, name) else { return true };
    let leaves = [TenantState::Deprovisioning, TenantState::Deprovisioned];
    let state = tenant.status.as_ref().and_then(|status| status.state);
    let access = tenant.status.as_ref().and_then(|status| status.access);
    let is_restricted = access
        .is_some_and(|access| [Access::ShrinkOnly, Access::ReadOnly, Access::Blocked].contains(&access));
    let is_held_off = run.job_created_at.is_none() && is_restricted;
    tenant.metadata.deletion_timestamp.is_some()
        || is_held_off
        || state.is_some_and(|state| leaves.contains(&state))
}

fn describe(run: &StoredRun, waits_for: Option<&str>) -> String {
    let name = super::job::job_name(&run.module, run.run);
    let waits_for = waits_for.map(|what| format!(", whose pod waits: {what}")).unwrap_or_default();
    format!("Job {}/{name} brings version {}{waits_for}", run.namespace, run.version_name)
}
