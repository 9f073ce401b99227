//! Seed: writes settings, then admins and demo data in one transaction, as the migrator's login. In a new database the plan's
//! limits come first, and apply to the admins too. Each admin without an account gets a one-time credential: its plain text
//! is in the Secret `<name>-admin` before its hash is in the database, so that an interrupted run never leaves a hash without
//! its plain text. If only that Secret was lost, changed or expired, the rest stays as the application has it.

use kube::Resource;

use crate::{
    api::reason::Reason,
    controller::tenant::{admin_secret::AdminCredentials, failure::StepError, step_context::StepContext},
    domain::{
        seed_record::SeedRecord, spec::DesiredTenant, usage::entitlements::STORAGE_BYTES,
        workflow::step::Step,
    },
    postgres,
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
    let outcome = step.server()?.seed(&row.placement, &credentials.seed(&desired), limits.as_ref()).await;
    let outcome = outcome.map_err(|error| refusal(error, &desired))?;
    let renews = credentials.renews();
    let issued =
        credentials.retain_issued(&outcome.offered, step.context, step.tenant(), row, &desired).await?;
    let digest = SeedRecord { digest: desired.seed_digest(), issued }.to_string();
    let now = step.context.clock.now();
    let mut usage = outcome.usage;
    usage.extend(cloned);
    let seeded = step.context.registry.record_seed(id, &digest, &usage, now).await?;
    step.context.state.usage_recorded.add(id);
    step.progress.seeded_limits = limits;
    step.replace_record(seeded.record);
    if renews && !outcome.offered.is_empty() {
        let note = format!(
            "Secret {:?} was lost, changed, or not used before it expired: it holds new credentials for {}, earlier ones do not work",
            desired.admin_secret,
            outcome.offered.join(", "),
        );
        let about = step.tenant().object_ref(&());
        step.context.events.warning(about, "Seed", Reason::AdminSecretReplaced, note);
    }
    Ok(())
}

/// A refusal by a limit names the field that asks for too much.
fn refusal(error: postgres::Error, desired: &DesiredTenant) -> StepError {
    match error {
        source @ postgres::Error::LimitReached { .. } => StepError::AdminsOverLimit {
            admins: desired.admins.len(),
            plan: desired.plan.clone(),
            source: Box::new(source),
        },
        other => other.into(),
    }
}
