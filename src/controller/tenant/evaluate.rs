//! What a tenant should have now: its access, its entitlements and its modules, from its object, its plan and the
//! registry's row. Nothing is read for it.

use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use crate::{
    api::{
        reason::Reason,
        tenant::Tenant,
        tenant_status::{ModuleState, ModuleStatus, TenantStatus},
    },
    controller::{background::module_rollout::AT_ONCE, context::Context, tenant_module::runs},
    domain::{
        self,
        access::{
            evaluate::{AccessEvaluation, evaluate_access},
            inputs::AccessInputs,
        },
        declaration::Declaration,
        due_modules::due_modules,
        migration_login::level_ends_migrations,
        module_status::ModuleFacts,
        modules::{
            ChosenModule, KnownModule, ModuleError, ModuleKind, ModuleSelection, ModuleWishes, choose,
            hold_back, version_of,
        },
        record::TenantRecord,
        recorded_purge::RecordedPurge,
        spec::{SpecError, is_paused, migration_secret_name},
        status::Outcome,
        subject::{Evaluation, Subject},
        usage::entitlements::{Entitlements, entitlements_of_plan, without_effect},
        workflow::step::Step,
    },
};

/// The access that the tenant should have now, and what its plan grants.
pub fn evaluate(tenant: &Tenant, record: Option<&TenantRecord>, context: &Context) -> Evaluation {
    let access = access(tenant, record, None, context);
    let plan = context.plan(&access.plan);
    let unused = plan.as_ref().map(|plan| without_effect(&plan.spec, &tenant.spec.limits));
    Evaluation {
        entitlements: entitlements(tenant, &access.plan, context).and_then(Result::ok),
        limits_without_effect: unused.unwrap_or_default().into_iter().map(str::to_owned).collect(),
        access,
    }
}

/// The access that the tenant should have now. `activated_at` is the time of an activation that is about to be recorded.
pub fn access(
    tenant: &Tenant,
    record: Option<&TenantRecord>,
    activated_at: Option<Timestamp>,
    context: &Context,
) -> AccessEvaluation {
    let plan = context.plan(&tenant.spec.plan);
    let declared = record.and_then(|record| record.declaration.as_ref());
    let reason = Declaration::state_reason(tenant, declared);
    let inputs = AccessInputs {
        tenant,
        state_reason: reason.as_deref(),
        plan: plan.as_ref().map(|plan| &plan.spec),
        holds: record.map_or(&[], |record| record.holds.as_slice()),
        activated_at: activated_at.or(record.and_then(|record| record.activated_at)),
        // A tenant that was activated before gates were recorded had none.
        default_gates: record
            .filter(|record| record.activated_at.is_some())
            .map(|record| record.default_gates.as_deref().unwrap_or_default()),
        recorded_gates: record.map_or(&[], |record| record.gates.as_slice()),
        gates_done_at: record.and_then(|record| {
            record.gates_done_at.or(record.activated_at.filter(|_| record.default_gates.is_none()))
        }),
        known_trial_end: tenant.status.as_ref().and_then(|status| Some(status.trial_ends_at.as_ref()?.0)),
    };
    evaluate_access(inputs, context.clock.now())
}

/// What a plan grants a tenant. `None` if the plan does not exist. A plan with an unknown module is not applied, unless the
/// tenant has a list of its own.
pub fn entitlements(
    tenant: &Tenant,
    plan: &str,
    context: &Context,
) -> Option<Result<Entitlements, SpecError>> {
    let spec = &context.plan(plan)?.spec;
    if tenant.spec.modules.is_empty() {
        let wishes = ModuleWishes { tenant: &[], plan, of_plan: &spec.modules };
        if let Some(error @ ModuleError::NotFound { .. }) =
            choose(wishes, &[], context.modules.known().list()).error
        {
            return Some(Err(error.into()));
        }
    }
    Some(entitlements_of_plan(plan, spec, &tenant.spec.limits).map_err(SpecError::from))
}

/// The modules that a tenant should have: those that it names, else those of its plan (`entitlements`, else those on
/// record), and those that it has already, since their tables hold the customer's data.
pub fn selection(
    tenant: &Tenant,
    record: Option<&TenantRecord>,
    entitlements: Option<&Entitlements>,
    context: &Context,
) -> ModuleSelection {
    let has = record.map_or(&[][..], |record| &record.module_versions);
    choose(wishes(tenant, record, entitlements), has, context.modules.known().list())
}

/// What a tenant and its plan name.
fn wishes<'a>(
    tenant: &'a Tenant,
    record: Option<&'a TenantRecord>,
    entitlements: Option<&'a Entitlements>,
) -> ModuleWishes<'a> {
    let in_force = entitlements.or(record.and_then(|record| record.entitlements.as_ref()));
    ModuleWishes {
        tenant: &tenant.spec.modules,
        plan: in_force.map_or("", |in_force| &in_force.plan),
        of_plan: in_force.map_or(&[], |in_force| &in_force.modules),
    }
}

/// What a tenant under reconcile and its plan name.
pub fn wishes_of<'a>(subject: &'a Subject<'_>) -> ModuleWishes<'a> {
    wishes(subject.tenant, subject.record.as_ref(), subject.entitlements())
}

/// The first name in `spec.purgeModules` whose module stays.
pub fn refused_purge(tenant: &Tenant, record: Option<&TenantRecord>) -> Option<ModuleError> {
    let recorded = &record?.module_purges;
    tenant.spec.purge_modules.iter().find_map(|module| match recorded.get(module)? {
        RecordedPurge::Refused { why } => {
            Some(ModuleError::PurgeRefused { module: module.clone(), why: why.clone() })
        }
        RecordedPurge::Begun { .. } | RecordedPurge::Purged => None,
    })
}

/// The modules that are applied to a tenant now: those that it should have, apart from new versions whose rollout stopped. A
/// tenant on which one failed tries it again: it may be corrected.
pub fn applicable(subject: &Subject<'_>, context: &Context) -> ModuleSelection {
    let record = subject.record.as_ref();
    let mut selection = selection(subject.tenant, record, subject.entitlements(), context);
    let Some(record) = record.filter(|record| record.activated_at.is_some()) else { return selection };
    let has_failed = |name: &str| {
        let failed = |module: &ModuleStatus| module.name == name && module.state == Some(ModuleState::Failed);
        subject.previous.modules.iter().any(failed)
    };
    let known = context.modules.known();
    hold_back(&mut selection, &record.module_versions, known.list(), |name| {
        context.state.modules.is_stopped(name) && !has_failed(name)
    });
    selection
}

/// Whether a tenant lacks a file of a module, and it is applied now. New versions are brought to a few existing tenants at a
/// time. A module that the tenant does not have at all is what its spec or its plan asks for.
pub fn migrates_now(subject: &Subject<'_>, record: &TenantRecord, context: &Context) -> bool {
    let modules = applicable(subject, context).modules;
    let known = context.modules.known();
    let is_activated = record.activated_at.is_some();
    let is_due = |known: &KnownModule, module: &ChosenModule| match known.kind {
        ModuleKind::Files => true,
        ModuleKind::External => {
            is_activated
                && (context.state.retries.is_requested(subject.tenant)
                    || context.state.reports.is_due(record.id, &module.name, module.version))
        }
        ModuleKind::Job => {
            is_activated && runs::is_due(subject.tenant, record, module, subject.wanted_access(), context)
        }
    };
    let due = due_modules(&modules, &record.module_versions, known.list(), is_due);
    let is_external = |module: &ChosenModule| {
        let kind = known.list().iter().find(|known| known.name == module.name).map(|known| known.kind);
        kind == Some(ModuleKind::External)
    };
    let has_pipeline = is_activated && !level_ends_migrations(subject.wanted_access());
    if has_pipeline && modules.iter().any(is_external) && is_pipeline_login_due(subject, record, context) {
        return true;
    }
    if due.is_empty() {
        return false;
    }
    let failure = context.state.retries.failure(&ObjectRef::from_obj(subject.tenant));
    let lacks_module = due.iter().any(|module| version_of(&record.module_versions, &module.name) == 0);
    !is_activated
        || lacks_module
        || is_paused(subject.tenant)
        || failure == Some(Reason::MigrationFailed)
        || context.state.module_rollouts.admits(&record.placement.server, subject.tenant, AT_ONCE)
}

/// Whether the login of a team's own pipeline has to be made, as far as memory shows it.
fn is_pipeline_login_due(subject: &Subject<'_>, record: &TenantRecord, context: &Context) -> bool {
    let namespace = subject.tenant.namespace().unwrap_or_default();
    let name = migration_secret_name(subject.tenant);
    let has_secret = context.stores.scopes.secret(&namespace, &name).is_some();
    context.state.reports.is_login_due(record.id, has_secret)
}

/// Whether a connection Secret that an earlier release wrote gets the keys that it lacks now. After an upgrade, all Secrets
/// lack them: they get them in the turns of the modules' rollout, and paused ones once they are not paused.
pub fn completes_secret(subject: &Subject<'_>, record: &TenantRecord, context: &Context) -> bool {
    record.activated_at.is_none()
        || !is_paused(subject.tenant)
            && context.state.module_rollouts.admits(&record.placement.server, subject.tenant, AT_ONCE)
}

/// The modules for the status.
pub fn module_statuses(outcome: &Outcome<'_>, context: &Context) -> Vec<ModuleStatus> {
    let (subject, progress) = (outcome.subject, outcome.progress);
    let Some(record) = &subject.record else { return Vec::new() };
    let known = context.modules.known();
    let facts = ModuleFacts {
        recorded: &record.module_versions,
        selection: &selection(subject.tenant, Some(record), subject.entitlements(), context),
        known: known.list(),
        previous: &subject.previous.modules,
        failures: &progress.module_failures,
        is_applied: progress.has_done(Step::ApplyMigrations),
        version_name: &|name, version| context.state.modules.version_name(name, version),
        migration_secret: &migration_secret_name(subject.tenant),
        is_login_due: !level_ends_migrations(subject.wanted_access())
            && is_pipeline_login_due(subject, record, context),
        run: &|name| context.state.runs.message(record.id, name),
    };
    domain::module_status::module_statuses(&facts, |name| context.state.modules.is_stopped(name))
}

/// The modules that a status shows, at their target versions.
pub fn modules_in_status(status: &TenantStatus) -> Vec<ChosenModule> {
    let chosen = |module: &ModuleStatus| ChosenModule {
        name: module.name.clone(),
        version: i32::try_from(module.target).unwrap_or(i32::MAX),
    };
    status.modules.iter().map(chosen).collect()
}
