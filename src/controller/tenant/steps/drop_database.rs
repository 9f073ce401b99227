//! DropDatabase: drops the tenant's database by its recorded name, and only with its ownership comment, whether it is
//! published or still being built. One at a time per server; a database that does not exist counts as dropped.
//! `purge_guard` runs before it.

use crate::{
    controller::tenant::{failure::StepError, purge_guard::pass_deadline, step_context::StepContext},
    postgres::{Error, tenant::databases::Dropped},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    if step.row()?.takeover.is_some() && step.row()?.activated_at.is_none() {
        return Err(Error::NotDropped(step.row()?.placement.database.clone()).into());
    }
    pass_deadline(step).await?;
    step.restore_ownership(step.server()?).await?;
    let row = step.row()?;
    let dropped = step.server()?.drop_database(&row.placement).await?;
    // A foreign database of that name does not prove that the tenant's was dropped, unless the tenant never had one.
    if dropped == Dropped::NotOurs && row.activated_at.is_some() {
        return Err(StepError::Postgres(Error::Conflict {
            kind: "database",
            name: row.placement.database.clone(),
            detail: "the tenant's own database does not exist, and was not dropped".into(),
        }));
    }
    step.replace_record(step.context.registry.record_database_exists(row.id, false).await?.record);
    Ok(())
}
