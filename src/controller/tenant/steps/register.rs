//! Register: reserves the slug, by the registry's unique index, and fixes the names of the tenant's database. A Tenant whose
//! slug is taken stops here, before anything is created. An existing row is updated with what the spec declares.

use kube::{Resource, ResourceExt};

use crate::{
    api::reason::Reason,
    controller::tenant::{declaration::new_declaration, failure::StepError, step_context::StepContext},
    domain::{access::gates::open, names::DatabaseNaming, slug_owner::describe_owner},
    registry::{Declared, NewTenant, Registration},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let desired = step.desired()?.clone();
    let plan = step.access()?.plan.clone();
    if let Some(row) = &step.subject.record {
        let (name, retain, gates) = (desired.display_name, desired.retain, step.access()?.gates.clone());
        let done = !gates.is_empty() && open(&gates).is_empty();
        let gates_done_at = row.gates_done_at.or(done.then(|| step.context.clock.now()));
        let by = step.subject.changes.last(&["gates"]).to_string();
        let declared = Declared {
            name: &name,
            settings: &desired.settings,
            retain,
            gates: &gates,
            gates_done_at,
            gates_changed_by: &by,
        };
        step.replace_record(step.context.registry.update_declared(row.id, &declared).await?.record);
        return Ok(());
    }
    // A Tenant with `state: Deprovisioned` takes nothing over.
    let adopt = step.tenant().spec.adopt.as_ref().filter(|_| !step.subject.is_deprovisioning());
    let naming = match adopt {
        Some(adopt) => DatabaseNaming::Existing { database: adopt.database.clone() },
        None => step.context.naming_on(&desired.server),
    };
    let (declaration, created) = new_declaration(step.subject, step.context);
    let new = NewTenant {
        slug: desired.slug.clone(),
        name: desired.display_name,
        plan,
        settings: desired.settings,
        server: desired.server,
        naming,
        resource_namespace: step.namespace(),
        resource_name: step.tenant().name_any(),
        resource_uid: step.tenant().uid().unwrap_or_default(),
        retain: desired.retain,
        actor: step.subject.changes.creator().to_string(),
        declaration,
        created,
        correlation: None,
    };
    match step.context.registry.register(&new).await? {
        Registration::Created { row, former } => {
            step.replace_record(row);
            if let Some(former) = former {
                let note = former.describe(desired.slug.as_str());
                let about = step.tenant().object_ref(&());
                step.context.events.warning(about, "Register", Reason::SlugReused, note);
            }
            Ok(())
        }
        Registration::Existing(row) => {
            step.replace_record(row);
            Ok(())
        }
        Registration::SlugTaken(owner) => Err(StepError::SlugTaken(describe_owner(&owner, &desired.slug))),
    }
}
