//! Where a tenant stands, by what is at hand: its object, its plan, the holds of its row.

use k8s_openapi::jiff::Timestamp;
use kube::{Api, Resource, ResourceExt, api::ListParams};

use super::{failure::StepError, visit::Visit};
use crate::{
    api::{tenant::Tenant, tenant_hold::TenantHold},
    controller::context::Context,
    domain::{
        hold::{self, Hold, Party},
        standing::{Ending, Given, Standing, is_lifted, standing},
    },
    registry::{HoldChange, TenantRow},
};

impl Context {
    /// Judges where a tenant stands now; `activated_at` for one that is being handed out.
    pub fn standing(
        &self,
        tenant: &Tenant,
        row: Option<&TenantRow>,
        activated_at: Option<Timestamp>,
    ) -> Standing {
        let plan = self.plan(&tenant.spec.plan);
        let given = Given {
            tenant,
            plan: plan.as_ref().map(|plan| &plan.spec),
            holds: row.map_or(&[], |row| row.holds.as_slice()),
            activated_at: activated_at.or(row.and_then(|row| row.activated_at)),
            known_trial_end: tenant.status.as_ref().and_then(|status| Some(status.trial_ends_at.as_ref()?.0)),
        };
        standing(given, self.clock.now())
    }
}

impl Visit<'_> {
    /// Judges the tenant anew.
    pub fn judge(&mut self, context: &Context) {
        self.standing = Some(context.standing(self.tenant, self.row.as_ref(), None));
    }
}

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
    change(row, after, &hold, "unknown", context).await?;
    Ok(true)
}

fn actor(hold: &Hold) -> &'static str {
    match hold.party {
        Party::TenantHold => "unknown",
        Party::Tenantry { .. } => "tenantry",
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

/// Lifts those of the operator's own holds that another plan, or a request to resume, has ended.
pub async fn lift_own(visit: &mut Visit<'_>, context: &Context) -> Result<(), StepError> {
    let Some(row) = &mut visit.row else { return Ok(()) };
    let lifted: Vec<String> =
        row.holds.iter().filter(|hold| is_lifted(hold, visit.tenant)).map(|hold| hold.name.clone()).collect();
    for name in lifted {
        lift(row, &name, context).await?;
    }
    Ok(())
}

/// Warns once of an end that comes by itself.
pub async fn warn(visit: &Visit<'_>, context: &Context) -> Result<(), StepError> {
    let (Some(row), Some(standing)) = (&visit.row, &visit.standing) else { return Ok(()) };
    let Some(warning) = standing.warning.filter(|warning| warning.from <= context.clock.now()) else {
        return Ok(());
    };
    let told = row.warned_of.is_some_and(|of| of.as_microsecond() == warning.at.as_microsecond());
    if told || !row.status.was_active() {
        return Ok(());
    }
    let (reason, what) = match warning.of {
        Ending::Trial => ("TrialEnding", "the trial ends"),
        Ending::Validity => ("ValidityEnding", "the validity ends"),
    };
    let note = format!("{what} at {}; what happens then: {}", warning.at, after(visit, warning.of, context));
    context.events.warning(visit.tenant.object_ref(&()), "Warn", reason, note);
    context.registry.warned_of(row.id, warning.at).await?;
    context.bulk.forget(&row.resource_uid);
    Ok(())
}

/// What an end leads to, in words.
fn after(visit: &Visit<'_>, ending: Ending, context: &Context) -> String {
    let plan = context.plan(&visit.tenant.spec.plan);
    let end = plan.as_ref().and_then(|plan| plan.spec.trial_end.as_ref());
    match (ending, end.and_then(|end| end.plan.as_deref()), end.and_then(|end| end.mode)) {
        (Ending::Validity, _, _) => "its access is Blocked".to_owned(),
        (Ending::Trial, Some(plan), _) => format!("its plan becomes {plan}"),
        (Ending::Trial, None, Some(mode)) => format!("its access is {mode}"),
        (Ending::Trial, None, None) => "its access is Blocked".to_owned(),
    }
}
