//! Seed: settings, admins and demo data, in one transaction as the migrator's login. Each admin without an account
//! gets a one-time credential: its plain text is in the Secret `<name>-admin` before its hash is in the database, so
//! that a run that is cut off leaves no hash whose plain text nobody has.

use super::{Run, StepError};
use crate::controller::tenant::admins;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let desired = run.desired()?.clone();
    let row = run.row()?;
    let id = row.id;
    let database = row.database_name.clone();
    let offers = admins::offers(run.context, run.tenant(), row, &desired).await?;
    let outcome = run.server()?.seed(id, &database, &offers.seed(&desired)).await?;
    offers.keep_only(run.context, &outcome.new_admins).await?;
    let digest = desired.seed_digest();
    run.context.registry.set_seed_digest(id, &digest).await?;
    run.row_mut()?.seed_digest = Some(digest);
    Ok(())
}
