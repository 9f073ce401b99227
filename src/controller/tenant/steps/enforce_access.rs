//! EnforceAccess: the login becomes a member of exactly the group of its access level, and gets CONNECT on its own
//! database only; then PostgreSQL is read to prove it.

use super::{Run, StepError, restore_marks};
use crate::domain::access::AccessLevel;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let level = AccessLevel::ReadWrite;
    restore_marks(run).await?;
    let row = run.row()?;
    run.server()?.set_access(row.id, &row.database_name, &run.login()?, level).await?;
    run.context.registry.set_access(row.id, Some(level)).await?;
    run.row_mut()?.access = Some(level);
    Ok(())
}
