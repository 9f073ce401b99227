//! The condition `AccountShown` of a Tenant that wants an account. It does not make the Tenant not Ready: the customer's view
//! is missing, and nothing else.

use super::{Outcome, condition_update::ConditionUpdate};
use crate::{
    api::{
        LABEL_ACCOUNTS,
        conditions::{
            ACCOUNT_SHOWN,
            ConditionStatus::{False, True},
        },
        reason::Reason,
    },
    domain::account::AccountSituation,
};

pub(super) fn condition(outcome: &Outcome<'_>) -> Option<ConditionUpdate> {
    let subject = outcome.subject;
    let (view, record) = (subject.account.as_ref()?, subject.record.as_ref()?);
    let (status, reason, message) = match &view.situation {
        AccountSituation::Shown(_) => {
            let requests = record.account.open_requests(&view.allowed);
            match requests.is_empty() {
                true => (True, Reason::AccountCurrent, "the TenantAccount is there".to_owned()),
                false => {
                    let requests = requests.join(", ");
                    (
                        True,
                        Reason::AccountRequest,
                        format!("the customer's administrator asks for {requests}"),
                    )
                }
            }
        }
        AccountSituation::NamespaceClosed(namespace) => (
            False,
            Reason::AccountNamespaceClosed,
            format!(
                "namespace {namespace:?} of spec.accountNamespace does not exist, is being deleted, or may have no accounts: create it, and run `kubectl label namespace {namespace} {LABEL_ACCOUNTS}=true`"
            ),
        ),
        AccountSituation::Conflict(place) => (
            False,
            Reason::AccountConflict,
            format!(
                "TenantAccount {:?} in namespace {:?} is not this tenant's, and is left as it is: delete it, or name another namespace in spec.accountNamespace",
                place.name, place.namespace
            ),
        ),
        AccountSituation::Pending(why) => (False, Reason::AccountPending, why.clone()),
    };
    Some(ConditionUpdate::new(ACCOUNT_SHOWN, status, reason, message))
}
