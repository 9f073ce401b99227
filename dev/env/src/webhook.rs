//! The admission webhook of an operator at a port of 127.0.0.1: the API server reaches it there, since it has no network of
//! Services.

use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::kubectl::Kubectl;
use crate::paths;
use crate::rights::{RELEASE_NAMESPACE, Scope, replace};

/// What an installation asks of the webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InstalledWebhook {
    /// It is not served.
    #[default]
    None,
    /// It records deletions and checks requests.
    Checks,
    /// It also writes the users of changes, as where the API server has no policies that do.
    Stamps,
}

/// The name of an installation's webhook configurations.
pub fn configuration(namespace: &str) -> String {
    format!("tenantry.{namespace}")
}

/// Applies the webhook configurations for a webhook at this port, as the chart has them.
pub async fn install(
    kubectl: &Kubectl,
    scope: Scope<'_>,
    port: u16,
    webhook: InstalledWebhook,
) -> Result<()> {
    let mut objects = objects("tenantry.yaml", "ValidatingWebhookConfiguration")?;
    if webhook == InstalledWebhook::Stamps {
        objects.extend(self::objects(STAMPS, "MutatingWebhookConfiguration")?);
    }
    for object in &mut objects {
        replace(object, RELEASE_NAMESPACE, scope.namespace);
        for hook in object["webhooks"].as_array_mut().into_iter().flatten() {
            hook["clientConfig"] = json!({"url": format!("https://127.0.0.1:{port}")});
            let elsewhere = hook.pointer("/namespaceSelector/matchLabels").is_some();
            if hook.get("namespaceSelector").is_some() && scope.watched.is_empty() && !elsewhere {
                hook["namespaceSelector"] = json!({});
            } else if let Some(values) = hook.pointer_mut("/namespaceSelector/matchExpressions/0/values") {
                *values = json!(scope.watched);
            }
        }
    }
    apply(kubectl, &objects).await
}

/// The manifests with which the webhook writes users.
const STAMPS: &str = "actors-webhook.yaml";

/// Applies the policy that refuses a user that the webhook has not written.
pub async fn install_policy(kubectl: &Kubectl) -> Result<()> {
    let mut objects = objects(STAMPS, "ValidatingAdmissionPolicy")?;
    objects.extend(self::objects(STAMPS, "ValidatingAdmissionPolicyBinding")?);
    apply(kubectl, &objects).await
}

async fn apply(kubectl: &Kubectl, objects: &[Value]) -> Result<()> {
    kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).await.map(drop)
}

/// The objects of a kind in the manifests of this checkout.
fn objects(name: &str, kind: &str) -> Result<Vec<Value>> {
    let path = paths::checkout().join("manifests").join(name);
    let text = std::fs::read_to_string(&path).at("reading", &path)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|error| Error::message(format!("{}: {error}", path.display())))?;
    Ok(documents.into_iter().filter(|object| object["kind"] == kind).collect())
}
