//! RemoveSecrets: deletes the tenant's Secrets, found by the label with its id and never by name alone. A Secret that
//! is not ours stays.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
};

use super::{Run, StepError, pass_deadline};
use crate::api::LABEL_TENANT_ID;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    pass_deadline(run).await?;
    let id = run.row()?.id;
    let api = Api::<Secret>::namespaced(run.context.client.clone(), &run.namespace());
    let labelled = ListParams::default().labels(&format!("{LABEL_TENANT_ID}={id}"));
    for secret in api.list_metadata(&labelled).await? {
        let exactly = Preconditions { uid: secret.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
        match api.delete(&secret.name_any(), &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
