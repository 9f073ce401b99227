//! CreateDatabase: a clone of the migrated template, under the building name, closed to everybody. No migration runs
//! for a new tenant: it has the template's.

use super::{Run, StepError};
use crate::controller::tenant::observe::versions;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let id = run.row()?.id;
    let server = run.server()?;
    let modules = run.modules()?;
    let template = server.ensure_template(&modules).await?;
    // Recorded before it is made: a database that is there is never one that the registry does not know of.
    run.context.registry.database_exists(id, true).await?;
    // What is recorded of another one's contents, which was lost while it was being built, is not in this one.
    let row = run.row()?;
    if row.seed_digest.is_some() || row.entitlements.is_some() {
        run.context.registry.forget_contents(id).await?;
    }
    server.create_database(id, &template).await?;
    let versions = versions(&modules);
    run.context.registry.set_modules(id, &versions).await?;
    let row = run.row_mut()?;
    (row.module_versions, row.database_exists) = (versions, true);
    (row.seed_digest, row.entitlements) = (None, None);
    Ok(())
}
