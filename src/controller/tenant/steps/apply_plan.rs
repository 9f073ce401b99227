//! ApplyPlan: puts the entitlements in force in PostgreSQL, then records them: the limits of the login, and the limits
//! in the tenant's database, which triggers enforce. A database that was created in this reconcile has its limits
//! from Seed. A change of the plan has one row in the activity log, with the old and the new entitlements; a tenant's
//! first plan has none. A limit below the current usage refuses growth, and nothing else. A connection limit that was
//! changed by hand is restored without a session in the tenant's database.

use crate::{
    controller::{
        actors::recorded_changes,
        tenant::{failure::StepError, step_context::StepContext},
    },
    domain::{
        attribution::Actor,
        usage::entitlements::{Amounts, Entitlements},
    },
    registry::NewPlan,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    step.restore_ownership(step.server()?).await?;
    let entitlements = step.entitlements()?.clone();
    let (row, correlation) = (step.row()?, step.correlation()?);
    let (id, context) = (row.id, step.context);
    let server = step.server()?;
    let limit_login = server.limit_login(&row.placement, entitlements.login_limits());
    let making = row.activated_at.is_none();
    if !making && row.entitlements.as_ref() == Some(&entitlements) {
        return Ok(limit_login.await?);
    }
    let usage = match step.progress.seeded_limits.as_ref() == Some(&entitlements) {
        // Seed recorded the usage.
        true => Amounts::new(),
        false => server.apply_limits(&row.placement, &entitlements).await?,
    };
    // Last: the drift check compares it with the recorded entitlements.
    limit_login.await?;
    let now = context.clock.now();
    let actor = changed_by(step, &entitlements).await?;
    let generation = step.tenant().metadata.generation;
    let new = NewPlan { entitlements: &entitlements, usage: &usage, at: now, actor: &actor, generation };
    step.replace_record(context.registry.record_entitlements(id, &new, correlation).await?.record);
    context.state.usage_recorded.add(id);
    Ok(())
}

/// Who caused the new entitlements: a user of the Tenant, of its account, or of its plan. A plan other than the spec's comes
/// into force at the end of a trial.
async fn changed_by(step: &StepContext<'_, '_>, new: &Entitlements) -> Result<String, StepError> {
    let row = step.row()?;
    if step.tenant().spec.plan != new.plan {
        return Ok(Actor::Tenantry.to_string());
    }
    let changes = &step.subject.changes;
    let renamed = row.entitlements.as_ref().is_some_and(|recorded| recorded.plan != new.plan);
    let granted = row.account.granted_plan(step.subject.declared);
    if let Some(granted) = granted.filter(|granted| renamed && granted.plan == new.plan) {
        return Ok(granted.by.clone());
    }
    if let Some(actor) = changes.of_entitlements(row.entitlements_generation, renamed) {
        return Ok(actor.to_string());
    }
    if let Some(user) = row.account.withdrawn_by.as_ref().filter(|_| renamed) {
        return Ok(user.clone());
    }
    let plan = step.context.plan(&new.plan).ok_or(StepError::Missing("the plan"))?;
    Ok(recorded_changes(plan.as_ref(), step.context).await.last_of_all().to_string())
}
