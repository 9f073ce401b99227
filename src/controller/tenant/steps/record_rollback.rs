//! RecordRollback: what a failed first provisioning made is gone, and the registry says so. Last of all steps of a
//! rollback. The tenant stays `failed` until something changes.

use serde_json::json;

use super::{Run, StepError};
use crate::domain::access::AccessLevel;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let (id, correlation) = (run.row()?.id, run.correlation()?);
    run.context.registry.rolled_back(id, correlation).await?;
    let row = run.row_mut()?;
    (row.rolling_back, row.database_exists, row.access) = (false, false, Some(AccessLevel::Blocked));
    (row.password_verifier, row.password_digest, row.seed_digest) = (None, None, None);
    (row.module_versions, row.entitlements) = (json!({}), None);
    Ok(())
}
