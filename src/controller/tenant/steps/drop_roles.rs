//! DropRoles: drops the tenant's login, only with its mark. It owns nothing, so nothing is in the way.

use super::{Run, StepError, pass_deadline};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    pass_deadline(run).await?;
    Ok(run.server()?.drop_login(run.row()?.id, &run.login()?).await?)
}
