//! PublishDatabase: the last rename. From here on the database has its final name; a database of that name without
//! the tenant's mark is a conflict, and stays as it is.

use super::{Run, StepError};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let row = run.row()?;
    Ok(run.server()?.publish_database(row.id, &row.database_name).await?)
}
