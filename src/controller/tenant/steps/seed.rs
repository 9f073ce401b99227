//! Seed: writes settings, then admins and demo data in one transaction, as the migrator's login. In a new database the plan's
//! limits come first, and apply to the admins too. Each admin without an account gets a one-time credential: its plain text
//! is in the Secret `<name>-admin` before its hash is in the database, so that an interrupted run never leaves a hash without
//! its plain text.

use crate::{
    controller::tenant::{admin_secret::AdminCredentials, failure::StepError, step_context::StepContext},
    domain::{usage::entitlements::STORAGE_BYTES, workflow::step::Step},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let desired = step.desired()?.clone();
    let row = step.row()?;
    let id = row.id;
    let credentials = AdminCredentials::prepare(step.context, step.tenant(), row, &desired).await?;
    // A new clone is not larger than its template.
    let new = step.progress.has_done(Step::CreateDatabase);
    let cloned = new.then(|| (STORAGE_BYTES.to_owned(), 0));
    let limits = if new { Some(step.entitlements()?.clone()) } else { None };
    let row = step.row()?;
    let outcome = step.server()?.seed(&row.placement, &credentials.seed(&desired), limits.as_ref()).await?;
    credentials.retain_issued(&outcome.offered, step.context, step.tenant(), row, &desired).await?;
    let digest = desired.seed_digest();
    let now = step.context.clock.now();
    let mut usage = outcome.usage;
    usage.extend(cloned);
    let seeded = step.context.registry.record_seed(id, &digest, &usage, now).await?;
    step.context.state.usage_recorded.add(id);
    step.progress.seeded_limits = limits;
    step.replace_record(seeded.record);
    Ok(())
}
