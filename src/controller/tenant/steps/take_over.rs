//! TakeOver: makes a database that existed before the tenant its own. Until it has the ownership comment, it is read again and
//! compared with what was confirmed; what it was is recorded before anything is changed. From the comment on, an
//! interrupted run is continued. Nothing in it is dropped; until the tenant is active, GiveBack undoes it.

use crate::{
    controller::tenant::{
        failure::StepError,
        step_context::StepContext,
        takeover::{baseline, inspect, modules},
    },
    domain::{observed::Takeover, takeover::Former, tenant_facts::Ownership},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    if step.row()?.takeover != Some(Takeover::Pending) {
        return Ok(());
    }
    let (context, server) = (step.context, step.server()?);
    let adopt = step.tenant().spec.adopt.clone().ok_or(StepError::AdoptRemoved)?;
    let modules = modules(step.subject, context);
    let baseline = baseline(&adopt, &modules)?;
    let (id, placement) = (step.row()?.id, step.row()?.placement.clone());
    if server.ownership_of_database(&placement).await? != Some(Ownership::Ours) {
        let inspection = inspect(step.subject, &adopt, server, Some(&placement), context).await?;
        step.progress.adoption = inspection.status;
        if let Some(refusal) = inspection.refusal {
            return Err(StepError::NotAdopted(refusal));
        }
        let found = inspection.found.ok_or(StepError::Missing("the database in spec.adopt"))?;
        let (until, now) = (adopt.keep_login.as_ref().map(|kept| kept.until.0), context.clock.now());
        let by = step.subject.changes.last(&["adopt"]).to_string();
        let begun = context.registry.begin_takeover(id, &Former::of(&found), until, now, &by).await?;
        step.replace_record(begun);
        server.claim_database(&placement, &found).await?;
    }
    server.transfer_database(&placement, &modules, &baseline).await?;
    step.replace_record(context.registry.finish_takeover(id, &baseline).await?);
    Ok(())
}
