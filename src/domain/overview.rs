//! All tenants, servers and modules at one moment, counted: for the metrics and for `/health`. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::rotation;
use crate::api::{
    conditions::{ConditionStatus, READY, RECONCILING, STALLED, find_condition},
    reason::Reason,
    tenant::Tenant,
    tenant_status::{TenantState, TenantStatus, WorkflowKind},
};

/// A provisioning that takes longer than this is reported.
pub const SLOW: SignedDuration = SignedDuration::from_mins(10);

/// Whether what the spec of an object asks for is in force, and whether more will be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It is.
    Ready,
    /// It is not yet: work is going on, or is tried again.
    Reconciling,
    /// It is not, and only a person can help.
    Stalled,
    /// It is not, and nothing is wrong: work is paused.
    NotReady,
    /// The object has no status yet.
    Unknown,
}

impl Standing {
    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::NotReady => "NotReady",
            Self::Unknown => "Unknown",
        }
    }
}

/// The standing that conditions show, and the reason for it.
pub fn standing(conditions: &[Condition]) -> (Standing, String) {
    let is_true = |condition: &&Condition| condition.status == ConditionStatus::True.as_str();
    // A module whose rollout stopped is Ready and Stalled.
    let found =
        [(STALLED, Standing::Stalled), (READY, Standing::Ready), (RECONCILING, Standing::Reconciling)]
            .into_iter()
            .find_map(|(type_, standing)| {
                let condition = find_condition(conditions, type_).filter(is_true)?;
                Some((standing, condition.reason.clone()))
            });
    found.unwrap_or_else(|| match find_condition(conditions, READY) {
        Some(ready) => (Standing::NotReady, ready.reason.clone()),
        None => (Standing::Unknown, Reason::NotReached.as_str().to_owned()),
    })
}

/// The unfinished workflows of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfinishedWorkflows {
    /// How many.
    pub count: usize,
    /// When the first of them began.
    pub oldest: Timestamp,
}

/// The ages of tenants' passwords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CredentialAges {
    /// When the oldest was issued.
    pub oldest: Option<Timestamp>,
    /// Since when the rotation that is due longest is not done.
    pub overdue_since: Option<Timestamp>,
}

/// All Tenants, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantOverview {
    /// By state, standing and reason: each Tenant once.
    pub tenants: BTreeMap<(Option<TenantState>, Standing, String), usize>,
    /// Workflows that have not ended, by kind and the standing of their Tenants.
    pub workflows: BTreeMap<(WorkflowKind, Standing), UnfinishedWorkflows>,
    /// First provisionings that are being tried for longer than [`SLOW`].
    pub slow_provisionings: usize,
    /// The ages of their passwords.
    pub credentials: CredentialAges,
}

impl TenantOverview {
    /// Counts.
    pub fn of<'a>(tenants: impl IntoIterator<Item = &'a Tenant>, now: Timestamp) -> Self {
        let mut overview = Self::default();
        let none = TenantStatus::default();
        for tenant in tenants {
            let status = tenant.status.as_ref().unwrap_or(&none);
            let (standing, reason) = standing(&status.conditions);
            overview.add_workflow(status, standing, now);
            overview.add_credentials(tenant, now);
            *overview.tenants.entry((status.state, standing, reason)).or_default() += 1;
        }
        overview
    }

    fn add_workflow(&mut self, status: &TenantStatus, standing: Standing, now: Timestamp) {
        let Some(workflow) = status.workflow.as_ref().filter(|workflow| workflow.finished_at.is_none())
        else {
            return;
        };
        let Some(began) = workflow.started_at.as_ref().map(|began| began.0) else { return };
        let found = self
            .workflows
            .entry((workflow.kind, standing))
            .or_insert(UnfinishedWorkflows { count: 0, oldest: began });
        found.count += 1;
        found.oldest = found.oldest.min(began);
        let is_slow = now.duration_since(began) > SLOW && standing != Standing::Stalled;
        if workflow.kind == WorkflowKind::Provision && is_slow {
            self.slow_provisionings += 1;
        }
    }

    fn add_credentials(&mut self, tenant: &Tenant, now: Timestamp) {
        let earlier = |one: Option<Timestamp>, other: Option<Timestamp>| one.into_iter().chain(other).min();
        let CredentialAges { oldest, overdue_since } = &mut self.credentials;
        *oldest = earlier(*oldest, rotation::issued_at(tenant));
        *overdue_since = earlier(*overdue_since, rotation::overdue_since(tenant, now));
    }

    /// The Tenants of some states.
    pub fn in_states(&self, states: &[TenantState]) -> usize {
        let of = |state: &Option<TenantState>| state.is_some_and(|state| states.contains(&state));
        self.tenants.iter().filter(|((state, ..), _)| of(state)).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "1970-01-01T00:00:00Z"})
    }

    fn tenant(status: Value) -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "a", "namespace": "customers"},
            "spec": {"slug": "abc", "displayName": "A", "plan": "free"}, "status": status,
        }))
        .unwrap()
    }

    fn workflow(kind: &str, finished: Option<&str>) -> Value {
        let mut all = json!({"id": "1", "kind": kind, "attempt": 1, "startedAt": "1970-01-01T00:00:10Z"});
        if let Some(finished) = finished {
            all["finishedAt"] = finished.into();
        }
        all
    }

    #[test]
    fn every_tenant_is_counted_once() {
        let ready = json!({"state": "Active", "conditions": [condition("Ready", "True", "Active")]});
        let tenants = [
            ready.clone(),
            ready,
            json!({"state": "Failed", "conditions": [
                condition("Ready", "False", "Conflict"), condition("Stalled", "True", "Conflict")]}),
            json!({"state": "Active", "conditions": [
                condition("Ready", "False", "DiskFull"), condition("Reconciling", "True", "DiskFull")]}),
            json!({"state": "Active", "conditions": [condition("Ready", "False", "Paused")]}),
            json!({}),
        ]
        .map(tenant);
        let found = TenantOverview::of(&tenants, at(0));
        let shown: Vec<_> = found
            .tenants
            .iter()
            .map(|((state, standing, reason), count)| {
                (state.map_or("", |state| state.as_str()), standing.as_str(), reason.as_str(), *count)
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("", "Unknown", "NotReached", 1),
                ("Active", "Ready", "Active", 2),
                ("Active", "Reconciling", "DiskFull", 1),
                ("Active", "NotReady", "Paused", 1),
                ("Failed", "Stalled", "Conflict", 1),
            ]
        );
        assert_eq!(found.in_states(&[TenantState::Active, TenantState::Trial]), 4);
    }

    #[test]
    fn oldest_password_and_longest_wait_count() {
        let issued = |second: i64, rotates: bool| {
            let credentials = json!({"issuedAt": at(second).to_string()});
            let mut tenant = tenant(json!({"access": "ReadWrite", "credentials": credentials}));
            tenant.spec.credentials =
                rotates.then(|| serde_json::from_value(json!({"rotateAfterSeconds": 3600})).unwrap());
            tenant
        };
        let of = |tenants: &[Tenant]| TenantOverview::of(tenants, at(10_000)).credentials;
        assert_eq!(of(&[tenant(json!({}))]), CredentialAges::default());
        let found = of(&[issued(200, true), issued(7000, true), issued(100, false), issued(150, true)]);
        assert_eq!(found, CredentialAges { oldest: Some(at(100)), overdue_since: Some(at(3750)) });
    }

    #[test]
    fn module_whose_rollout_stopped_is_stalled() {
        let conditions =
            [condition("Ready", "True", "Accepted"), condition("Stalled", "True", "RolloutHalted")];
        let conditions = conditions.map(|condition| serde_json::from_value(condition).unwrap());
        assert_eq!(standing(&conditions), (Standing::Stalled, "RolloutHalted".to_owned()));
    }

    #[test]
    fn unfinished_workflows_have_the_age_of_the_oldest() {
        let stalled = json!([condition("Ready", "False", "x"), condition("Stalled", "True", "x")]);
        let tenants = [
            json!({"workflow": workflow("Provision", None)}),
            json!({"workflow": workflow("Provision", None), "conditions": stalled}),
            json!({"workflow": workflow("Update", Some("1970-01-01T00:00:20Z"))}),
        ]
        .map(tenant);
        let found = TenantOverview::of(&tenants, at(10 + 600));
        let one = UnfinishedWorkflows { count: 1, oldest: at(10) };
        assert_eq!(
            found.workflows,
            [Standing::Unknown, Standing::Stalled]
                .map(|standing| ((WorkflowKind::Provision, standing), one))
                .into()
        );
        assert_eq!(found.slow_provisionings, 0);
        // One that needs a person is not slow: it has failed.
        assert_eq!(TenantOverview::of(&tenants, at(10 + 601)).slow_provisionings, 1);
    }
}
