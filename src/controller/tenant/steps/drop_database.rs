//! DropDatabase: drops the tenant's database, by its recorded name and only with its mark, whether it was published
//! or still being built. One at a time per server; a database that is gone already is what was wanted.

use super::{Run, StepError};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let row = run.row()?;
    run.server()?.drop_database(row.id, &row.database_name).await?;
    run.context.registry.database_exists(row.id, false).await?;
    Ok(())
}
