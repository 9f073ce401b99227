//! Removes from the registry what is older, or more, than it keeps: once a day, some tenants at a time.

use std::time::Duration;

use serde_json::json;
use tracing::{info, warn};

use crate::{
    controller::context::{Context, SharedContext},
    registry::{self, Activity, Removed},
};

/// How long after the start the registry is gone through for the first time: not while all tenants are reconciled.
const FIRST: Duration = Duration::from_secs(600);

/// The pause between two statements.
const PAUSE: Duration = Duration::from_secs(1);

/// Removes until it is dropped.
pub async fn run(context: SharedContext) {
    let interval = context.config.retention_interval;
    let first = tokio::time::Instant::now() + FIRST.min(interval);
    let mut period = tokio::time::interval_at(first, interval);
    loop {
        period.tick().await;
        let mut removed = Removed::default();
        let outcome = go_through(&context, &mut removed).await;
        // Also of what was removed before a failure.
        if let Err(error) = outcome.and(report(removed, &context).await) {
            warn!(%error, "could not remove outdated rows of the registry; it is tried again tomorrow");
        }
    }
}

async fn go_through(context: &Context, removed: &mut Removed) -> Result<(), registry::Error> {
    let (registry, keep) = (&context.registry, &context.config.retention);
    registry.remove_outdated_openings(context.clock.now()).await?;
    registry.remove_outdated_deletions().await?;
    let mut last = None;
    loop {
        let tenants = registry.tenants_after(last).await?;
        let Some(end) = tenants.last() else { return Ok(()) };
        last = Some(*end);
        loop {
            tokio::time::sleep(PAUSE).await;
            let found = registry.remove_outdated(&tenants, keep, context.clock.now()).await?;
            *removed = removed.and(found);
            if found.is_nothing() {
                break;
            }
        }
    }
}

/// Activity is never archived without a row that says so.
async fn report(removed: Removed, context: &Context) -> Result<(), registry::Error> {
    if removed.is_nothing() {
        return Ok(());
    }
    let Removed { workflows, archived, usage } = removed;
    info!(workflows, archived, usage, "removed outdated rows of the registry");
    let entry = Activity {
        tenant: None,
        action: "OutdatedRowsRemoved",
        actor: "tenantry",
        reason: None,
        details: json!({"workflows": workflows, "activityArchived": archived, "usageDays": usage}),
        correlation: None,
    };
    context.registry.activity(&entry).await
}
