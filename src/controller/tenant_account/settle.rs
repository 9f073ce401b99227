//! Brings a tenant's account to its place, and records what its customer's administrator changed. It reads what the watches
//! keep in memory, and writes only what differs: the place before the object is created there, and each change once, with
//! its user.

use kube::{Resource, ResourceExt};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{in_force, object};
use crate::{
    api::{reason::Reason, tenant::Tenant, tenant_account::TenantAccount},
    controller::{
        actors::recorded_changes,
        context::Context,
        tenant::{evaluate::entitlements, failure::StepError, load::REGISTRY_TIMEOUT},
    },
    domain::{
        account::{
            AccountPlace, AccountRecord, AccountSituation, AccountView, Allowed, PlanAnswer, Refusal, accept,
            account_namespace, fits,
        },
        declaration::{ChangeRow, Declaration, account_rows},
        observed::RegistryStatus,
        record::TenantRecord,
        spec::is_paused,
    },
    registry,
};

/// Settles the account of a tenant that was activated. Returns none if it has none and should have none, or if nothing may be
/// changed now.
pub async fn settle(tenant: &Tenant, row: &mut TenantRecord, context: &Context) -> Option<AccountView> {
    let wanted = account_namespace(tenant);
    let is_open = row.activated_at.is_some() && row.status != RegistryStatus::Deprovisioned;
    let has_none = wanted.is_none() && row.account.place.is_none() && !row.account.has_ended_grant(tenant);
    if !is_open || is_paused(tenant) || has_none {
        return None;
    }
    if !context.stores.accounts.are_filled() {
        return Some(pending(
            "the TenantAccounts, or the namespaces, are not known yet: is the CRD installed?".to_owned(),
        ));
    }
    match bring(tenant, row, context).await {
        Ok(view) => view,
        Err(error) => {
            warn!(%error, "could not settle the account of a tenant; it is tried again");
            wanted.map(|_| pending(error.to_string()))
        }
    }
}

/// Whether the account of a tenant is at a place that is not its own any more: its slug was changed since.
pub fn is_misplaced(row: &TenantRecord) -> bool {
    row.account.place.as_ref().is_some_and(|place| place.name != row.slug)
}

fn pending(why: String) -> AccountView {
    let situation = AccountSituation::Pending(why);
    AccountView { situation, refusals: Vec::new(), allowed: Allowed::default() }
}

async fn bring(
    tenant: &Tenant,
    row: &mut TenantRecord,
    context: &Context,
) -> Result<Option<AccountView>, StepError> {
    if row.account.has_ended_grant(tenant) {
        let account = AccountRecord { grant: None, ..row.account.clone() };
        record(row, &account, &[], context).await?;
    }
    let name = row.slug.clone();
    let wanted =
        account_namespace(tenant).map(|namespace| AccountPlace { namespace: namespace.to_owned(), name });
    let is_open = wanted.as_ref().is_some_and(|place| context.stores.accounts.is_open(&place.namespace));
    let elsewhere = |place: &AccountPlace| !is_open || Some(place) != wanted.as_ref();
    if let Some(old) = row.account.place.clone().filter(elsewhere) {
        if let Some(found) = object::present(&old, row.id, context).await? {
            // What was changed there since the last reconcile is not lost with it.
            take_in(tenant, &found, row, context).await?;
            object::remove_unchanged(&found, context).await?;
        }
        let account = AccountRecord { place: None, ..row.account.clone() };
        record(row, &account, &[], context).await?;
    }
    let Some(place) = wanted else { return Ok(None) };
    let mut refusals = Vec::new();
    let situation = if is_open {
        match find(&place, row, context).await? {
            found if !object::is_of(&found, row.id) => AccountSituation::Conflict(place),
            found if found.metadata.deletion_timestamp.is_some() => {
                AccountSituation::Pending("the former TenantAccount is being deleted".to_owned())
            }
            found => {
                object::restore_label(&found, row.id, context).await?;
                let before = row.account.grant.clone();
                refusals = take_in(tenant, &found, row, context).await?;
                if row.account.grant != before {
                    // The plan in force now may allow other things, and grant another plan.
                    refusals = take_in(tenant, &found, row, context).await?;
                }
                AccountSituation::Shown(Box::new(found))
            }
        }
    } else {
        AccountSituation::NamespaceClosed(place.namespace)
    };
    let allowed = in_force::allowed(tenant, &row.account, Some(row), context).1;
    Ok(Some(AccountView { situation, refusals, allowed }))
}

/// The object at a place. It is created if there is none, as it was last accepted; the place is recorded before that.
async fn find(
    place: &AccountPlace,
    row: &mut TenantRecord,
    context: &Context,
) -> Result<TenantAccount, StepError> {
    if let Some(found) = context.stores.accounts.get(place) {
        return Ok(found.as_ref().clone());
    }
    if row.account.place.as_ref() != Some(place) {
        let account = AccountRecord { place: Some(place.clone()), ..row.account.clone() };
        record(row, &account, &[], context).await?;
    }
    let created = object::create(place, row.id, row.account.spec(), context).await?;
    info!(namespace = place.namespace, account = place.name, "the account of a tenant is created");
    Ok(created)
}

/// Takes in what the object asks for. Returns what is refused.
async fn take_in(
    tenant: &Tenant,
    account: &TenantAccount,
    row: &mut TenantRecord,
    context: &Context,
) -> Result<Vec<Refusal>, StepError> {
    let is_leaving =
        row.status == RegistryStatus::Deprovisioning || tenant.metadata.deletion_timestamp.is_some();
    if is_leaving || row.account.is_newer_than(account) {
        return Ok(Vec::new());
    }
    let (plan, allowed) = in_force::allowed(tenant, &row.account, Some(row), context);
    let (mut after, mut refusals) = accept(&account.spec, &row.account, tenant, &allowed);
    if after.has_no_room(tenant, &allowed.settings) && !refusals.contains(&Refusal::TooLarge) {
        refusals.push(Refusal::TooLarge);
    }
    let mut rows = Vec::new();
    let mut changes = None;
    if !row.account.declaration.as_ref().is_some_and(|recorded| recorded.includes(&account.metadata)) {
        let now = Declaration::of_account(account, &context.installation.digest_key);
        let by = recorded_changes(account, context).await;
        rows = account_rows(row.account.declaration.as_ref(), &now, &by);
        // What is edited in an object that was created again is compared with what it was created with.
        let is_other = row.account.declaration.as_ref().is_some_and(|before| before.object != now.object);
        if !rows.is_empty() || is_other {
            after.declaration = Some(now);
        }
        changes = Some(by);
    }
    let granted = granted(tenant, &plan, &allowed, row, &mut after, context);
    let is_withdrawn = row.account.grant.is_some() && after.grant != row.account.grant;
    if granted.is_some() || is_withdrawn {
        let by = match changes {
            Some(changes) => changes,
            None => recorded_changes(account, context).await,
        };
        if is_withdrawn {
            after.withdrawn_by = Some(by.last(&["planRequest"]).to_string());
        }
        if let Some(granted) = granted {
            rows.push(after.grant_plan(&granted, &plan, tenant, &by.last(&["planRequest"])));
        }
    }
    // The object was made elsewhere, by a restored backup.
    after.place = Some(place_of(account));
    if after != row.account || !rows.is_empty() {
        let before = row.account.clone();
        record(row, &after, &rows, context).await?;
        report(tenant, &before, &after, context);
    }
    Ok(refusals)
}

fn place_of(account: &TenantAccount) -> AccountPlace {
    AccountPlace { namespace: account.namespace().unwrap_or_default(), name: account.name_any() }
}

/// Decides about the request for another plan. Returns the plan that is granted now.
fn granted(
    tenant: &Tenant,
    in_force: &str,
    allowed: &Allowed,
    row: &TenantRecord,
    after: &mut AccountRecord,
    context: &Context,
) -> Option<String> {
    account_namespace(tenant)?;
    let request = after.plan_request.as_mut()?;
    let has_room = || {
        let offered = entitlements(tenant, &request.plan, context).and_then(Result::ok);
        offered.is_some_and(|offered| fits(&offered, &row.usage))
    };
    let answer = request.answer(in_force, allowed, has_room);
    request.answered |= matches!(answer, PlanAnswer::InForce | PlanAnswer::Grant);
    (answer == PlanAnswer::Grant).then(|| request.plan.clone())
}

/// Records an account, if it differs.
async fn record(
    row: &mut TenantRecord,
    account: &AccountRecord,
    changes: &[ChangeRow],
    context: &Context,
) -> Result<(), StepError> {
    context.state.snapshot.forget(&row.resource_uid);
    let recorded = context.registry.record_account(row, account, changes);
    // A lost connection would keep the tenant's lock for ever.
    let recorded = timeout(REGISTRY_TIMEOUT, recorded).await.unwrap_or(Err(registry::Error::NoAnswer))?;
    *row = recorded.ok_or(StepError::Changed("the registry row"))?;
    Ok(())
}

/// Publishes an Event about the Tenant for each new request.
fn report(tenant: &Tenant, before: &AccountRecord, after: &AccountRecord, context: &Context) {
    let about = tenant.object_ref(&());
    if let Some(grant) = after.grant.as_ref().filter(|_| after.grant != before.grant) {
        let note = format!(
            "plan {:?} counts instead of {:?}, as the plan's selfService allows; requested by {}",
            grant.plan, grant.instead_of, grant.by
        );
        context.events.normal(about.clone(), "ChangePlan", Reason::PlanGranted, note);
    }
    let plan = |record: &AccountRecord| record.plan_request.clone().map(|request| request.plan);
    if let Some(request) = after.plan_request.as_ref().filter(|_| plan(before) != plan(after))
        && !request.answered
    {
        let note = format!(
            "the customer's administrator asks for plan {:?}: to grant it, set spec.plan",
            request.plan
        );
        context.events.normal(about.clone(), "Request", Reason::PlanRequested, note);
    }
    if let Some(name) =
        after.export_request.as_ref().filter(|_| before.export_request != after.export_request)
    {
        let note = format!("the customer's administrator asks for an export: {name:?}");
        context.events.normal(about, "Request", Reason::ExportRequested, note);
    }
}
