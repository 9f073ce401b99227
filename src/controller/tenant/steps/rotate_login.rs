//! RotateLogin: records that the tenant gets its other login, which the steps after it create and publish. The login so far is
//! the previous one from then on: it keeps its password and its rights until the new credentials are published and the overlap
//! is over. A role of another owner under the name of the other login ends the step, before anything is changed.

use crate::{
    controller::tenant::{failure::StepError, step_context::StepContext},
    domain::names::next_login_name,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (server, row, correlation) = (step.server()?, step.row()?, step.correlation()?);
    let next = next_login_name(&row.placement.database, &row.placement.login);
    server.check_login(&row.placement.with_login(&next)).await?;
    let begun = step.context.registry.begin_rotation(row.id, &next, correlation).await?;
    step.replace_record(begun.record);
    Ok(())
}
