//! CutAccess: the login loses LOGIN, its group and CONNECT; its sessions are ended; PostgreSQL is read until none is
//! left. Only then is it reported. It needs nothing but the recorded names.

use super::{Run, StepError, restore_marks};
use crate::domain::access::AccessLevel;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let level = AccessLevel::Blocked;
    // It was cut before and is not any more: nobody is told that it is, until it is proven anew.
    if run.row()?.access == Some(level) {
        run.context.registry.set_access(run.row()?.id, None).await?;
        run.row_mut()?.access = None;
    }
    restore_marks(run).await?;
    let row = run.row()?;
    run.server()?.set_access(row.id, &row.database_name, &run.login()?, level).await?;
    run.context.registry.set_access(row.id, Some(level)).await?;
    run.row_mut()?.access = Some(level);
    Ok(())
}
