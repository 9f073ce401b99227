//! Counts Tenants by state, for the metrics.

use std::time::Duration;

use crate::{api::tenant_status::TenantState, controller::context::SharedContext};

/// How often they are counted, from memory.
const PERIOD: Duration = Duration::from_secs(5);

/// Counts until it is dropped.
pub async fn run(context: SharedContext) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        let tenants = context.stores.scopes.tenants();
        let in_state = |state: TenantState| {
            let statuses = tenants.iter().filter_map(|tenant| tenant.status.as_ref());
            statuses.filter(|status| status.state == Some(state)).count()
        };
        let counts = TenantState::ALL
            .iter()
            .map(|state| (state.as_str(), i64::try_from(in_state(*state)).unwrap_or(i64::MAX)));
        context.metrics.tenants(counts);
    }
}
