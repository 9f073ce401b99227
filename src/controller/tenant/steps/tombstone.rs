//! Tombstone: records `deprovisioning`, why, and when the database may be dropped. Written before anything is dropped, so
//! that an interrupted run is finished and not restarted. While the object exists, changed terms are recorded here too; the
//! grace period is never restarted.

use crate::{
    controller::{
        tenant::{failure::StepError, plan::policy, slug_change::change_slug, step_context::StepContext},
        watch::requeue::requeue_tenants_with_slug,
    },
    domain::{
        access::AccessLevel, attribution::OFFBOARDING_FIELDS, observed::RegistryStatus, slug::Slug,
        workflow::step::Step,
    },
    registry::Tombstone,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    rename(step).await?;
    let offboarding = policy(step.subject, step.context);
    let now = step.context.clock.now();
    let row = step.row()?;
    let (id, began) = (row.id, row.deprovisioned_at.unwrap_or(now));
    let terms = offboarding.terms(began, row.activated_at.is_some(), row.terms());
    let correlation = step.correlation()?;
    if row.status == RegistryStatus::Deprovisioning {
        let by = step.subject.changes.last(&OFFBOARDING_FIELDS).to_string();
        step.replace_record(step.context.registry.change_terms(id, terms, &by, correlation).await?.record);
        step.context.state.breaker.request_count();
    } else {
        let tombstone = Tombstone {
            reason: offboarding.reason,
            trigger: offboarding.trigger,
            at: began,
            terms,
            actor: step.subject.deprovisioned_by().to_string(),
            generation: step.tenant().metadata.generation,
        };
        let begun = step.context.registry.begin_deprovisioning(id, &tombstone, Some(correlation)).await?;
        step.replace_record(begun.record);
        step.context.state.breaker.request_count();
    }
    // Tenants that want the slug show the tombstone, and until when the data is kept.
    requeue_tenants_with_slug(&step.row()?.slug, &step.row()?.resource_uid, step.context);
    if !step.progress.has_done(Step::CutAccess) && step.row()?.access != Some(AccessLevel::Blocked) {
        // Access has to be revoked, and that is not verified yet.
        step.replace_record(step.context.registry.set_access(id, None).await?.record);
    }
    Ok(())
}

/// Records a change of the slug that was made before the deletion and not seen: the same Tenant, applied again, has that slug.
/// One that another tenant has does not delay the deletion.
async fn rename(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (row, wanted) = (step.row()?, &step.tenant().spec.slug);
    let is_due = row.slug != *wanted && row.activated_at.is_some() && row.purge_started_at.is_none();
    if let (true, Ok(to)) = (is_due, Slug::parse(wanted)) {
        change_slug(step, &to).await?;
    }
    Ok(())
}
