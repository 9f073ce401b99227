//! The statuses that this process wrote and the watch may not have delivered yet. A reconcile that began from an older
//! copy would overwrite the newer status.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use kube::{ResourceExt, api::ObjectMeta};

use crate::api::{tenant::Tenant, tenant_status::TenantStatus};

/// Statuses by the Tenant's uid, with the resourceVersion of the write.
#[derive(Default)]
pub struct LatestStatus {
    by_uid: Mutex<HashMap<String, (u64, TenantStatus)>>,
}

impl LatestStatus {
    /// The newest status known of a Tenant: the one of this copy, or the one written since.
    pub fn newest(&self, tenant: &Tenant) -> TenantStatus {
        let mut written = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = tenant.uid().unwrap_or_default();
        let seen = version(&tenant.metadata);
        match written.get(&uid) {
            Some((version, status)) if *version > seen => status.clone(),
            Some(_) => {
                written.remove(&uid);
                tenant.status.clone().unwrap_or_default()
            }
            None => tenant.status.clone().unwrap_or_default(),
        }
    }

    /// Remembers what was written, until the watch delivers it. `written` is the metadata that the write returned.
    pub fn remember(&self, written: &ObjectMeta, status: TenantStatus) {
        let mut by_uid = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        by_uid.insert(written.uid.clone().unwrap_or_default(), (version(written), status));
    }

    /// Forgets a Tenant that does not exist any more.
    pub fn forget(&self, tenant: &Tenant) {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner).remove(&tenant.uid().unwrap_or_default());
    }
}

/// Resource versions of one resource are numbers that grow (KEP-5504). One that is not a number counts as the oldest.
fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tenant(version: &str, plan: &str) -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "a", "uid": "u", "resourceVersion": version},
            "spec": {"slug": "abc", "displayName": "A", "plan": "p"}, "status": {"plan": plan},
        }))
        .unwrap()
    }

    #[test]
    fn older_copy_does_not_hide_written_status() {
        let written = LatestStatus::default();
        let after = tenant("12", "new");
        written.remember(&after.metadata, after.status.clone().unwrap());
        assert_eq!(written.newest(&tenant("9", "old")).plan.as_deref(), Some("new"));
        assert_eq!(written.newest(&tenant("12", "new")).plan.as_deref(), Some("new"));
        // Once delivered it is forgotten: what another client writes later counts.
        assert_eq!(written.newest(&tenant("9", "old")).plan.as_deref(), Some("old"));
    }
}
