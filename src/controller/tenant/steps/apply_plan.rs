//! ApplyPlan: what the plan gives comes into force in PostgreSQL, then in the registry: the connections of the login, the
//! limits in the tenant's database, where triggers hold the tenant to them. Those of a database that was made in this visit
//! are there already: Seed brought them. One row in the activity log has the old and the new. Below what is used already, a
//! limit refuses growth, and nothing else. A connection limit that was changed by hand is put right without a session in
//! the tenant's database.

use super::{Run, StepError, restore_marks};
use crate::{domain::limits::Amounts, registry::NewPlan};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    restore_marks(run).await?;
    let entitlements = run.entitlements()?.clone();
    let (row, correlation) = (run.row()?, run.correlation()?);
    let (id, context) = (row.id, run.context);
    let (server, login) = (run.server()?, run.login()?);
    let connections = server.set_connection_limit(id, &login, entitlements.connections());
    let making = row.activated_at.is_none();
    if !making && row.entitlements.as_ref() == Some(&entitlements) {
        return Ok(connections.await?);
    }
    let usage = match run.visit.seeded_limits.as_ref() == Some(&entitlements) {
        // What is used was recorded with the seed.
        true => Amounts::new(),
        false => server.apply_limits(id, &row.database_name, &entitlements).await?,
    };
    // Last, as it is what a search for drift compares with what is recorded.
    connections.await?;
    let now = context.clock.now();
    // Another plan than the spec's is one that came by itself, at a trial's end.
    let actor = if run.tenant().spec.plan == entitlements.plan { "unknown" } else { "tenantry" };
    let new = NewPlan { entitlements: &entitlements, usage: &usage, at: now, actor };
    context.registry.record_entitlements(id, &new, correlation).await?;
    context.usage_recorded.add(id);
    let row = run.row_mut()?;
    row.plan.clone_from(&entitlements.plan);
    row.entitlements = Some(entitlements);
    row.usage.extend(usage);
    row.measured_at = Some(now);
    Ok(())
}
