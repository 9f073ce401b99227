//! Links the rows of the activity log that an earlier release wrote: once, after an upgrade, some rows of a tenant at a time.

use std::{future::pending, time::Duration};

use tracing::{info, warn};

use crate::controller::context::SharedContext;

/// The pause between two statements, so that the registry has time for tenants.
const PAUSE: Duration = Duration::from_millis(50);

/// The pause after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Links until none is left, and then waits until it is dropped: the trigger links all later rows.
pub async fn run(context: SharedContext) {
    let mut any = false;
    loop {
        match context.registry.link_activity().await {
            Ok(true) => {
                any = true;
                tokio::time::sleep(PAUSE).await;
            }
            Ok(false) => break,
            Err(error) => {
                warn!(%error, "could not link rows of the activity log; it is tried again in a minute");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
    if any {
        info!("linked the rows of the activity log that an earlier release wrote");
    }
    pending().await
}
