//! Writes the status of a TenantAccount when it changes.

use kube::{Api, ResourceExt};

use crate::{
    controller::{apply_status::apply_status, context::Context},
    domain::{
        account::{AccountFacts, AccountSituation, account_status},
        observed::RegistryStatus,
        status::{Outcome, next_status},
    },
};

/// Shows how the tenant is, if its account is there.
///
/// # Errors
/// The answer of the API server.
pub async fn show(outcome: &Outcome<'_>, context: &Context) -> Result<(), kube::Error> {
    let subject = outcome.subject;
    let (Some(record), Some(view)) = (&subject.record, &subject.account) else { return Ok(()) };
    let AccountSituation::Shown(account) = &view.situation else { return Ok(()) };
    if record.status == RegistryStatus::Deprovisioned {
        return Ok(());
    }
    let now = context.clock.now();
    // The Tenant's own status has the modules too, which are not shown here.
    let tenant = next_status(outcome, Vec::new(), now);
    let facts = AccountFacts {
        account,
        record: &record.account,
        view,
        display_name: &subject.tenant.spec.display_name,
        tenant_id: &record.id.to_string(),
        tenant: &tenant,
    };
    let status = account_status(facts, now);
    if account.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let accounts = Api::namespaced(context.client.clone(), &account.namespace().unwrap_or_default());
    apply_status(&accounts, account.as_ref(), &status).await.map(drop)
}
