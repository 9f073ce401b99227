//! DropDatabase: drops the tenant's database, by its recorded name and only with its mark, whether it was published
//! or still being built. One at a time per server; a database that is gone already is what was wanted. The point of no
//! return is recorded before it is passed: a tenant that comes back in that very moment wins or loses there.

use super::{Run, StepError};
use crate::{domain::observed::RegistryStatus, registry::PurgeStart};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let row = run.row()?;
    if row.status == RegistryStatus::Deprovisioning && row.purge_started_at.is_none() {
        let (context, correlation) = (run.context, run.correlation()?);
        let ahead = context.clock.ahead();
        match context.registry.begin_purge(row.id, &row.resource_uid, ahead, correlation).await? {
            PurgeStart::Begun => run.row_mut()?.purge_started_at = Some(context.clock.now()),
            PurgeStart::NotDue => return Err(StepError::ClocksDisagree),
            PurgeStart::Changed => return Err(StepError::Missing("the tombstone as it was")),
        }
    }
    let row = run.row()?;
    run.server()?.drop_database(row.id, &row.database_name).await?;
    run.context.registry.database_exists(row.id, false).await?;
    run.row_mut()?.database_exists = false;
    Ok(())
}
