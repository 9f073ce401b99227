//! What must be true before a row is written again or given to another Tenant, because a person asked for it by annotation: no
//! tenant that may still be in use loses anything.

use kube::ResourceExt;

use super::{
    claims::find_claims,
    failure::StepError,
    object_match::{find_tenant, is_object_of},
    step_context::StepContext,
};
use crate::{
    controller::state::servers::ServerState,
    domain::{
        identity::TenantId,
        named_row::describe_other_namespace,
        observed::RegistryStatus,
        record::TenantRecord,
        tenant_facts::{Ownership, RecordedOids},
    },
    registry::LostRow,
};

/// Why a row is not adopted, with the reason that the Tenant shows now.
fn refuse<T>(step: &StepContext<'_, '_>, why: String) -> Result<T, StepError> {
    Err(StepError::RowNotAdopted { why, is_lost: step.subject.elsewhere.is_none() })
}

/// Whether the row may be taken over from the Tenant that it names: that one does not exist, and a person has not moved the
/// tenant away from this one.
pub async fn check_elsewhere(step: &StepContext<'_, '_>, row: &TenantRecord) -> Result<(), StepError> {
    let owner = format!("{}/{}", row.resource_namespace, row.resource_name);
    let tenant = step.tenant();
    if tenant.spec.slug != row.slug {
        return refuse(step, format!("tenant {} of Tenant {owner} has the slug {:?}", row.id, row.slug));
    }
    // Who may annotate Tenants in one namespace must not get the data of another.
    if row.resource_namespace != step.namespace() {
        return refuse(step, describe_other_namespace(row, tenant));
    }
    if matches!(row.status, RegistryStatus::Deprovisioning | RegistryStatus::Deprovisioned) {
        let status = row.status.as_str();
        return refuse(
            step,
            format!(
                "tenant {} of Tenant {owner} is {status}: only move_tenant() in the registry moves a tombstone",
                row.id
            ),
        );
    }
    refuse_existing_owner(step, row).await?;
    let (namespace, name) = (step.namespace(), tenant.name_any());
    if step.context.registry.was_moved_from(row.id, &namespace, &name).await? {
        return refuse(
            step,
            format!(
                "tenant {} was moved away from this Tenant: apply and delete Tenant {owner}, then use move_tenant() in the registry",
                row.id
            ),
        );
    }
    Ok(())
}

/// Refuses if another Tenant has the id of a lost row in its status, even one that is being deleted: no row says whose the
/// data is, so that a person has to.
pub async fn check_unclaimed(step: &StepContext<'_, '_>, id: TenantId) -> Result<(), StepError> {
    let claims = find_claims(step.context, id).await?;
    let (namespace, name) = (step.namespace(), step.tenant().name_any());
    let others = claims.elsewhere(id, &namespace, &name);
    let others: Vec<String> = others.map(|claim| format!("{}/{}", claim.namespace, claim.name)).collect();
    match others.is_empty() {
        true => Ok(()),
        false => refuse(
            step,
            format!(
                "Tenant {} has the id {id} in its status too: find out whose it is, and delete the other; if it is being deleted, remove its finalizer",
                others.join(", ")
            ),
        ),
    }
}

/// The rows that block a lost one, if each may be closed: it is from before the lost tenant was registered, and has neither
/// a Tenant nor anything on its server any more.
pub async fn superseded_rows(
    step: &StepContext<'_, '_>,
    lost: &LostRow,
) -> Result<Vec<TenantRecord>, StepError> {
    let rows = step.context.registry.blocking_rows(lost).await?;
    for row in &rows {
        let owner = format!("tenant {} of Tenant {}/{}", row.id, row.resource_namespace, row.resource_name);
        if row.slug != lost.slug.as_str() || row.status == RegistryStatus::Deprovisioned {
            let (slug, status) = (&row.slug, row.status.as_str());
            let has = match row.placement.database == lost.placement.database {
                true => "has its database name",
                false => "had the slug before",
            };
            return refuse(step, format!("{owner} ({status}, slug {slug:?}) {has}"));
        }
        refuse_existing_owner(step, row).await?;
        if let Some(holds) = row.legal_holds() {
            return refuse(step, format!("{owner} has the slug, and {holds}: lift that first"));
        }
        let server = &row.placement.server;
        let ServerState::Ready(handle) = step.context.state.servers.get(server) else {
            let why = format!("{owner} has the slug, and its DatabaseServer {server:?} is not Ready");
            return refuse(step, why);
        };
        let facts = handle.observe_recorded(&row.placement, RecordedOids::of(row)).await?;
        let databases = [facts.database, facts.building].into_iter().flatten();
        let mut left: Vec<String> = databases
            .filter(|database| match database.ownership {
                Ownership::Ours => true,
                Ownership::OtherTenant(_) => false,
                // Its comment may be lost.
                Ownership::NoComment | Ownership::OtherComment => row.database_oid == Some(database.oid),
            })
            .map(|database| format!("database {:?}", database.name))
            .collect();
        let login = facts.login.filter(|login| login.ownership.is_ours());
        left.extend(login.map(|_| format!("role {:?}", row.placement.login)));
        left.extend(facts.strays.iter().map(|stray| format!("role {:?}", stray.name)));
        if !left.is_empty() {
            let left = left.join(", ");
            return refuse(
                step,
                format!(
                    "{owner} has the slug, and still has {left} on DatabaseServer {server:?}: save what is needed of it, and drop it"
                ),
            );
        }
    }
    Ok(rows)
}

/// Refuses if the row's own Tenant exists, or another one than this has its id in its status and is in use. The API server is
/// asked, since a store may be behind.
async fn refuse_existing_owner(step: &StepContext<'_, '_>, row: &TenantRecord) -> Result<(), StepError> {
    let context = step.context;
    let (namespace, name) = (&row.resource_namespace, &row.resource_name);
    let found = find_tenant(&context.client, namespace, name).await?;
    let other = found.filter(|found| {
        found.uid() != step.tenant().uid() && is_object_of(found, &row.resource_uid, &row.slug)
    });
    if other.is_some() {
        let id = row.id;
        return refuse(step, format!("Tenant {namespace}/{name}, which has tenant {id}, exists: delete it"));
    }
    let claims = find_claims(context, row.id).await?;
    if let Some(claim) = claims.in_use_elsewhere(row.id, &step.namespace(), &step.tenant().name_any()) {
        let claim = format!("{}/{}", claim.namespace, claim.name);
        return refuse(step, format!("Tenant {claim} has the id {} in its status too: delete it", row.id));
    }
    Ok(())
}
