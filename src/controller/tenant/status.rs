//! The status that a visit leaves behind. Pure: the visit, the time, and what the status said before.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::{
    conditions::{self, Summary},
    limits,
    visit::{Obstacle, StepResult, StepRun, Visit},
};
use crate::{
    api::{
        conditions::{DEPROVISIONED, remove_condition, same_ignoring_times, set_condition},
        tenant_status::{
            Access, Binding, HoldMode, HoldStatus, ModuleStatus, StepState, StepStatus, TenantState,
            TenantStatus, Usage, WorkflowStatus,
        },
    },
    domain::{
        access::AccessLevel, gates, limits::Entitlements, observed::RegistryStatus, plan::Blocked,
        standing::Cause, steps::Step,
    },
};

/// The status after (or during) a visit. `modules` are the tenant's modules with their target versions.
pub fn next_status(visit: &Visit<'_>, modules: Vec<ModuleStatus>, now: Timestamp) -> TenantStatus {
    let before = visit.before.clone();
    let summary = Summary::of(visit);
    let state = state(visit, &summary);
    let changed = before.state != Some(state);
    let row = visit.row.as_ref();
    let given = entitlements(visit);
    TenantStatus {
        observed_generation: visit.tenant.metadata.generation,
        state: Some(state),
        plan: plan(visit).or(before.plan),
        access: Some(access(visit, before.access)),
        tenant_id: row.map(|row| row.id.to_string()).or(before.tenant_id),
        server: row.map(|row| row.server.clone()).or(before.server),
        database: row.map(|row| row.database_name.clone()).or(before.database),
        binding: if visit.is_leaving() { None } else { binding(visit).or(before.binding) },
        modules: if modules.is_empty() { before.modules } else { modules },
        limits: given
            .map_or(before.limits, |given| given.map(Entitlements::limit_values).unwrap_or_default()),
        features: given
            .map_or(before.features, |given| given.map(|given| given.features.clone()).unwrap_or_default()),
        open_gates: open_gates(visit).unwrap_or(before.open_gates),
        usage: usage(visit, before.usage),
        holds: holds(visit).unwrap_or(before.holds),
        trial_ends_at: visit
            .standing
            .as_ref()
            .filter(|_| row.is_some())
            .map_or(before.trial_ends_at, |standing| standing.trial_ends_at.map(seconds)),
        suspended_at: row.map_or(before.suspended_at, |row| row.suspended_at.map(seconds)),
        state_updated_at: if changed { Some(Time(now)) } else { before.state_updated_at },
        state_updated_by: row.map(|row| row.status_updated_by.clone()).or(before.state_updated_by),
        // A tenant that came back has neither.
        deprovisioned_at: row.map_or(before.deprovisioned_at, |row| row.deprovisioned_at.map(seconds)),
        purge_after: row.map_or(before.purge_after, |row| row.purge_after.map(seconds)),
        workflow: workflow(visit, before.workflow, now),
        conditions: merge(before.conditions, conditions::of(visit, &summary), visit, now),
        // What later parts of the lifecycle bring is left out, not written as empty.
        ..TenantStatus::default()
    }
}

/// What is in force in the tenant's database, if anything is; none while its row was not read.
fn entitlements<'v>(visit: &'v Visit<'_>) -> Option<Option<&'v Entitlements>> {
    Some(visit.row.as_ref()?.entitlements.as_ref())
}

/// The plan in force: the one that was put in force last, or is about to be for the first time.
fn plan(visit: &Visit<'_>) -> Option<String> {
    if let Some(Some(given)) = entitlements(visit) {
        return Some(given.plan.clone());
    }
    let standing = visit.standing.as_ref().filter(|_| visit.desired.is_some())?;
    Some(standing.plan.clone())
}

/// The gates that keep a tenant from being let in.
fn open_gates(visit: &Visit<'_>) -> Option<Vec<String>> {
    let standing = visit.standing.as_ref().filter(|_| visit.row.is_some())?;
    Some(if visit.is_leaving() { Vec::new() } else { gates::open(&standing.gates) })
}

/// What is used, as far as it is worth a write: the time is that of the amounts.
fn usage(visit: &Visit<'_>, before: Option<Usage>) -> Option<Usage> {
    let Some(amounts) = limits::usage(visit) else { return before };
    if before.as_ref().is_some_and(|before| before.amounts == amounts) {
        return before;
    }
    let measured_at = visit.row.as_ref().and_then(|row| row.measured_at).map(seconds);
    Some(Usage { measured_at, amounts })
}

/// The holds in force, once that is proven; none while it is not.
fn holds(visit: &Visit<'_>) -> Option<Vec<HoldStatus>> {
    let (row, standing) = (visit.row.as_ref()?, visit.standing.as_ref()?);
    if enforcement_failed(visit) {
        return Some(Vec::new());
    }
    let looked = matches!(visit.obstacle, None | Some(Obstacle::Invalid(_)));
    let proven = row.access.is_some_and(|access| access <= standing.access);
    if !looked || !proven || visit.failure().is_some() {
        return None;
    }
    let in_force = row.holds.iter().filter_map(|hold| {
        let restriction = standing.restrictions.iter().find(|restriction| match &restriction.cause {
            Cause::Hold(name) => *name == hold.name,
            _ => false,
        })?;
        Some(HoldStatus {
            name: hold.name.clone(),
            mode: match restriction.level {
                AccessLevel::Blocked => HoldMode::Blocked,
                AccessLevel::ShrinkOnly => HoldMode::ShrinkOnly,
                AccessLevel::ReadOnly | AccessLevel::ReadWrite => HoldMode::ReadOnly,
            },
            trigger: hold.trigger,
            reason: Some(hold.reason.clone()),
            since: Some(seconds(hold.since)),
        })
    });
    Some(in_force.collect())
}

/// Whether what a tenant may do could not be brought about.
fn enforcement_failed(visit: &Visit<'_>) -> bool {
    visit
        .steps
        .iter()
        .any(|run| run.step == Step::EnforceAccess && matches!(run.result, StepResult::Failed(_)))
}

/// A time as the API has it: in whole seconds, so that it is the same when it is read back.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Whether two statuses say the same, whatever their times. A status is written only when they do not.
pub fn same(a: &TenantStatus, b: &TenantStatus) -> bool {
    let strip = |status: &TenantStatus| {
        let mut status = status.clone();
        status.state_updated_at = None;
        if let Some(workflow) = &mut status.workflow {
            (workflow.started_at, workflow.finished_at, workflow.next_attempt_at) = (None, None, None);
            for step in &mut workflow.steps {
                (step.started_at, step.finished_at) = (None, None);
            }
        }
        let conditions = std::mem::take(&mut status.conditions);
        (status, conditions)
    };
    let ((a, a_conditions), (b, b_conditions)) = (strip(a), strip(b));
    a == b && same_ignoring_times(&a_conditions, &b_conditions)
}

fn state(visit: &Visit<'_>, summary: &Summary) -> TenantState {
    let Some(row) = &visit.row else {
        return if visit.is_leaving() {
            TenantState::Deprovisioning
        } else if summary.is_stalled() {
            TenantState::Failed
        } else {
            TenantState::Provisioning
        };
    };
    match row.status {
        RegistryStatus::Deprovisioned => TenantState::Deprovisioned,
        RegistryStatus::Deprovisioning => TenantState::Deprovisioning,
        _ if visit.is_leaving() => TenantState::Deprovisioning,
        RegistryStatus::Provisioning | RegistryStatus::Failed if summary.is_stalled() => TenantState::Failed,
        RegistryStatus::Provisioning | RegistryStatus::Failed => TenantState::Provisioning,
        RegistryStatus::Trial => TenantState::Trial,
        RegistryStatus::Active => TenantState::Active,
        RegistryStatus::Suspended => TenantState::Suspended,
    }
}

/// The level in force. It is only ever said after PostgreSQL was read: `EnforceAccess` and `CutAccess` read back.
fn access(visit: &Visit<'_>, before: Option<Access>) -> Access {
    let Some(row) = &visit.row else { return Access::Blocked };
    if visit.is_leaving() {
        return match (row.access, &visit.obstacle, before) {
            // What the registry has was proven, and is taken back as soon as it is not so any more.
            (Some(AccessLevel::Blocked), ..) => Access::Blocked,
            // Nothing was touched.
            (_, Some(Obstacle::Blocked(Blocked::Paused)), Some(before)) if before != Access::Blocked => {
                before
            }
            _ => Access::Unknown,
        };
    }
    if !row.status.was_active() {
        // Without a password there is no login, whatever its group.
        let has_login = row.password_verifier.is_some();
        return row.access.filter(|_| has_login).map_or(Access::Blocked, in_status);
    }
    if enforcement_failed(visit) {
        return Access::Unknown;
    }
    // Of a spec that cannot be acted on, what narrows access is acted on all the same.
    let looked = matches!(visit.obstacle, None | Some(Obstacle::Invalid(_)));
    if looked && visit.steps.iter().all(|run| run.result == StepResult::Succeeded) {
        return row.access.map_or(Access::Unknown, in_status);
    }
    match (&visit.obstacle, before) {
        (None, Some(before)) => before,
        _ => Access::Unknown,
    }
}

fn in_status(level: AccessLevel) -> Access {
    match level {
        AccessLevel::Blocked => Access::Blocked,
        AccessLevel::ReadOnly => Access::ReadOnly,
        AccessLevel::ShrinkOnly => Access::ShrinkOnly,
        AccessLevel::ReadWrite => Access::ReadWrite,
    }
}

fn binding(visit: &Visit<'_>) -> Option<Binding> {
    let desired = visit.desired.as_ref()?;
    let row = visit.row.as_ref()?;
    (row.status.was_active() && visit.is_settled())
        .then(|| Binding { name: desired.connection_secret.clone() })
}

fn workflow(visit: &Visit<'_>, before: Option<WorkflowStatus>, now: Timestamp) -> Option<WorkflowStatus> {
    let Some(run) = &visit.workflow else {
        return before.map(|workflow| settle_unfinished(workflow, visit, now));
    };
    let id = run.record.id.to_string();
    let earlier = before.filter(|workflow| workflow.id == id);
    let started_at = earlier.as_ref().and_then(|workflow| workflow.started_at.clone());
    let earlier_steps = earlier.map(|workflow| workflow.steps).unwrap_or_default();
    let mut steps = merge_steps(earlier_steps, visit.current_steps());
    let finished = visit.obstacle.is_none()
        && visit.current_steps().iter().all(|run| run.result == StepResult::Succeeded);
    if finished {
        observed_as_done(&mut steps);
    }
    Some(WorkflowStatus {
        id,
        kind: run.kind,
        attempt: run.record.attempt,
        started_at: started_at.or(Some(Time(run.record.started_at))),
        finished_at: finished.then_some(Time(now)),
        next_attempt_at: visit.next_attempt_at.map(Time),
        steps,
    })
}

/// A run that ended before it could write its status leaves steps that look unfinished. Once everything is observed
/// to be in force, they are.
fn settle_unfinished(mut workflow: WorkflowStatus, visit: &Visit<'_>, now: Timestamp) -> WorkflowStatus {
    if workflow.finished_at.is_none() && visit.is_settled() && visit.row.is_some() {
        observed_as_done(&mut workflow.steps);
        workflow.finished_at = Some(Time(now));
        workflow.next_attempt_at = None;
    }
    workflow
}

/// What an earlier attempt began and a later one did not have to do.
fn observed_as_done(steps: &mut [StepStatus]) {
    for step in steps.iter_mut().filter(|step| step.state != StepState::Succeeded) {
        step.state = StepState::Succeeded;
        step.message = Some("observed as done".into());
        step.sql_state = None;
    }
}

/// The steps of earlier attempts, overwritten by those of this one; order is that of the work.
fn merge_steps(earlier: Vec<StepStatus>, runs: &[StepRun]) -> Vec<StepStatus> {
    let mut steps = earlier;
    for run in runs {
        let name = run.step.as_str();
        let position = steps.iter().position(|step| step.name == name);
        let previous = position.map(|at| steps[at].attempts).unwrap_or(0);
        let (state, tried, failure) = match &run.result {
            StepResult::Pending => (StepState::Pending, 0, None),
            StepResult::Running => (StepState::Running, 1, None),
            StepResult::Succeeded => (StepState::Succeeded, 1, None),
            StepResult::Failed(failure) => (StepState::Failed, 1, Some(failure)),
        };
        let status = StepStatus {
            name: name.to_owned(),
            state,
            attempts: previous + tried,
            started_at: run.started_at.map(Time),
            finished_at: run.finished_at.map(Time),
            message: failure.map(|failure| failure.message.clone()),
            sql_state: failure.and_then(|failure| failure.sql_state.clone()),
        };
        match position {
            Some(at) => steps[at] = status,
            None => steps.push(status),
        }
    }
    steps
}

/// New conditions over old ones: a transition time is kept while the status is the same, and conditions that exist
/// only while True are taken away.
fn merge(
    mut before: Vec<Condition>,
    new: Vec<conditions::Told>,
    visit: &Visit<'_>,
    now: Timestamp,
) -> Vec<Condition> {
    before.retain(|condition| {
        !conditions::ONLY_WHILE_TRUE.contains(&condition.type_.as_str())
            || new.iter().any(|told| told.type_ == condition.type_)
    });
    if !visit.is_leaving() {
        remove_condition(&mut before, DEPROVISIONED);
    }
    for told in new {
        set_condition(&mut before, told.into_condition(visit.tenant.metadata.generation, now));
    }
    before
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::{tenant::Tenant, tenant_status::WorkflowKind},
        controller::tenant::visit::{Visit, WorkflowRun},
        domain::plan::Presence,
        registry::{TenantRow, Workflow},
    };

    fn told(recorded: Option<AccessLevel>, before: Access, paused: bool) -> (Access, String) {
        let spec =
            json!({"slug": "acme", "displayName": "Acme", "plan": "starter", "state": "Deprovisioned"});
        let tenant: Tenant = serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": spec,
        }))
        .unwrap();
        let before = TenantStatus { access: Some(before), ..TenantStatus::default() };
        let mut visit = Visit::new(&tenant, before, Presence::Living);
        let status = if paused { RegistryStatus::Active } else { RegistryStatus::Deprovisioning };
        visit.row = Some(TenantRow { access: recorded, ..TenantRow::example(status) });
        visit.obstacle = paused.then_some(Obstacle::Blocked(Blocked::Paused));
        let status = next_status(&visit, vec![], Timestamp::UNIX_EPOCH);
        let condition = crate::api::conditions::find_condition(&status.conditions, DEPROVISIONED).unwrap();
        (status.access.unwrap(), condition.message.clone())
    }

    #[test]
    fn access_is_cut_when_the_registry_has_it_as_proven_and_not_before() {
        let (access, message) = told(Some(AccessLevel::Blocked), Access::Unknown, false);
        assert!(access == Access::Blocked && message.starts_with("access is cut"), "{message}");
        for recorded in [None, Some(AccessLevel::ReadWrite)] {
            let (access, message) = told(recorded, Access::Blocked, false);
            assert!(access == Access::Unknown && message.starts_with("access is not proven"), "{message}");
        }
        // Paused before anything was done, it is what it was.
        let (access, message) = told(Some(AccessLevel::ReadWrite), Access::ReadWrite, true);
        assert!(access == Access::ReadWrite && message.starts_with("access is not proven"), "{message}");
    }

    /// The process that ran it ended after the last step, before it could say so; the next one has nothing to do.
    #[test]
    fn a_finished_workflow_has_no_open_steps() {
        let tenant = Tenant::new("acme", Default::default());
        let record =
            Workflow { id: uuid::Uuid::nil(), attempt: 1, started_at: Timestamp::UNIX_EPOCH, failures: 0 };
        let open = StepStatus {
            name: "Seed".into(),
            state: StepState::Running,
            attempts: 1,
            started_at: None,
            finished_at: None,
            message: None,
            sql_state: None,
        };
        let mut visit = Visit::new(&tenant, TenantStatus::default(), Presence::Living);
        visit.workflow = Some(WorkflowRun { kind: WorkflowKind::Update, record, first: 0 });
        let told = workflow(&visit, None, Timestamp::UNIX_EPOCH).unwrap();
        let told =
            workflow(&visit, Some(WorkflowStatus { steps: vec![open], ..told }), Timestamp::UNIX_EPOCH)
                .unwrap();
        assert!(told.finished_at.is_some());
        assert_eq!(told.steps[0].state, StepState::Succeeded);
    }
}
