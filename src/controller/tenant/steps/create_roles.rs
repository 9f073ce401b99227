//! CreateRoles: the tenant's login, without LOGIN and without a password, marked as the tenant's. A role of that name
//! that is somebody else's is a conflict, and stays as it is.

use super::{Run, StepError};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    Ok(run.server()?.create_login(run.row()?.id, &run.login()?).await?)
}
