//! Gives a tenant the slug of its spec: its row, an Event, and the Tenants that wait for one of both slugs. Nothing else has the
//! slug: the database, its logins and the Secrets keep their names.

use kube::Resource;

use super::{failure::StepError, step_context::StepContext};
use crate::{
    api::reason::Reason,
    controller::watch::requeue::requeue_tenants_with_slug,
    domain::{record::TenantRecord, slug::Slug, state_reason::reason_of_slug},
    registry::{SlugChange, SlugChanged},
};

/// Changes the slug. Returns the row of the tenant that has the new one, or had it before, if there is one: nothing is changed
/// then.
pub async fn change_slug(
    step: &mut StepContext<'_, '_>,
    to: &Slug,
) -> Result<Option<Box<TenantRecord>>, StepError> {
    let (row, correlation) = (step.row()?, step.correlation()?);
    let (id, uid, from) = (row.id, row.resource_uid.clone(), row.slug.clone());
    let changes = &step.subject.changes;
    let reason = reason_of_slug(&step.tenant().spec, changes);
    let actor = changes.last(&["slug"]).to_string();
    let change = SlugChange { from: &from, to, actor: &actor, reason, correlation: Some(correlation) };
    let changed = match step.context.registry.change_slug(id, &change).await? {
        SlugChanged::Changed(row) => row,
        SlugChanged::Taken(owner) => return Ok(Some(owner)),
        SlugChanged::Outdated => return Err(StepError::Changed("the registry row")),
    };
    step.replace_record(*changed);
    let note =
        format!("the slug is {to}, and was {from}, which stays reserved for this tenant; changed by {actor}");
    let about = step.tenant().object_ref(&());
    step.context.events.normal(about, "ChangeSlug", Reason::SlugChanged, note);
    // They say who has it.
    for slug in [from.as_str(), to.as_str()] {
        requeue_tenants_with_slug(slug, &uid, step.context);
    }
    Ok(None)
}
