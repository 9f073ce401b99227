//! PublishDatabase: renames the database to its final name, as the last step of building it. A database of that name without
//! the tenant's ownership comment is a conflict, and is left as it is.

use crate::controller::tenant::{failure::StepError, step_context::StepContext};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let row = step.row()?;
    Ok(step.server()?.publish_database(&row.placement).await?)
}
