//! Seed: settings, then admins and demo data in one transaction, as the migrator's login; in a database that was just
//! made, the plan's limits before that, which hold for the admins too. Each admin without an account gets a one-time
//! credential: its plain text is in the Secret `<name>-admin` before its hash is in the database, so that a run that is cut
//! off leaves no hash whose plain text nobody has.

use super::{Run, StepError};
use crate::{
    controller::tenant::admins::Offers,
    domain::{limits::STORAGE_BYTES, steps::Step},
};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let desired = run.desired()?.clone();
    let row = run.row()?;
    let id = row.id;
    let offers = Offers::prepare(run.context, run.tenant(), row, &desired).await?;
    // What was just cloned takes no more room than its template.
    let new = run.visit.has_done(Step::CreateDatabase);
    let cloned = new.then(|| (STORAGE_BYTES.to_owned(), 0));
    let limits = if new { Some(run.entitlements()?.clone()) } else { None };
    let row = run.row()?;
    let outcome = run.server()?.seed(id, &row.database_name, &offers.seed(&desired), limits.as_ref()).await?;
    offers.keep_only(&outcome.offered, run.context, run.tenant(), row, &desired).await?;
    let digest = desired.seed_digest();
    let now = run.context.clock.now();
    let mut usage = outcome.usage;
    usage.extend(cloned);
    run.context.registry.record_seed(id, &digest, &usage, now).await?;
    run.context.usage_recorded.add(id);
    run.visit.seeded_limits = limits;
    let row = run.row_mut()?;
    row.seed_digest = Some(digest);
    row.usage.extend(usage);
    row.measured_at = Some(now);
    Ok(())
}
