//! The object of a TenantAccount: created, found and deleted. One that is not this tenant's is never changed.

use http::StatusCode;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use crate::{
    api::{
        API_VERSION, LABEL_MANAGED_BY, LABEL_TENANT_ID, MANAGED_BY,
        tenant_account::{TenantAccount, TenantAccountSpec},
    },
    controller::context::Context,
    domain::{account::AccountPlace, identity::TenantId},
};

/// The field manager of the labels, when one was removed.
const MANAGER: &str = "tenantry/account";

/// Whether an object is a tenant's: by its label, or by its status, which only the operator writes.
pub fn is_of(account: &TenantAccount, id: TenantId) -> bool {
    let id = id.to_string();
    is_labelled(account, &id)
        || account.status.as_ref().is_some_and(|status| status.tenant_id.as_ref() == Some(&id))
}

fn is_labelled(account: &TenantAccount, id: &str) -> bool {
    account.labels().get(LABEL_TENANT_ID).is_some_and(|label| label == id)
}

fn api(place: &AccountPlace, context: &Context) -> Api<TenantAccount> {
    Api::namespaced(context.client.clone(), &place.namespace)
}

/// Creates an account. If there is an object of its name, which the watch has not delivered yet, it is returned.
pub async fn create(
    place: &AccountPlace,
    id: TenantId,
    spec: TenantAccountSpec,
    context: &Context,
) -> Result<TenantAccount, kube::Error> {
    let mut account = TenantAccount::new(&place.name, spec);
    account.labels_mut().insert(LABEL_TENANT_ID.to_owned(), id.to_string());
    account.labels_mut().insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
    let params = PostParams { field_manager: Some(MANAGED_BY.to_owned()), ..PostParams::default() };
    match api(place, context).create(&params, &account).await {
        Err(kube::Error::Api(answer)) if answer.code == StatusCode::CONFLICT.as_u16() => {
            api(place, context).get(&place.name).await
        }
        created => created,
    }
}

/// Writes the label with the tenant's id, if it was changed.
pub async fn restore_label(
    account: &TenantAccount,
    id: TenantId,
    context: &Context,
) -> Result<(), kube::Error> {
    let id = id.to_string();
    if is_labelled(account, &id) {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": API_VERSION, "kind": "TenantAccount",
        "metadata": {"name": account.name_any(), "uid": account.uid(), "labels": {LABEL_TENANT_ID: id}},
    });
    let accounts =
        Api::<TenantAccount>::namespaced(context.client.clone(), &account.namespace().unwrap_or_default());
    let params = PatchParams::apply(MANAGER).force();
    accounts.patch_metadata(&account.name_any(), &params, &Patch::Apply(patch)).await.map(drop)
}

/// The account at a place, if it is this tenant's, as the API server has it now.
pub async fn present(
    place: &AccountPlace,
    id: TenantId,
    context: &Context,
) -> Result<Option<TenantAccount>, kube::Error> {
    Ok(api(place, context).get_opt(&place.name).await?.filter(|found| is_of(found, id)))
}

/// Deletes the account at a place, if it is this tenant's.
pub async fn remove(place: &AccountPlace, id: TenantId, context: &Context) -> Result<(), kube::Error> {
    let Some(found) = present(place, id, context).await? else { return Ok(()) };
    let exactly = Preconditions { uid: found.uid(), resource_version: None };
    match delete(place, exactly, context).await {
        Err(kube::Error::Api(answer)) if answer.is_conflict() => Ok(()),
        deleted => deleted,
    }
}

/// Deletes an account as it was read. If it was changed since, that is a conflict: the change is not lost.
pub async fn remove_unchanged(account: &TenantAccount, context: &Context) -> Result<(), kube::Error> {
    let place = AccountPlace { namespace: account.namespace().unwrap_or_default(), name: account.name_any() };
    let exactly = Preconditions { uid: account.uid(), resource_version: account.resource_version() };
    delete(&place, exactly, context).await
}

async fn delete(place: &AccountPlace, exactly: Preconditions, context: &Context) -> Result<(), kube::Error> {
    let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
    match api(place, context).delete(&place.name, &params).await {
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
        deleted => deleted.map(drop),
    }
}
