//! CreateDatabase: a clone of the migrated template, under the building name, closed to everybody. No migration runs
//! for a new tenant: it has the template's.

use super::{Run, StepError};
use crate::controller::tenant::observe::versions;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let id = run.row()?.id;
    let server = run.server()?;
    let template = server.ensure_template(&run.context.modules).await?;
    server.create_database(id, &template).await?;
    let versions = versions(&run.context.modules);
    run.context.registry.set_modules(id, &versions).await?;
    run.row_mut()?.module_versions = versions;
    Ok(())
}
