//! The status of a SupportAccess.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{Api, ResourceExt, runtime::controller::Action};

use super::secret::name_of;
use crate::{
    api::{
        conditions::{
            ConditionStatus, GRANTED, READY, RECONCILING, STALLED, condition, remove_condition,
            same_ignoring_times, set_condition,
        },
        reason::Reason,
        support_access::{SupportAccess, SupportAccessStatus, SupportState},
    },
    controller::{apply_status::apply_status, context::Context},
    domain::support::{EndReason, SupportRecord, SupportWait},
};

/// What a reconcile came to.
#[derive(Clone, Debug)]
pub struct ShownSupport {
    /// How far the access is.
    pub state: SupportState,
    /// Of the conditions.
    pub reason: Reason,
    /// Of the conditions.
    pub message: String,
    /// Nothing continues until a user changes something.
    pub is_stalled: bool,
    /// When it is reconciled again; none: when something changes.
    pub again: Option<Duration>,
}

impl ShownSupport {
    /// It waits, and something else leads to its next reconcile, or this time.
    pub fn waiting(why: SupportWait, object: &SupportAccess, again: Duration) -> Self {
        let tenant = &object.spec.tenant;
        let (state, reason, message) = match why {
            SupportWait::TenantNotFound => (
                SupportState::Pending,
                Reason::TenantNotFound,
                format!("Tenant {tenant:?} does not exist in this namespace: check the name"),
            ),
            SupportWait::NotActive => (
                SupportState::Pending,
                Reason::Provisioning,
                format!("Tenant {tenant:?} was never active: it has no data yet"),
            ),
            SupportWait::Approval => (
                SupportState::WaitingForApproval,
                Reason::WaitingForApproval,
                format!(
                    "another user than {:?}, with the verb approve on this SupportAccess, must set spec.approvedBy to their own name within a day of the request",
                    object.spec.requested_by
                ),
            ),
        };
        Self { state, reason, message, is_stalled: false, again: Some(again) }
    }

    /// It cannot be granted, or its login cannot be made, for now.
    pub fn not_yet(reason: Reason, message: String, again: Duration) -> Self {
        let is_stalled = reason == Reason::PolicyMissing;
        Self { state: SupportState::Pending, reason, message, is_stalled, again: Some(again) }
    }

    /// The login is valid.
    pub fn granted(object: &SupportAccess, expires_at: Timestamp) -> Self {
        Self {
            state: SupportState::Granted,
            reason: Reason::Granted,
            message: format!(
                "the login of Secret {:?} reads the data of the tenant until {expires_at:.0}",
                name_of(&object.name_any())
            ),
            is_stalled: false,
            again: None,
        }
    }

    /// The login could not be taken away yet.
    pub fn ending(ends: EndReason, expires_at: Option<Timestamp>, why: (Reason, &str)) -> Self {
        let until = expires_at
            .map(|at| format!("; PostgreSQL accepts its password until {at:.0}"))
            .unwrap_or_default();
        let message = format!("{}, and the login is not gone yet: {}{until}", ends.describe(), why.1);
        Self {
            state: SupportState::Ending,
            reason: why.0,
            message,
            is_stalled: false,
            again: Some(Duration::from_secs(5)),
        }
    }

    /// It was never recorded, and will not be granted.
    pub fn refused(reason: EndReason) -> Self {
        Self {
            state: SupportState::Refused,
            reason: Reason::AccessEnded,
            message: format!("the access was not granted: {}", reason.describe()),
            is_stalled: true,
            again: None,
        }
    }

    /// All is over.
    pub fn ended(record: &SupportRecord, reason: EndReason) -> Self {
        let was_granted = record.grant.is_some();
        let (state, what) = match was_granted {
            true => (SupportState::Ended, "the login is gone, and its sessions are ended"),
            false => (SupportState::Refused, "the access was not granted"),
        };
        Self {
            state,
            reason: Reason::AccessEnded,
            message: format!("{what}: {}", reason.describe()),
            is_stalled: !was_granted,
            again: None,
        }
    }

    /// What the controller does next.
    pub fn action(&self) -> Action {
        self.again.map_or_else(Action::await_change, Action::requeue)
    }

    fn ready(&self) -> ConditionStatus {
        match self.state {
            SupportState::Granted | SupportState::Ended => ConditionStatus::True,
            _ => ConditionStatus::False,
        }
    }
}

/// Writes the status if it changed.
pub async fn write_status(
    object: &SupportAccess,
    record: Option<&SupportRecord>,
    shown: &ShownSupport,
    context: &Context,
) -> Result<(), kube::Error> {
    let before = object.status.clone().unwrap_or_default();
    let status = next_status(object, record, shown, context.clock.now());
    let same = SupportAccessStatus { conditions: before.conditions.clone(), ..status.clone() } == before
        && same_ignoring_times(&before.conditions, &status.conditions);
    if same {
        return Ok(());
    }
    let api =
        Api::<SupportAccess>::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    apply_status(&api, object, &status).await.map(drop)
}

fn next_status(
    object: &SupportAccess,
    record: Option<&SupportRecord>,
    shown: &ShownSupport,
    now: Timestamp,
) -> SupportAccessStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let mut conditions = before.conditions;
    let granted = ConditionStatus::from(shown.state == SupportState::Granted);
    for (type_, status) in [(READY, shown.ready()), (GRANTED, granted)] {
        let condition = condition(type_, status, shown.reason, shown.message.clone(), generation, now);
        set_condition(&mut conditions, condition);
    }
    for type_ in [RECONCILING, STALLED] {
        remove_condition(&mut conditions, type_);
    }
    if shown.ready() != ConditionStatus::True {
        let type_ = if shown.is_stalled { STALLED } else { RECONCILING };
        let status = ConditionStatus::True;
        let condition = condition(type_, status, shown.reason, shown.message.clone(), generation, now);
        set_condition(&mut conditions, condition);
    }
    let grant = record.and_then(|record| record.grant.as_ref());
    let is_over = record.is_some_and(|record| record.ended.is_some());
    SupportAccessStatus {
        observed_generation: generation,
        state: Some(shown.state),
        tenant_id: record.map(|record| record.tenant.to_string()).or(before.tenant_id),
        secret_name: grant.filter(|_| !is_over).map(|_| name_of(&object.name_any())),
        login: grant.map(|grant| grant.login.clone()),
        granted_at: grant.map(|grant| seconds(grant.at)),
        expires_at: grant.map(|grant| seconds(grant.expires_at)),
        first_used_at: record.and_then(|record| record.first_used_at).map(seconds),
        ended_at: record.and_then(|record| record.ended).map(|(at, _)| seconds(at)),
        conditions,
    }
}

/// A time as the API server keeps it.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
