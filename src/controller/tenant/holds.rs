//! A tenant's holds, as the registry has them: put and lifted, by their objects or by the operator itself.

use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt, api::ListParams};

use super::{failure::StepError, visit::Visit};
use crate::{
    api::tenant_hold::TenantHold,
    controller::context::Context,
    domain::{
        desired::is_paused,
        hold::{self, Hold, Party, QUOTA, is_lifted},
        quota::{self, Verdict},
    },
    registry::{HoldChange, TenantRow},
};

/// The hold that an object asks for.
pub fn hold_of(object: &TenantHold, now: Timestamp) -> Hold {
    Hold {
        name: object.name_any(),
        mode: object.spec.mode,
        trigger: object.spec.trigger,
        reason: object.spec.reason.clone(),
        since: now,
        party: Party::TenantHold,
    }
}

/// Takes in the tenant's TenantHolds as the API has them: before access is widened, the watch may be behind.
pub async fn refresh_holds(visit: &mut Visit<'_>, context: &Context) -> Result<(), StepError> {
    let (namespace, name) = (visit.tenant.namespace().unwrap_or_default(), visit.tenant.name_any());
    let api = Api::<TenantHold>::namespaced(context.client.clone(), &namespace);
    let of_tenant = ListParams::default().fields(&format!("spec.tenant={name}"));
    for object in api.list(&of_tenant).await?.iter().filter(|o| o.metadata.deletion_timestamp.is_none()) {
        let hold = hold_of(object, context.clock.now());
        if let Some(row) = &mut visit.row {
            place(row, hold, context).await?;
        }
    }
    visit.judge(context);
    Ok(())
}

/// Records a hold, unless it is recorded already; returns whether it was not.
pub async fn place(row: &mut TenantRow, hold: Hold, context: &Context) -> Result<bool, StepError> {
    let Some(after) = hold::with(&row.holds, hold.clone()) else { return Ok(false) };
    change(row, after, &hold, actor(&hold), context).await?;
    Ok(true)
}

/// Lifts a hold, if it is recorded; returns whether it was.
pub async fn lift(row: &mut TenantRow, name: &str, context: &Context) -> Result<bool, StepError> {
    let Some(hold) = row.holds.iter().find(|hold| hold.name == name).cloned() else { return Ok(false) };
    let Some(after) = hold::without(&row.holds, name) else { return Ok(false) };
    let by = if hold.quota().is_some() { "tenantry" } else { "unknown" };
    change(row, after, &hold, by, context).await?;
    Ok(true)
}

fn actor(hold: &Hold) -> &'static str {
    match hold.party {
        Party::TenantHold => "unknown",
        Party::Tenantry { .. } | Party::Quota { .. } => "tenantry",
    }
}

async fn change(
    row: &mut TenantRow,
    after: Vec<Hold>,
    hold: &Hold,
    actor: &str,
    context: &Context,
) -> Result<(), StepError> {
    context.bulk.forget(&row.resource_uid);
    let change = HoldChange { before: &row.holds, after: &after, hold, actor };
    if !context.registry.change_holds(row.id, &change).await? {
        return Err(StepError::Missing("the row as it was read"));
    }
    row.holds = after;
    Ok(())
}

/// Puts and lifts the operator's own holds: those that another plan, or a request to resume, has ended; the one on a
/// tenant that has filled its storage, or has room again.
pub async fn settle_own(visit: &mut Visit<'_>, context: &Context) -> Result<(), StepError> {
    let Some(row) = &mut visit.row else { return Ok(()) };
    let lifted: Vec<String> =
        row.holds.iter().filter(|hold| is_lifted(hold, visit.tenant)).map(|hold| hold.name.clone()).collect();
    for name in lifted {
        lift(row, &name, context).await?;
    }
    // A spec that cannot be acted on is no way around what is in force.
    let Some(given) = visit.entitlements.as_ref().or(row.entitlements.as_ref()) else { return Ok(()) };
    let held = row.holds.iter().find_map(Hold::quota);
    match quota::verdict(held, &given.limits, &row.usage) {
        Verdict::Keep => {}
        Verdict::Lift => drop(lift(row, QUOTA, context).await?),
        Verdict::Place { .. } if !row.status.was_active() || is_paused(visit.tenant) => {}
        Verdict::Place { maximum, reason } => {
            let since = context.clock.now();
            let name = QUOTA.to_owned();
            let hold =
                Hold { name, mode: None, trigger: None, reason, since, party: Party::Quota { maximum } };
            place(row, hold, context).await?;
        }
    }
    Ok(())
}
