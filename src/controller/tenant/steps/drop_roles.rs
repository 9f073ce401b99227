//! DropRoles: drops the tenant's login, only with its ownership comment. It owns no objects, so nothing blocks the drop.

use crate::controller::tenant::{failure::StepError, purge_guard::pass_deadline, step_context::StepContext};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    pass_deadline(step).await?;
    Ok(step.server()?.drop_login(&step.row()?.placement).await?)
}
