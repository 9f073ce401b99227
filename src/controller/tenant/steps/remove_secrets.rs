//! RemoveSecrets: deletes the tenant's Secrets, found by the label with its id, never by name alone. Other Secrets are left
//! as they are.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
};

use crate::{
    api::LABEL_TENANT_ID,
    controller::tenant::{failure::StepError, purge_guard::pass_deadline, step_context::StepContext},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    pass_deadline(step).await?;
    let id = step.row()?.id;
    let api = Api::<Secret>::namespaced(step.context.client.clone(), &step.namespace());
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
