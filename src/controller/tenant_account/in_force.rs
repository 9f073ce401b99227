//! The Tenant as it counts: its spec, with what its customer's administrator changed. Computed wherever a Tenant and its
//! row meet; the object itself is never written.

use std::borrow::Cow;

use crate::{
    api::tenant::Tenant,
    controller::{context::Context, tenant::evaluate::access},
    domain::{
        account::{AccountRecord, Allowed, account_namespace},
        record::TenantRecord,
    },
};

/// The Tenant with what is on record of its account.
pub fn in_force<'t>(tenant: &'t Tenant, record: Option<&TenantRecord>, context: &Context) -> Cow<'t, Tenant> {
    let recorded = record.map(|record| &record.account);
    let Some(account) = recorded.filter(|account| **account != AccountRecord::default()) else {
        return Cow::Borrowed(tenant);
    };
    with_account(tenant, account, record, context)
}

/// The Tenant with an account, whose record may be that of an earlier object of the tenant.
pub fn with_account<'t>(
    tenant: &'t Tenant,
    account: &AccountRecord,
    record: Option<&TenantRecord>,
    context: &Context,
) -> Cow<'t, Tenant> {
    if account_namespace(tenant).is_none() {
        return Cow::Borrowed(tenant);
    }
    let editable = allowed(tenant, account, record, context).1.settings;
    account.with_values(account.with_plan(tenant), &editable)
}

/// The plan that a tenant should have, and what it allows.
pub fn allowed(
    tenant: &Tenant,
    account: &AccountRecord,
    record: Option<&TenantRecord>,
    context: &Context,
) -> (String, Allowed) {
    let plan = access(&account.with_plan(tenant), record, None, context).plan;
    let spec = context.plan(&plan);
    let rules = spec.as_ref().and_then(|plan| plan.spec.self_service.as_ref());
    let allowed = Allowed::by(rules);
    (plan, allowed)
}
