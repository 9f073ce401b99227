//! DropDatabase: drops the tenant's database, by its recorded name and only with its mark, whether it was published
//! or still being built. One at a time per server; a database that is gone already is what was wanted. The point of no
//! return is recorded before it is passed: a tenant that comes back in that very moment wins or loses there.

use super::{Run, StepError, pass_deadline};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    pass_deadline(run).await?;
    let row = run.row()?;
    run.server()?.drop_database(row.id, &row.database_name).await?;
    run.context.registry.database_exists(row.id, false).await?;
    run.row_mut()?.database_exists = false;
    Ok(())
}
