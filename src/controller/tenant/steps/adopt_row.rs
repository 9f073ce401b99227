//! AdoptRow: gives a row to a Tenant whose annotation `tenantry.dev/adopt-row` has the id that its status names. The annotation
//! is removed first, so that it is used once; nothing on the server is changed. The step does one of two things:
//!
//! - It writes a lost row again. The tenant's database must exist on the server that the status names, with that id in its
//!   ownership comment, and no other Tenant that id in its status. The row of an earlier tenant of that slug, of which nothing is left, is closed. The tenant counts as
//!   activated.
//! - It takes the row over from another Tenant of the namespace, which does not exist: the registry is older than a move.

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
        tenant::{
            adoption::{check_elsewhere, check_unclaimed, superseded_rows},
            failure::StepError,
            step_context::StepContext,
        },
    },
    domain::{
        access::holds::shown, identity::TenantId, names::login_name, placement::Placement,
        record::TenantRecord, slug::Slug, slug_owner::describe_owner, tenant_facts::RecordedOids,
    },
    registry::{LostRow, Registration},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (row, note) = match step.subject.elsewhere.clone() {
        Some(row) => take_over(step, &row).await?,
        None => write_again(step).await?,
    };
    let context = step.context;
    context.events.warning(step.tenant().object_ref(&()), "AdoptRow", Reason::RegistryBehind, note);
    context.stores.scopes.requeue_holds_of(step.tenant());
    step.subject.elsewhere = None;
    step.replace_record(row);
    step.evaluate();
    Ok(())
}

async fn take_over(
    step: &StepContext<'_, '_>,
    row: &TenantRecord,
) -> Result<(TenantRecord, String), StepError> {
    check_elsewhere(step, row).await?;
    remove_annotation(step).await?;
    let tenant = step.tenant();
    let (namespace, name, uid) = (step.namespace(), tenant.name_any(), tenant.uid().unwrap_or_default());
    let taken = step.context.registry.take_over(row, &namespace, &name, &uid).await?;
    let taken = taken.ok_or(StepError::Changed("the registry row"))?;
    let note = format!(
        "the registry records tenant {} as that of this Tenant, and no longer as that of {}/{}: check its holds",
        row.id, row.resource_namespace, row.resource_name
    );
    Ok((taken, note))
}

async fn write_again(step: &StepContext<'_, '_>) -> Result<(TenantRecord, String), StepError> {
    let lost = lost_row(step).await?;
    check_unclaimed(step, lost.placement.tenant).await?;
    let superseded = superseded_rows(step, &lost).await?;
    remove_annotation(step).await?;
    let (registry, now) = (&step.context.registry, step.context.clock.now());
    let row = match registry.adopt_row(&lost, &superseded, now).await? {
        Registration::Created { row, .. } | Registration::Existing(row) => row,
        Registration::SlugTaken(owner) => {
            return Err(StepError::SlugTaken(describe_owner(&owner, &lost.slug)));
        }
    };
    let closed: Vec<String> = superseded.iter().map(|row| row.id.to_string()).collect();
    let closed = match closed.is_empty() {
        true => String::new(),
        false => format!("; the row of the former tenant with this slug is closed: {}", closed.join(", ")),
    };
    let note = format!(
        "the registry has a row for tenant {} again, with database {:?}, and the holds that its status and its TenantHolds show: check them{closed}",
        row.id, row.placement.database
    );
    Ok((row, note))
}

async fn remove_annotation(step: &StepContext<'_, '_>) -> Result<(), kube::Error> {
    let tenant = step.tenant();
    // With the uid: an object that was created again since has its own annotations.
    let none = json!({"metadata": {"uid": tenant.uid(), "annotations": {ANNOTATION_ADOPT_ROW: null}}});
    Api::<Tenant>::namespaced(step.context.client.clone(), &step.namespace())
        .patch_metadata(&tenant.name_any(), &PatchParams::default(), &Patch::Merge(none))
        .await?;
    Ok(())
}

/// The row, from the Tenant and from what its server has.
async fn lost_row(step: &StepContext<'_, '_>) -> Result<LostRow, StepError> {
    let (tenant, status) = (step.tenant(), &step.subject.previous);
    let refuse = |why: String| StepError::RowNotAdopted { why, is_lost: true };
    let unnamed = || refuse("the status of the Tenant does not name its id, server and database".into());
    let id = status.tenant_id.as_deref().and_then(|id| uuid::Uuid::try_parse(id).ok()).ok_or_else(unnamed)?;
    let (server, database) = status.server.clone().zip(status.database.clone()).ok_or_else(unnamed)?;
    let ServerState::Ready(handle) = step.context.state.servers.get(&server) else {
        return Err(refuse(format!("DatabaseServer {server:?} is not Ready")));
    };
    // A rotation of the credentials may have given it the other of its two names.
    let credentials = status.credentials.as_ref();
    let login = credentials.and_then(|found| found.login.clone()).unwrap_or_else(|| login_name(&database));
    let placement = Placement {
        tenant: TenantId(id),
        server,
        database,
        schema: status.schema.clone(),
        login,
        previous_login: None,
        reader_login: None,
    };
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
