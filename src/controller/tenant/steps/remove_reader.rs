//! RemoveReader: ends the reader login of a tenant that does not ask for one any more: takes LOGIN, group and CONNECT from it,
//! ends its sessions, and proves that none is left; then drops the role and deletes its Secret. Only then does the registry
//! forget it. The login and its sessions stay.

use super::remove_secrets::delete;
use crate::{
    controller::tenant::{
        failure::StepError,
        secrets::{self, Found},
        step_context::StepContext,
    },
    domain::spec,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let Some(reader) = step.row()?.placement.of_reader_login() else { return Ok(()) };
    let server = step.server()?.for_restriction();
    step.restore_ownership(&server).await?;
    let last_use = server.retire_login(&reader).await?;
    let (row, correlation, name) =
        (step.row()?, step.correlation()?, spec::reader_secret_name(step.tenant()));
    match secrets::find(step.context, &step.namespace(), &name, row).await {
        Ok(Found::Ours(secret)) => delete(step, secret.metadata).await?,
        Ok(Found::Absent) | Err(StepError::SecretConflict { .. }) => {}
        Err(error) => return Err(error),
    }
    let removed = step.context.registry.remove_reader(row.id, last_use.sessions, correlation).await?;
    step.replace_record(removed.record);
    Ok(())
}
