//! Records the changes of a Tenant's spec in the activity log, each with its user: once, when the operator first sees them,
//! whether or not they lead to any work.

use uuid::Uuid;

use super::failure::StepError;
use crate::{
    controller::{actors::recorded_changes, context::Context},
    domain::{
        declaration::{Before, ChangeRow, Declaration, change_rows},
        observed::RegistryStatus,
        subject::Subject,
        workflow::ObjectState,
    },
};

/// What a new Tenant declares, and the rows about its creation.
pub fn new_declaration(subject: &Subject<'_>, context: &Context) -> (Declaration, Vec<ChangeRow>) {
    let declaration = Declaration::of(subject.declared, &context.installation.digest_key, None);
    let rows = change_rows(Before::Nothing, &declaration, subject.declared, &subject.changes);
    (declaration, rows)
}

/// Records the changes that are not on record, if there are any: one statement.
pub async fn record_changes(
    subject: &mut Subject<'_>,
    correlation: Option<Uuid>,
    context: &Context,
) -> Result<(), StepError> {
    let tenant = subject.declared;
    let Some(row) = &subject.record else { return Ok(()) };
    let before = match &row.declaration {
        Some(recorded) if recorded.includes(&tenant.metadata) => return Ok(()),
        Some(recorded) => Before::Recorded(recorded),
        // Registered by an earlier release.
        None => match (subject.object.state, subject.previous.observed_generation) {
            (ObjectState::Present, Some(seen)) if seen > 0 && Some(seen) < tenant.metadata.generation => {
                Before::NotRecorded(seen)
            }
            _ => return Ok(()),
        },
    };
    if subject.object.state == ObjectState::Deleted || row.status == RegistryStatus::Deprovisioned {
        return Ok(());
    }
    let declaration = Declaration::of(tenant, &context.installation.digest_key, row.declaration.as_ref());
    subject.changes = recorded_changes(tenant, context).await;
    let rows = change_rows(before, &declaration, tenant, &subject.changes);
    // A deletion raises the generation too.
    if rows.is_empty() {
        return Ok(());
    }
    context.state.snapshot.forget(&row.resource_uid);
    let recorded = context.registry.record_declaration(row, &declaration, &rows, correlation).await?;
    subject.record = Some(recorded.ok_or(StepError::Changed("the registry row"))?);
    Ok(())
}
