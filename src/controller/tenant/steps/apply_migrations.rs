//! ApplyMigrations: brings a database that is behind to the target versions, as the migrator's own login. A database
//! that was just cloned is not behind, and is not even connected to.

use super::{Run, StepError};
use crate::controller::tenant::observe::versions;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    let modules = run.modules()?;
    let versions = versions(&modules);
    let row = run.row()?;
    if row.module_versions == versions {
        return Ok(());
    }
    run.changed();
    let (id, database) = (row.id, row.database_name.clone());
    run.server()?.migrate(id, &database, &modules).await?;
    run.context.registry.set_modules(id, &versions).await?;
    run.row_mut()?.module_versions = versions;
    Ok(())
}
