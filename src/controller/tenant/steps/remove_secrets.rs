//! RemoveSecrets: deletes the tenant's account, and its Secrets, found by the label with its id. One of its names that lost the label is
//! deleted too, if its content proves whose it is; never by name alone. Other Secrets are left as they are. Those of a
//! namespace that is deleted are deleted with it.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Preconditions},
};

use crate::{
    api::LABEL_TENANT_ID,
    controller::{
        deletion::took_rights_away,
        tenant::{
            failure::StepError,
            purge_guard::pass_deadline,
            secrets::{self, Found},
            step_context::StepContext,
        },
        tenant_account::object,
    },
    domain::{seed_record::SeedRecord, spec},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    pass_deadline(step).await?;
    let id = step.row()?.id;
    if let Some(place) = &step.row()?.account.place {
        object::remove(place, id, step.context).await?;
    }
    let api = Api::<Secret>::namespaced(step.context.client.clone(), &step.namespace());
    let labelled = ListParams::default().labels(&format!("{LABEL_TENANT_ID}={id}"));
    let listed = match api.list_metadata(&labelled).await {
        Ok(listed) => listed,
        Err(error) if took_rights_away(&error, &step.namespace(), &step.context.client).await => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let found: Vec<ObjectMeta> = listed.items.into_iter().map(|secret| secret.metadata).collect();
    let unlabelled = unlabelled(step, &found).await?;
    for secret in found.into_iter().chain(unlabelled) {
        delete(step, secret).await?;
    }
    Ok(())
}

/// Deletes one Secret of the tenant, if it still is the one that was found.
pub(super) async fn delete(step: &StepContext<'_, '_>, secret: ObjectMeta) -> Result<(), StepError> {
    let api = Api::<Secret>::namespaced(step.context.client.clone(), &step.namespace());
    let exactly = Preconditions { uid: secret.uid, resource_version: None };
    let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
    match api.delete(&secret.name.unwrap_or_default(), &params).await {
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        deleted => Ok(deleted.map(drop)?),
    }
}

/// The Secrets that should have been found and were not, as far as their content proves that they are the tenant's.
async fn unlabelled(step: &StepContext<'_, '_>, found: &[ObjectMeta]) -> Result<Vec<ObjectMeta>, StepError> {
    let row = step.row()?;
    let connection = row.password_digest.is_some().then(|| spec::connection_secret_name(step.tenant()));
    let has_admins = row.seed_digest.as_deref().is_some_and(|seed| SeedRecord::parse(seed).issued.is_some());
    let admins = has_admins.then(|| spec::admin_secret_name(&step.tenant().name_any()));
    let has_reader = row.credentials.reader.as_ref().is_some_and(|reader| reader.digest.is_some());
    let reader = has_reader.then(|| spec::reader_secret_name(step.tenant()));
    let mut unlabelled = Vec::new();
    for name in connection.into_iter().chain(admins).chain(reader) {
        if found.iter().any(|secret| secret.name.as_ref() == Some(&name)) {
            continue;
        }
        match secrets::find(step.context, &step.namespace(), &name, row).await {
            Ok(Found::Ours(secret)) => unlabelled.push(secret.metadata),
            Ok(Found::Absent) | Err(StepError::SecretConflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(unlabelled)
}
