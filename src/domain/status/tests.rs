//! The status after a reconcile, for outcomes built by hand.

use serde_json::json;

use super::*;
use crate::{
    api::{
        conditions::{
            ACCESS_ENFORCED, ConditionStatus::*, DEPROVISIONED, READY, REGISTERED, condition, find_condition,
        },
        limit::LimitValue,
        tenant::Tenant,
        tenant_status::{Access, StepState, StepStatus, Usage, WorkflowKind},
    },
    domain::{
        access::AccessLevel,
        attribution::{RecordedChanges, UnknownActor},
        record::TenantRecord,
        usage::{entitlements::Amounts, thresholds::WarnedLimits},
        workflow::{
            TenantObject,
            attempt::{Failure, StepResult, StepRun, WorkflowRecord, WorkflowRun},
            step::Step,
        },
    },
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn tenant(more: serde_json::Value) -> Tenant {
    let mut spec = json!({"slug": "acme", "displayName": "Acme", "plan": "free"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": spec,
    }))
    .unwrap()
}

fn subject<'a>(tenant: &'a Tenant, previous: TenantStatus, record: Option<TenantRecord>) -> Subject<'a> {
    let object = TenantObject { has_finalizer: true, ..TenantObject::default() };
    Subject {
        tenant,
        declared: tenant,
        seen_generation: None,
        account: None,
        object,
        previous,
        desired: None,
        record,
        elsewhere: None,
        evaluation: None,
        changes: RecordedChanges::unknown(1, UnknownActor::NoPolicy),
    }
}

/// Access and message of a tenant whose spec says Deprovisioned.
fn deprovisioning(recorded: Option<AccessLevel>, before: Access, paused: bool) -> (Access, String) {
    let tenant = tenant(json!({"state": "Deprovisioned"}));
    let before = TenantStatus { access: Some(before), ..TenantStatus::default() };
    let status = if paused { RegistryStatus::Active } else { RegistryStatus::Deprovisioning };
    let record = TenantRecord { access: recorded, ..TenantRecord::example(status) };
    let subject = subject(&tenant, before, Some(record));
    let obstacle = paused.then_some(Obstacle::Blocked(BlockedReason::Paused));
    let progress = Progress::default();
    let outcome =
        Outcome { subject: &subject, progress: &progress, obstacle: obstacle.as_ref(), unread: None };
    let status = next_status(&outcome, vec![], NOW);
    let condition = find_condition(&status.conditions, DEPROVISIONED).unwrap();
    (status.access.unwrap(), condition.message.clone())
}

#[test]
fn access_is_revoked_only_once_proven() {
    let (access, message) = deprovisioning(Some(AccessLevel::Blocked), Access::Unknown, false);
    assert!(access == Access::Blocked && message.starts_with("access is revoked"), "{message}");
    for recorded in [None, Some(AccessLevel::ReadWrite)] {
        let (access, message) = deprovisioning(recorded, Access::Blocked, false);
        assert!(access == Access::Unknown && message.starts_with("access is not proven"), "{message}");
    }
    // Paused before anything was done: unchanged.
    let (access, message) = deprovisioning(Some(AccessLevel::ReadWrite), Access::ReadWrite, true);
    assert!(access == Access::ReadWrite && message.starts_with("access is not proven"), "{message}");
}

/// Access and the status of AccessEnforced of an active tenant after these steps, where ReadWrite was shown before.
fn after(
    record: &TenantRecord,
    observed_access: Option<AccessLevel>,
    steps: &[(Step, StepResult)],
    obstacle: Option<Obstacle>,
) -> (Access, crate::api::conditions::ConditionStatus) {
    let tenant = tenant(json!({}));
    let before = TenantStatus { access: Some(Access::ReadWrite), ..TenantStatus::default() };
    let subject = subject(&tenant, before, Some(record.clone()));
    let run =
        |(step, result): &(Step, StepResult)| StepRun { result: result.clone(), ..StepRun::pending(*step) };
    let steps = steps.iter().map(run).collect();
    let progress = Progress { steps, observed_access, ..Progress::default() };
    let outcome =
        Outcome { subject: &subject, progress: &progress, obstacle: obstacle.as_ref(), unread: None };
    let status = next_status(&outcome, vec![], NOW);
    let enforced = find_condition(&status.conditions, ACCESS_ENFORCED).unwrap();
    let enforced = match enforced.status.as_str() {
        "True" => True,
        "False" => False,
        _ => Unknown,
    };
    (status.access.unwrap(), enforced)
}

#[test]
fn cut_is_shown_whatever_fails_after_it() {
    let failure = Failure {
        reason: Reason::RequestRefused,
        message: "the Secret is immutable".into(),
        sql_state: None,
        permanent: true,
        retry_after: None,
    };
    let failed = || StepResult::Failed(failure.clone());
    let (enforce, publish, verify) = (Step::EnforceAccess, Step::PublishCredentials, Step::Verify);
    let cut = TenantRecord::example(RegistryStatus::Suspended);
    assert_eq!(cut.access, Some(AccessLevel::Blocked));
    let rest = [(publish, failed()), (verify, StepResult::Pending)];
    let with = |result: StepResult| [vec![(enforce, result)], rest.to_vec()].concat();
    assert_eq!(after(&cut, None, &with(StepResult::Succeeded), None), (Access::Blocked, True));
    // The next attempt observes it, and does not need the step.
    let blocked = Some(AccessLevel::Blocked);
    assert_eq!(after(&cut, blocked, &rest, None), (Access::Blocked, True));
    let missing = || Some(Obstacle::Blocked(BlockedReason::DatabaseMissing));
    assert_eq!(after(&cut, blocked, &[], missing()), (Access::Blocked, True));
    // Nothing is shown that was not proven: the step was not reached, or failed, or PostgreSQL shows something else.
    let not_reached = [(publish, failed()), (enforce, StepResult::Pending)];
    assert_eq!(after(&cut, blocked, &not_reached, None), (Access::ReadWrite, Unknown));
    assert_eq!(after(&cut, blocked, &[(enforce, failed())], None), (Access::Unknown, False));
    assert_eq!(after(&cut, None, &rest, None), (Access::ReadWrite, Unknown));
    // A level that was withdrawn, for rights inside the database, is unknown, also after steps that succeeded.
    let doubted = TenantRecord { access: None, ..cut.clone() };
    assert_eq!(
        after(&doubted, blocked, &[(publish, StepResult::Succeeded)], None),
        (Access::Unknown, Unknown)
    );
    // A login that waits for its verification is not proven by another failure.
    let reads = |verification_required| TenantRecord {
        access: Some(AccessLevel::ReadOnly),
        verification_required,
        ..cut.clone()
    };
    let read_only = Some(AccessLevel::ReadOnly);
    assert_eq!(after(&reads(false), read_only, &rest, None), (Access::ReadOnly, True));
    assert_eq!(after(&reads(true), read_only, &rest, None), (Access::ReadOnly, Unknown));
}

/// State and access of a tenant without a row, after this state was shown.
fn without_row(
    before: Option<TenantState>,
    unread: Option<Reason>,
    obstacle: &Obstacle,
    spec: serde_json::Value,
) -> (TenantState, Access) {
    let tenant = tenant(spec);
    let access = before.map(|_| Access::ReadWrite);
    let previous = TenantStatus { state: before, access, ..TenantStatus::default() };
    let subject = subject(&tenant, previous, None);
    let progress = Progress::default();
    let outcome = Outcome { subject: &subject, progress: &progress, obstacle: Some(obstacle), unread };
    let status = next_status(&outcome, vec![], NOW);
    (status.state.unwrap(), status.access.unwrap())
}

#[test]
fn state_stays_while_the_registry_is_not_read() {
    let unknown = Obstacle::Blocked(BlockedReason::RegistryUnknown("no answer".into()));
    let invalid = Obstacle::InvalidSpec(SpecError::ServerNotFound("default".into()));
    let unread = Some(Reason::RegistryUnreachable);
    let active = || json!({});
    let states = [
        TenantState::Provisioning,
        TenantState::Trial,
        TenantState::Active,
        TenantState::Suspended,
        TenantState::Deprovisioned,
        TenantState::Failed,
    ];
    for state in states {
        for obstacle in [&unknown, &invalid] {
            let shown = without_row(Some(state), unread, obstacle, active());
            assert_eq!(shown, (state, Access::Unknown), "{obstacle:?}");
        }
    }
    // Nothing was ever done for it.
    let new = without_row(None, unread, &unknown, active());
    assert_eq!(new, (TenantState::Provisioning, Access::Blocked));
    // The row was read, and there is none.
    let missing = Obstacle::Blocked(BlockedReason::RowMissing);
    assert_eq!(without_row(Some(TenantState::Active), None, &missing, active()).0, TenantState::Failed);
    let deprovisioned = || json!({"state": "Deprovisioned"});
    let leaving = |state| without_row(Some(state), unread, &unknown, deprovisioned()).0;
    assert_eq!(leaving(TenantState::Active), TenantState::Deprovisioning);
    assert_eq!(leaving(TenantState::Deprovisioned), TenantState::Deprovisioned);
}

#[test]
fn lost_row_leaves_access_unknown() {
    let tenant = tenant(json!({}));
    let previous = TenantStatus { access: Some(Access::ReadWrite), ..TenantStatus::default() };
    let object = TenantObject { was_registered: true, ..TenantObject::default() };
    let subject = Subject { object, ..subject(&tenant, previous, None) };
    let (progress, missing) = (Progress::default(), Obstacle::Blocked(BlockedReason::RowMissing));
    let outcome = Outcome { subject: &subject, progress: &progress, obstacle: Some(&missing), unread: None };
    let status = next_status(&outcome, vec![], NOW);
    assert_eq!(status.access, Some(Access::Unknown));
    for (type_, expected) in [(REGISTERED, "False"), (ACCESS_ENFORCED, "Unknown")] {
        let found = find_condition(&status.conditions, type_).unwrap();
        assert_eq!((found.status.as_str(), found.reason.as_str()), (expected, "RegistryRowMissing"));
    }
}

/// Its object still exists: before the move it was deprovisioned, or it is applied by a tool that was not changed.
#[test]
fn tenant_that_is_elsewhere_is_not_shown_as_registered() {
    for spec in [json!({}), json!({"state": "Deprovisioned"})] {
        let tenant = tenant(spec);
        let before = Some(Time(NOW));
        let mut previous = TenantStatus { purge_after: before.clone(), ..TenantStatus::default() };
        previous.deprovisioned_at = before;
        let registered = condition(REGISTERED, True, Reason::Verified, String::new(), None, NOW);
        previous.conditions.push(registered);
        let object = TenantObject { was_registered: true, is_elsewhere: true, ..TenantObject::default() };
        let row = TenantRecord::example(RegistryStatus::Active);
        let elsewhere = Some(Box::new(row));
        let subject = Subject { object, elsewhere, ..subject(&tenant, previous, None) };
        let (progress, blocked) = (Progress::default(), Obstacle::Blocked(BlockedReason::Elsewhere));
        let outcome =
            Outcome { subject: &subject, progress: &progress, obstacle: Some(&blocked), unread: None };
        let status = next_status(&outcome, vec![], NOW);
        assert_eq!(status.state, Some(TenantState::Failed));
        assert_eq!((status.purge_after, status.deprovisioned_at), (None, None));
        for type_ in [REGISTERED, READY] {
            let found = find_condition(&status.conditions, type_).unwrap();
            assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "BoundElsewhere"));
            assert!(found.message.contains("as that of Tenant customers/acme"), "{}", found.message);
        }
    }
}

/// The process that ran it ended after the last step, before it could write the status; the next one has nothing to do.
#[test]
fn finished_workflow_has_no_open_steps() {
    let tenant = tenant(json!({}));
    let record = WorkflowRecord { id: uuid::Uuid::nil(), attempt: 1, started_at: NOW, failures: 0 };
    let open = StepStatus {
        name: "Seed".into(),
        state: StepState::Running,
        attempts: 1,
        started_at: None,
        finished_at: None,
        message: None,
        sql_state: None,
    };
    let subject = subject(&tenant, TenantStatus::default(), None);
    let workflow = Some(WorkflowRun { kind: WorkflowKind::Update, record, first_step: 0 });
    let progress = Progress { workflow, ..Progress::default() };
    let outcome = Outcome { subject: &subject, progress: &progress, obstacle: None, unread: None };
    let status = workflow::status(&outcome, None, NOW).unwrap();
    let status = crate::api::tenant_status::WorkflowStatus { steps: vec![open], ..status };
    let status = workflow::status(&outcome, Some(status), NOW).unwrap();
    assert!(status.finished_at.is_some());
    assert_eq!(status.steps[0].state, StepState::Succeeded);
}

fn amounts(amounts: &[(&str, i64)]) -> Amounts {
    amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
}

fn warned(names: &[&str]) -> WarnedLimits {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A row with limits of 100 users and unlimited seats.
fn limited(usage: &[(&str, i64)], warned_limits: &[&str]) -> TenantRecord {
    let limits = [("users".to_owned(), Some(100)), ("seats".to_owned(), None)].into();
    TenantRecord {
        entitlements: Some(Entitlements { plan: "free".into(), limits, ..Entitlements::default() }),
        usage: amounts(usage),
        warned_limits: warned(warned_limits),
        ..TenantRecord::example(RegistryStatus::Active)
    }
}

/// The condition `WithinLimits` and the usage shown, after `shown` was shown before.
fn within_limits(
    usage: &[(&str, i64)],
    before: Option<&[(&str, i64)]>,
    warned: &[&str],
) -> (condition_update::ConditionUpdate, Option<Usage>) {
    let tenant = tenant(json!({}));
    let mut previous = TenantStatus::default();
    if let Some(shown) = before {
        previous.limits = [("users".to_owned(), LimitValue::Number(100))].into();
        previous.usage = Some(Usage { measured_at: None, amounts: amounts(shown) });
    }
    let subject = subject(&tenant, previous.clone(), Some(limited(usage, warned)));
    let progress = Progress::default();
    let outcome = Outcome { subject: &subject, progress: &progress, obstacle: None, unread: None };
    (usage::within_limits(&outcome).unwrap(), usage::shown(&outcome, previous.usage))
}

#[test]
fn within_limits_reports_usage_of_each_limit() {
    let condition = |usage: &[(&str, i64)]| {
        let update = within_limits(usage, None, &[]).0;
        (update.status, update.reason, update.message)
    };
    assert_eq!((condition(&[]).0, condition(&[]).1), (Unknown, Reason::NotMeasured));
    assert_eq!(condition(&[("users", 79), ("seats", 9999)]).1, Reason::WithinLimits);
    assert_eq!(
        condition(&[("users", 80)]),
        (True, Reason::NearLimit, "users: 80 of 100 in use (80 %)".into())
    );
    assert_eq!(condition(&[("users", 100)]), (True, Reason::NearLimit, "users: all 100 in use".into()));
    let over = condition(&[("users", 120)]);
    assert_eq!((over.0, over.1), (False, Reason::LimitExceeded));
    assert!(over.2.starts_with("users: 120 in use, 100 allowed; "), "{}", over.2);
}

#[test]
fn usage_shown_stays_until_it_changes_enough() {
    // Within 5 % and at the same level: also below 80 %, once it was reported.
    let (update, shown) = within_limits(&[("users", 78)], Some(&[("users", 80)]), &["users"]);
    assert_eq!((update.reason, shown.unwrap().amounts["users"]), (Reason::NearLimit, 80));
    let (update, shown) = within_limits(&[("users", 74)], Some(&[("users", 76)]), &["users"]);
    assert_eq!((update.reason, shown.unwrap().amounts["users"]), (Reason::WithinLimits, 74));
    // An amount without a limit is not shown.
    assert_eq!(within_limits(&[("rows", 5)], None, &[]).1, None);
}

/// A status that shows usage of 5 users and 100 MiB of storage at most.
fn status(usage: &[(&str, i64)]) -> TenantStatus {
    let limits = [("users", 5), ("storageBytes", 100 << 20)];
    TenantStatus {
        limits: limits.map(|(name, most)| (name.to_owned(), LimitValue::Number(most))).into(),
        usage: Some(Usage { measured_at: None, amounts: amounts(usage) }),
        ..TenantStatus::default()
    }
}

fn users_and_storage(users: i64, mebibytes: i64) -> [(&'static str, i64); 2] {
    [("users", users), ("storageBytes", mebibytes << 20)]
}

#[test]
fn measured_usage_requires_a_reconcile_only_if_shown_or_full() {
    let full = status(&users_and_storage(5, 10));
    let required =
        |measured: &[(&str, i64)]| usage::requires_reconcile(&full, &amounts(measured), &warned(&["users"]));
    assert!(!required(&users_and_storage(5, 10)));
    assert!(!required(&[("users", 5)]), "an amount that was not measured is no change");
    assert!(required(&users_and_storage(5, 80)) && required(&users_and_storage(4, 10)));
    assert!(required(&users_and_storage(5, 100)), "storage is full");
}

/// The notice after usage changed from what `before` shows.
fn notice(
    before: &TenantStatus,
    usage: &[(&str, i64)],
    warned_limits: &[&str],
) -> Option<usage::LimitNotice> {
    let limits = [("users".to_owned(), Some(5)), ("storageBytes".to_owned(), Some(100 << 20))].into();
    let record = TenantRecord {
        entitlements: Some(Entitlements { plan: "free".into(), limits, ..Entitlements::default() }),
        usage: amounts(usage),
        warned_limits: warned(warned_limits),
        ..TenantRecord::example(RegistryStatus::Active)
    };
    usage::change(&record, before).unwrap().notice
}

#[test]
fn each_limit_is_reported_once() {
    use usage::LimitNotice::{Cleared, Exceeded, Near};
    let full = status(&users_and_storage(5, 10));
    assert_eq!(notice(&full, &users_and_storage(5, 80), &["users"]), Some(Near), "storage is near, too");
    let fuller = status(&users_and_storage(5, 80));
    assert_eq!(notice(&fuller, &users_and_storage(5, 10), &["users", "storageBytes"]), None);
    let one_less = status(&users_and_storage(4, 10));
    assert_eq!(notice(&one_less, &users_and_storage(5, 10), &["users"]), None);
    assert_eq!(notice(&status(&[("users", 3)]), &users_and_storage(4, 10), &[]), Some(Near));
    assert_eq!(notice(&full, &users_and_storage(6, 10), &["users"]), Some(Exceeded));
    assert_eq!(notice(&full, &users_and_storage(3, 10), &["users"]), Some(Cleared));
    assert_eq!(notice(&status(&[]), &users_and_storage(3, 10), &[]), None);
}

#[test]
fn record_of_reported_limits_follows_the_thresholds() {
    let record = |users: i64, warned: &[&str]| {
        usage::change(&limited(&[("users", users)], warned), &TenantStatus::default()).unwrap().warned
    };
    assert_eq!(record(79, &[]), warned(&[]));
    assert_eq!(record(80, &[]), warned(&["users"]));
    assert_eq!(record(76, &["users"]), warned(&["users"]));
    assert_eq!(record(74, &["users"]), warned(&[]));
}

#[test]
fn idle_paused_tenant_and_trial_that_was_over_are_visible() {
    let ready = |more: serde_json::Value| {
        let tenant = tenant(more);
        let record =
            TenantRecord { activated_at: Some(NOW), ..TenantRecord::example(RegistryStatus::Active) };
        let subject = subject(&tenant, TenantStatus::default(), Some(record));
        let progress = Progress::default();
        let outcome = Outcome { subject: &subject, progress: &progress, obstacle: None, unread: None };
        let status = next_status(&outcome, vec![], NOW);
        find_condition(&status.conditions, crate::api::conditions::READY).unwrap().clone()
    };
    let plain = ready(json!({}));
    assert!(plain.message.ends_with(" is in use"), "{}", plain.message);
    let paused = ready(json!({"paused": true}));
    assert_eq!(paused.status, "True");
    assert!(paused.message.contains("spec.paused is set"), "{}", paused.message);
    let over = ready(json!({"trial": {"endsAt": "1969-12-31T00:00:00Z"}}));
    assert!(over.message.contains("spec.trial.endsAt, 1969-12-31T00:00:00Z, was over"), "{}", over.message);
    let ends = ready(json!({"trial": {"endsAt": "1970-01-02T00:00:00Z"}}));
    assert_eq!(ends.message, plain.message);
}
