//! CreateRoles: creates the tenant's login, without LOGIN and without a password, with its ownership comment. A role of that
//! name with another owner is a conflict, and is left as it is. A login that was renamed gets its name back.

use crate::controller::tenant::{failure::StepError, step_context::StepContext};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    step.restore_ownership(step.server()?).await?;
    Ok(step.server()?.create_login(&step.row()?.placement).await?)
}
