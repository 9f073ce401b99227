//! AdoptRow: writes a lost registry row again, for a Tenant whose annotation `tenantry.dev/adopt-row` has the id that its
//! status names. Its database must exist on the server that the status names, with that id in its ownership comment; nothing
//! on the server is changed. The annotation is removed first, so that it is used once. The tenant counts as activated.

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    api::{
        ANNOTATION_ADOPT_ROW,
        reason::Reason,
        tenant::{DeletionPolicy, Tenant},
    },
    controller::{
        state::servers::ServerState,
        tenant::{failure::StepError, step_context::StepContext},
    },
    domain::{
        access::holds::shown, identity::TenantId, names::login_name, placement::Placement, slug::Slug,
        slug_owner::describe_owner, tenant_facts::RecordedOids,
    },
    registry::{LostRow, Registration},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let lost = lost_row(step).await?;
    let (tenant, context, now) = (step.tenant(), step.context, step.context.clock.now());
    // With the uid: an object that was created again since has its own annotations.
    let none = json!({"metadata": {"uid": tenant.uid(), "annotations": {ANNOTATION_ADOPT_ROW: null}}});
    Api::<Tenant>::namespaced(context.client.clone(), &step.namespace())
        .patch_metadata(&tenant.name_any(), &PatchParams::default(), &Patch::Merge(none))
        .await?;
    let row = match context.registry.adopt_row(&lost, now).await? {
        Registration::Created { row, .. } | Registration::Existing(row) => row,
        Registration::SlugTaken(owner) => return Err(StepError::SlugTaken(describe_owner(&owner))),
    };
    let note = format!(
        "the registry has a row for tenant {} again, with database {:?}, and the holds that its status and its TenantHolds show: check them",
        row.id, row.placement.database
    );
    context.events.warning(tenant.object_ref(&()), "AdoptRow", Reason::RegistryBehind, note);
    step.replace_record(row);
    step.evaluate();
    Ok(())
}

/// The row, from the Tenant and from what its server has.
async fn lost_row(step: &StepContext<'_, '_>) -> Result<LostRow, StepError> {
    let (tenant, status) = (step.tenant(), &step.subject.previous);
    let refuse = |why: String| StepError::RowNotAdopted { why };
    let unnamed = || refuse("the status of the Tenant does not name its id, server and database".into());
    let id = status.tenant_id.as_deref().and_then(|id| uuid::Uuid::try_parse(id).ok()).ok_or_else(unnamed)?;
    let (server, database) = status.server.clone().zip(status.database.clone()).ok_or_else(unnamed)?;
    let ServerState::Ready(handle) = step.context.state.servers.get(&server) else {
        return Err(refuse(format!("DatabaseServer {server:?} is not Ready")));
    };
    let login = login_name(&database);
    let placement =
        Placement { tenant: TenantId(id), server, database, schema: status.schema.clone(), login };
    let facts = handle.observe_recorded(&placement, RecordedOids::default()).await?;
    let Placement { server, database, login, .. } = &placement;
    let Some(found) = &facts.database else {
        return Err(refuse(format!("DatabaseServer {server:?} has no database {database:?}")));
    };
    if !found.ownership.is_ours() {
        let whose = found.ownership.describe();
        return Err(refuse(format!("database {database:?} is not that of tenant {id}: {whose}")));
    }
    if let Some(role) = facts.login.as_ref().filter(|role| !role.ownership.is_ours()) {
        let whose = role.ownership.describe();
        return Err(refuse(format!("role {login:?} is not that of tenant {id}: {whose}")));
    }
    let (database_oid, login_oid) = (found.oid, facts.login.as_ref().map(|role| role.oid));
    let slug = Slug::parse(&tenant.spec.slug).map_err(|error| refuse(error.to_string()))?;
    Ok(LostRow {
        placement,
        slug,
        name: tenant.spec.display_name.clone(),
        plan: status.plan.clone().unwrap_or_else(|| tenant.spec.plan.clone()),
        database_oid,
        login_oid,
        resource_namespace: step.namespace(),
        resource_name: tenant.name_any(),
        resource_uid: tenant.uid().unwrap_or_default(),
        holds: status.holds.iter().filter_map(|hold| shown(hold, step.context.clock.now())).collect(),
        retain: tenant.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Retain,
    })
}
