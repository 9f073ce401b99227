//! DropRoles: drops the tenant's logins, only with their ownership comments, also under other names. They own no objects, so
//! nothing blocks the drop.

use crate::{
    controller::tenant::{failure::StepError, purge_guard::pass_deadline, step_context::StepContext},
    domain::tenant_facts::RecordedOids,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    pass_deadline(step).await?;
    let (server, row) = (step.server()?, step.row()?);
    server.drop_strays(&row.placement, RecordedOids::of(row)).await?;
    server.drop_other_logins(&row.placement).await?;
    Ok(server.drop_login(&row.placement).await?)
}
