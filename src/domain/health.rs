//! The health of an installation: ready, degraded or failed, and why. Pure. It follows from what is the case now, so it turns
//! back by itself.

use super::breaker::BreakerState;
use crate::api::reason::Reason;

/// How well an installation works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthState {
    /// Everything that the operator is responsible for works.
    #[default]
    Ready,
    /// Some tenants, servers or changes are affected.
    Degraded,
    /// No work is possible.
    Failed,
}

impl HealthState {
    /// The name on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// Why an installation is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCause {
    /// How bad it is.
    pub state: HealthState,
    /// What it is.
    pub reason: Reason,
    /// How many objects are affected.
    pub count: usize,
    /// For people: what is wrong, and how to find out more. It names servers and modules, and no tenant.
    pub message: String,
}

/// What the health of an installation follows from.
#[derive(Clone, Debug, Default)]
pub struct HealthFacts {
    /// Why the last read of the registry failed, if it did.
    pub registry_failure: Option<Reason>,
    /// The number of servers.
    pub servers: usize,
    /// The servers that tenants cannot use, and why.
    pub servers_down: Vec<(String, Reason)>,
    /// Tenants whose first provisioning failed, so that a person has to help.
    pub failed_provisionings: usize,
    /// First provisionings that are being tried for long.
    pub slow_provisionings: usize,
    /// Whether purges may begin.
    pub breaker: Option<BreakerState>,
    /// The modules whose rollout stopped.
    pub halted: Vec<String>,
}

impl HealthFacts {
    /// Why the installation is not ready; the worst first. Empty if it is.
    pub fn causes(&self) -> Vec<HealthCause> {
        let mut causes = Vec::new();
        let mut add = |state, reason, count, message: String| {
            causes.push(HealthCause { state, reason, count, message });
        };
        if let Some(reason) = self.registry_failure {
            let message = "the registry could not be read: nothing begins and nothing changes, and tenants keep the access that they have; see the log of the leader";
            add(HealthState::Failed, reason, 1, message.to_owned());
        }
        let down = self.servers_down.len();
        if down > 0 {
            let state = if down == self.servers { HealthState::Failed } else { HealthState::Degraded };
            let names: Vec<String> =
                self.servers_down.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
            let message = format!(
                "{down} of {} DatabaseServers cannot be used: {}; see `kubectl describe databaseserver`",
                self.servers,
                names.join(", ")
            );
            add(state, Reason::ServerNotReady, down, message);
        }
        if self.failed_provisionings > 0 {
            let message = format!(
                "the first provisioning of {} failed, and needs a person: see `kubectl get tenants -A`, state Failed",
                tenants(self.failed_provisionings)
            );
            add(HealthState::Degraded, Reason::Failed, self.failed_provisionings, message);
        }
        if self.slow_provisionings > 0 {
            let message = format!(
                "{} not provisioned after {} minutes: see `kubectl get tenants -A`, state Provisioning",
                tenants(self.slow_provisionings),
                super::overview::SLOW.as_mins()
            );
            add(HealthState::Degraded, Reason::Provisioning, self.slow_provisionings, message);
        }
        if self.breaker == Some(BreakerState::Open) {
            let message = "the breaker of mass deletions is open, and no purge begins: the Event on the Tenant CRD says why, and how to continue";
            add(HealthState::Degraded, Reason::PurgesFrozen, 1, message.to_owned());
        }
        if !self.halted.is_empty() {
            let message = format!(
                "the rollout of these modules stopped, because a file failed on too many tenants: {}; see `kubectl describe tenantmodule`",
                self.halted.join(", ")
            );
            add(HealthState::Degraded, Reason::RolloutHalted, self.halted.len(), message);
        }
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.state));
        causes
    }
}

fn tenants(count: usize) -> String {
    if count == 1 { "1 tenant".to_owned() } else { format!("{count} tenants") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(facts: &HealthFacts) -> Vec<(HealthState, Reason, usize)> {
        facts.causes().iter().map(|cause| (cause.state, cause.reason, cause.count)).collect()
    }

    #[test]
    fn nothing_wrong_is_no_cause() {
        let facts = HealthFacts { servers: 2, breaker: Some(BreakerState::Closed), ..HealthFacts::default() };
        assert_eq!(shown(&facts), []);
        // No server is no fault, and neither is a breaker that was not read yet.
        let facts = HealthFacts { breaker: Some(BreakerState::Unknown), ..HealthFacts::default() };
        assert_eq!(shown(&facts), []);
    }

    #[test]
    fn each_cause_is_named() {
        let facts = HealthFacts {
            servers: 2,
            servers_down: vec![("eu".into(), Reason::DatabaseUnreachable)],
            failed_provisionings: 1,
            slow_provisionings: 2,
            breaker: Some(BreakerState::Open),
            halted: vec!["billing".into(), "wiki".into()],
            ..HealthFacts::default()
        };
        let degraded = HealthState::Degraded;
        assert_eq!(
            shown(&facts),
            [
                (degraded, Reason::ServerNotReady, 1),
                (degraded, Reason::Failed, 1),
                (degraded, Reason::Provisioning, 2),
                (degraded, Reason::PurgesFrozen, 1),
                (degraded, Reason::RolloutHalted, 2),
            ]
        );
        let message = &facts.causes()[0].message;
        assert!(
            message.starts_with("1 of 2 DatabaseServers cannot be used: eu (DatabaseUnreachable)"),
            "{message}"
        );
    }

    #[test]
    fn no_server_and_no_registry_is_a_failure() {
        let facts = HealthFacts {
            registry_failure: Some(Reason::RegistryUnreachable),
            servers: 1,
            servers_down: vec![("eu".into(), Reason::TlsFailed)],
            failed_provisionings: 3,
            ..HealthFacts::default()
        };
        assert_eq!(
            shown(&facts),
            [
                (HealthState::Failed, Reason::RegistryUnreachable, 1),
                (HealthState::Failed, Reason::ServerNotReady, 1),
                (HealthState::Degraded, Reason::Failed, 3),
            ]
        );
    }
}
