//! Whether a tenant was activated although its row does not record it: the registry was restored to an older state. Such a
//! row is not believed, since what follows from it loses data: no grace, no breaker, and a rollback.

use super::TenantObject;
use crate::{
    api::tenant_status::{TenantState, TenantStatus},
    domain::{
        identity::TenantId,
        observed::{DatabaseFacts, Observation, ObservedFacts, RegistryFacts, RegistryStatus, SecretFacts},
    },
};

/// Whether a status shows that this tenant was activated. Only an activated tenant has a binding, or had a grace.
pub fn is_shown(status: &TenantStatus, id: TenantId) -> bool {
    let was_in_use =
        matches!(status.state, Some(TenantState::Trial | TenantState::Active | TenantState::Suspended));
    let had_grace = match (&status.deprovisioned_at, &status.purge_after) {
        (Some(began), Some(end)) => end.0 > began.0,
        _ => false,
    };
    status.tenant_id.as_deref() == Some(&id.to_string())
        && (status.binding.is_some() || was_in_use || had_grace)
}

/// Whether the row of a tenant that was activated does not record it. A database is recorded before it is created, and its
/// Secret is written after that: one that a row does not account for is from a later time than the row. While what a tenant
/// had is being removed, only its status shows it.
pub fn is_forgotten(row: &RegistryFacts, object: TenantObject, observed: &ObservedFacts) -> bool {
    if row.activated || row.purging || row.status == RegistryStatus::Deprovisioned {
        return false;
    }
    let has_database = matches!(
        &observed.server,
        Observation::Known(server) if server.database == DatabaseFacts::Ours
    );
    let has_more = has_database || observed.connection_secret != SecretFacts::Absent;
    object.was_activated || !row.rolling_back && !row.database_recorded && has_more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::workflow::fixtures::{OBJECT, registered, whole};
    use serde_json::json;
    use uuid::Uuid;

    #[test]
    fn binding_state_or_grace_of_the_same_tenant_shows_it() {
        let id = TenantId(Uuid::from_u128(1));
        let shown = |more: serde_json::Value| {
            let mut status = json!({"tenantId": id.to_string()});
            status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            is_shown(&serde_json::from_value(status).unwrap(), id)
        };
        assert!(!shown(json!({"state": "Provisioning"})) && !shown(json!({"state": "Failed"})));
        assert!(shown(json!({"state": "Suspended"})));
        assert!(shown(json!({"state": "Failed", "binding": {"name": "acme-db"}})));
        let (began, later) = ("2026-01-01T00:00:00Z", "2026-01-31T00:00:00Z");
        let leaving =
            |end: &str| json!({"state": "Deprovisioning", "deprovisionedAt": began, "purgeAfter": end});
        assert!(shown(leaving(later)) && !shown(leaving(began)));
        let other = json!({"state": "Active", "tenantId": Uuid::from_u128(2).to_string()});
        assert!(!shown(other), "another tenant's");
    }

    #[test]
    fn what_the_row_does_not_account_for_shows_it() {
        let facts = |observed: &ObservedFacts| match &observed.registry {
            Observation::Known(row) => row.clone(),
            _ => unreachable!(),
        };
        let mut observed = registered();
        let row = facts(&observed);
        assert!(!is_forgotten(&row, OBJECT, &observed), "nothing exists yet");
        let was_activated = TenantObject { was_activated: true, ..OBJECT };
        assert!(is_forgotten(&row, was_activated, &observed));
        assert!(!is_forgotten(&facts(&whole(RegistryStatus::Active)), was_activated, &observed));
        observed.connection_secret = SecretFacts::Stale;
        assert!(is_forgotten(&row, OBJECT, &observed));
        // An interrupted provisioning, rollback or purge.
        for interrupted in [
            RegistryFacts { database_recorded: true, ..row.clone() },
            RegistryFacts { rolling_back: true, ..row.clone() },
            RegistryFacts { purging: true, ..row.clone() },
        ] {
            assert!(!is_forgotten(&interrupted, OBJECT, &observed), "{interrupted:?}");
        }
        observed = ObservedFacts { connection_secret: SecretFacts::Absent, ..whole(RegistryStatus::Active) };
        assert!(is_forgotten(&row, OBJECT, &observed), "its database exists");
    }
}
