//! ChangeSlug: the tenant has the slug of its spec, and its former one stays reserved for it. Only the registry has slugs: the
//! database, its logins and the Secrets keep their names. If another tenant has the slug, or had it before, this one keeps its
//! own, and whatever else its spec asks for is done.

use crate::{
    controller::tenant::{failure::StepError, slug_change::change_slug, step_context::StepContext},
    domain::slug_owner::describe_refusal,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let to = step.desired()?.slug.clone();
    match change_slug(step, &to).await? {
        None => Ok(()),
        Some(owner) => Err(StepError::SlugTaken(describe_refusal(&owner, &to, &step.row()?.slug))),
    }
}
