//! A tenant's holds in the registry: placed and lifted for TenantHold objects, or by the operator itself.

use kube::{Api, Resource, ResourceExt, api::ListParams};

use super::failure::StepError;
use crate::{
    api::{reason::Reason, tenant::Tenant, tenant_hold::TenantHold, tenant_status::TenantStatus},
    controller::{actors::recorded_changes, context::Context},
    domain::{
        access::holds::{self, Hold, LegalHold, Party, QUOTA, is_lifted},
        attribution::Actor,
        observed::RegistryStatus,
        record::TenantRecord,
        spec::is_paused,
        subject::Subject,
        usage::thresholds::{QuotaHoldChange, quota_hold_change},
    },
    registry::{DeletedObject, HoldChange},
};

/// The hold that a TenantHold asks for on a tenant.
pub fn hold_of(object: &TenantHold, row: &TenantRecord, context: &Context) -> Hold {
    let recorded = row.holds.iter().find(|hold| hold.name == object.name_any());
    let recorded = recorded.and_then(|hold| hold.preserve.as_ref());
    let (namespace, name) = (&row.resource_namespace, &row.resource_name);
    let is_tombstone = row.status == RegistryStatus::Deprovisioning
        && !context.stores.scopes.has(namespace, name, &row.resource_uid, &row.slug);
    let legal = || LegalHold::of(object.uid().unwrap_or_default(), recorded, is_tombstone);
    Hold {
        name: object.name_any(),
        mode: object.spec.mode,
        preserve: object.preserves().then(legal),
        trigger: object.spec.trigger,
        reason: object.spec.reason.clone(),
        since: context.clock.now(),
        party: Party::TenantHold,
    }
}

/// Records the tenant's TenantHolds as the API server has them: before access is widened, since the watch may be behind.
pub async fn refresh_holds(
    tenant: &Tenant,
    record: &mut TenantRecord,
    context: &Context,
) -> Result<(), StepError> {
    for object in holds_on(&tenant.namespace().unwrap_or_default(), &tenant.name_any(), context).await? {
        let hold = hold_of(&object, record, context);
        place(record, hold, Placer::Object(&object), context).await?;
    }
    Ok(())
}

/// Records the legal holds on the Tenant of this name as the API server has them: before the purge begins. Returns whether
/// there was a new one.
pub async fn record_legal_holds(
    namespace: &str,
    name: &str,
    record: &mut TenantRecord,
    context: &Context,
) -> Result<bool, StepError> {
    let mut placed = false;
    for object in holds_on(namespace, name, context).await?.iter().filter(|object| object.preserves()) {
        let hold = hold_of(object, record, context);
        placed |= place(record, hold, Placer::Object(object), context).await?;
    }
    Ok(placed)
}

/// The TenantHolds on the Tenant of this name that are not being deleted, as the API server has them.
async fn holds_on(namespace: &str, name: &str, context: &Context) -> Result<Vec<TenantHold>, StepError> {
    let api = Api::<TenantHold>::namespaced(context.client.clone(), namespace);
    let of_tenant = ListParams::default().fields(&format!("spec.tenant={name}"));
    let found = api.list(&of_tenant).await?;
    Ok(found.items.into_iter().filter(|object| object.metadata.deletion_timestamp.is_none()).collect())
}

/// Records the holds that the Tenant's status shows and the registry does not know: it may have been restored to a time before
/// them, and a hold outlives its object. The operator's own are placed by what is measured.
pub async fn restore_holds(
    tenant: &Tenant,
    status: &TenantStatus,
    record: &mut TenantRecord,
    context: &Context,
) -> Result<(), StepError> {
    let known: Vec<String> = record.holds.iter().map(|hold| hold.name.clone()).collect();
    for shown in status.holds.iter().filter(|shown| !known.contains(&shown.name)) {
        let Some(hold) = holds::shown(shown, context.clock.now()) else { continue };
        let placer = Placer::Shown(shown.placed_by.as_deref());
        let note = format!(
            "hold {:?}, which the status shows and the registry does not know, is recorded again, since the registry may have been restored to an older state: to lift it, apply and delete a TenantHold of this name",
            hold.name
        );
        place(record, hold, placer, context).await?;
        context.events.warning(tenant.object_ref(&()), "EnforceAccess", Reason::RegistryBehind, note);
    }
    Ok(())
}

/// Whose hold is placed.
#[derive(Clone, Copy)]
pub enum Placer<'a> {
    /// That of a TenantHold.
    Object(&'a TenantHold),
    /// The operator's own.
    Operator,
    /// One that a status shows, with who placed it.
    Shown(Option<&'a str>),
}

/// Records a hold, unless it is recorded already; returns whether it was not.
pub async fn place(
    row: &mut TenantRecord,
    hold: Hold,
    placer: Placer<'_>,
    context: &Context,
) -> Result<bool, StepError> {
    let Some(after) = holds::with(&row.holds, hold.clone()) else { return Ok(false) };
    let recorded = row.holds.iter().find(|recorded| recorded.name == hold.name);
    let recorded = recorded.map(|recorded| row.placed_by(recorded).map(str::to_owned));
    let (actor, first) = match placer {
        Placer::Object(object) => {
            let changes = recorded_changes(object, context).await;
            (changes.last_of_all().to_string(), Some(changes.creator().to_string()))
        }
        Placer::Operator => (Actor::Tenantry.to_string(), Some(Actor::Tenantry.to_string())),
        Placer::Shown(by) => (Actor::Tenantry.to_string(), by.map(str::to_owned)),
    };
    // Another user may change a hold; it stays that of the user who placed it.
    let placed_by = recorded.unwrap_or(first);
    let change = HoldChange {
        before: &row.holds,
        after: &after,
        hold: &hold,
        actor: &actor,
        deletion: None,
        placed_by: placed_by.as_deref(),
    };
    let changed = record(&change, row, context).await?;
    *row = changed;
    Ok(true)
}

/// Who lifts a hold.
#[derive(Clone, Copy)]
pub enum Lifter<'a> {
    /// Known, or not.
    Actor(&'a Actor),
    /// Who deleted its object.
    Deletion(&'a TenantHold),
}

/// Lifts a hold, if it is recorded; returns whether it was.
pub async fn lift(
    row: &mut TenantRecord,
    name: &str,
    lifter: Lifter<'_>,
    context: &Context,
) -> Result<bool, StepError> {
    let Some(hold) = row.holds.iter().find(|hold| hold.name == name) else { return Ok(false) };
    let Some(after) = holds::without(&row.holds, name) else { return Ok(false) };
    let (actor, deletion) = match lifter {
        Lifter::Actor(actor) => (actor.to_string(), None),
        Lifter::Deletion(object) => {
            let unknown = Actor::of_deletion(context.config.records_deletions);
            (unknown.to_string(), Some(DeletedObject::of(&object.metadata)))
        }
    };
    let change = HoldChange {
        before: &row.holds,
        after: &after,
        hold,
        actor: &actor,
        deletion: deletion.as_ref(),
        placed_by: None,
    };
    let changed = record(&change, row, context).await?;
    *row = changed;
    Ok(true)
}

async fn record(
    change: &HoldChange<'_>,
    row: &TenantRecord,
    context: &Context,
) -> Result<TenantRecord, StepError> {
    context.state.snapshot.forget(&row.resource_uid);
    let changed = context.registry.change_holds(row.id, change).await?;
    changed.ok_or(StepError::Changed("the registry row"))
}

/// Places and lifts the operator's own holds: those that another plan, or a request to resume, has ended; the hold on a
/// tenant whose storage is full, or has room again. Returns the row, if it changed.
pub async fn settle_own_holds(
    subject: &Subject<'_>,
    context: &Context,
) -> Result<Option<TenantRecord>, StepError> {
    let tenant = subject.tenant;
    let Some(mut record) = subject.record.clone() else { return Ok(None) };
    let mut changed = false;
    let ended: Vec<Hold> = record.holds.iter().filter(|hold| is_lifted(hold, tenant)).cloned().collect();
    for hold in ended {
        let by = match &hold.party {
            Party::Tenantry { plan, .. } if *plan != tenant.spec.plan => {
                recorded_changes(tenant, context).await.last(&["plan"])
            }
            _ => Actor::by_annotation(),
        };
        changed |= lift(&mut record, &hold.name, Lifter::Actor(&by), context).await?;
    }
    // A spec that cannot be acted on does not lift what is in force.
    let entitlements = subject.entitlements().or(record.entitlements.as_ref());
    let Some(limits) = entitlements.map(|entitlements| &entitlements.limits) else {
        return Ok(changed.then_some(record));
    };
    let held = record.holds.iter().find_map(Hold::quota);
    match quota_hold_change(held, limits, &record.usage) {
        QuotaHoldChange::Keep => {}
        QuotaHoldChange::Lift => {
            changed |= lift(&mut record, QUOTA, Lifter::Actor(&Actor::Tenantry), context).await?;
        }
        QuotaHoldChange::Place { .. } if !record.status.was_active() || is_paused(tenant) => {}
        QuotaHoldChange::Place { maximum, reason } => {
            let since = context.clock.now();
            let name = QUOTA.to_owned();
            let party = Party::Quota { maximum };
            let hold = Hold { name, mode: None, preserve: None, trigger: None, reason, since, party };
            changed |= place(&mut record, hold, Placer::Operator, context).await?;
        }
    }
    Ok(changed.then_some(record))
}
