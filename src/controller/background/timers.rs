//! Requests the reconcile of each Tenant whose timer is due. Timers follow the wall clock, which tests set ahead.

use std::time::Duration;

use crate::controller::{context::SharedContext, watch::requeue::requeue_tenant};

/// How often the clock is read: a timer is met within a second.
const PERIOD: Duration = Duration::from_millis(250);

/// Reads the clock until it is dropped.
pub async fn run(context: SharedContext) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        for (namespace, name) in context.state.timers.take_due(context.clock.now()) {
            requeue_tenant(&namespace, &name, &context);
        }
    }
}
