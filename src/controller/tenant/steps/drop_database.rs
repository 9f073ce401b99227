//! DropDatabase: drops the tenant's database, by its recorded name and only with its mark, whether it was published
//! or still being built. One at a time per server; a database that is gone already is what was wanted. The point of no
//! return is recorded before it is passed: a tenant that comes back in that very moment wins or loses there.

use super::{Run, StepError, pass_deadline, restore_marks};
use crate::postgres::{Error, databases::Dropped};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    pass_deadline(run).await?;
    restore_marks(run).await?;
    let row = run.row()?;
    let dropped = run.server()?.drop_database(row.id, &row.database_name).await?;
    // Another database in its place says nothing of what became of it, unless it never got that far.
    if dropped == Dropped::NotOurs && row.activated_at.is_some() {
        return Err(StepError::Postgres(Error::Conflict {
            kind: "database",
            name: row.database_name.clone(),
            detail: "the tenant's own is not there, and was not dropped".into(),
        }));
    }
    run.context.registry.database_exists(row.id, false).await?;
    run.row_mut()?.database_exists = false;
    Ok(())
}
