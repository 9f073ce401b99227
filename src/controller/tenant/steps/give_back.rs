//! GiveBack: undoes the takeover of a database whose tenant was never active: owners, and who may connect, are as before, and
//! the schema `tenantry` is dropped. The database itself never is. What cannot be given back to its former owner is left
//! closed and without an ownership comment, with an Event. `purge_guard` runs before it.

use kube::Resource;

use crate::{
    api::reason::Reason,
    controller::tenant::{failure::StepError, purge_guard::pass_deadline, step_context::StepContext},
    postgres::tenant::give_back::GivenBack,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    pass_deadline(step).await?;
    let row = step.row()?;
    if row.takeover.is_none() || row.activated_at.is_some() {
        return Err(StepError::Changed("the recorded status of the tenant"));
    }
    let (id, placement) = (row.id, row.placement.clone());
    if let Some(former) = step.context.registry.former_database(id).await? {
        let given = step.server()?.give_back(&placement, &former).await?;
        if given == GivenBack::Left {
            let note = format!(
                "database {:?} could not be given back to {:?}, which owned it: it is kept, closed; an administrator gives it an owner, and the right to connect",
                placement.database, former.owner
            );
            let about = step.tenant().object_ref(&());
            step.context.events.warning(about, "GiveBack", Reason::DatabaseKept, note);
        }
    }
    step.replace_record(step.context.registry.record_given_back(id).await?);
    Ok(())
}
