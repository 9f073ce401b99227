//! Seed: settings, admins and demo data, in one transaction as the migrator's login. Each admin without an account
//! gets a one-time credential: its plain text is in the Secret `<name>-admin` before its hash is in the database, so
//! that a run that is cut off leaves no hash whose plain text nobody has.

use super::{Run, StepError};
use crate::controller::tenant::admins::Offers;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let desired = run.desired()?.clone();
    let row = run.row()?;
    let id = row.id;
    let offers = Offers::prepare(run.context, run.tenant(), row, &desired).await?;
    let outcome = run.server()?.seed(id, &row.database_name, &offers.seed(&desired)).await?;
    offers.keep_only(&outcome.offered, run.context, run.tenant(), row, &desired).await?;
    let digest = desired.seed_digest();
    run.context.registry.set_seed_digest(id, &digest).await?;
    run.row_mut()?.seed_digest = Some(digest);
    Ok(())
}
