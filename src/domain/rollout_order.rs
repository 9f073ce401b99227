//! In which order existing tenants get a new version of a module: the quiet ones first, so that what goes wrong goes wrong
//! where the fewest people work.

use crate::{
    api::tenant_status::{ModuleState, TenantStatus},
    domain::usage::entitlements::{CONNECTIONS, STORAGE_BYTES},
};

/// A tenant's place in the order: its sessions at the last sample of usage (a tenant that was not sampled is new, and
/// quiet), then the bytes that it stores.
pub fn place(status: &TenantStatus) -> (i64, i64) {
    let amount = |name: &str| {
        let amounts = status.usage.as_ref().map(|usage| &usage.amounts);
        amounts.and_then(|amounts| amounts.get(name).copied()).unwrap_or(0)
    };
    (amount(CONNECTIONS), amount(STORAGE_BYTES))
}

/// Whether a file or a tool failed on a tenant: it goes before all others, because a new version may be the correction.
pub fn is_failed(status: &TenantStatus) -> bool {
    status.modules.iter().any(|module| module.state == Some(ModuleState::Failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(amounts: &[(&str, i64)]) -> TenantStatus {
        let amounts: serde_json::Map<String, serde_json::Value> =
            amounts.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).into())).collect();
        serde_json::from_value(serde_json::json!({"usage": amounts})).unwrap()
    }

    #[test]
    fn tenants_with_fewer_sessions_and_less_data_are_first() {
        let new = TenantStatus::default();
        let empty = status(&[("connections", 0), ("storageBytes", 10)]);
        let full = status(&[("connections", 0), ("storageBytes", 999)]);
        let busy = status(&[("connections", 3), ("storageBytes", 1)]);
        let mut order = [&busy, &full, &new, &empty];
        order.sort_by_key(|status| place(status));
        assert_eq!(order, [&new, &empty, &full, &busy]);
    }
}
