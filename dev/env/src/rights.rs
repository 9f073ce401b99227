//! The rights of an operator: those of the chart, as `make manifests` rendered them, for a ServiceAccount of its own. An
//! operator of an environment is never the cluster's administrator.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::config::{AuthInfo, Kubeconfig};
use serde_json::{Value, json};

use crate::control_plane::read_config;
use crate::error::{Context, Error, Result};
use crate::{installation, paths};

/// The ServiceAccount, and the release whose objects the manifests are.
pub const ACCOUNT: &str = "tenantry";
/// The release's namespace in the manifests.
pub(crate) const RELEASE_NAMESPACE: &str = "tenantry-system";
/// The kinds that have to do with rights. `ServiceAccount` comes first: a token needs it. The admission policy of support
/// accesses is the cluster's: without it, none is granted.
const KINDS: [&str; 7] = [
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Longer than authorization ever takes to see new rights.
const IN_FORCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Whose rights they are.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The operator's namespace.
    pub namespace: &'a str,
    /// The namespaces whose tenants it watches; all of them when empty.
    pub watched: &'a [String],
    /// The Lease's name, if not the default.
    pub lease: Option<&'a str>,
}

/// The objects that give an operator its rights, from the manifests of this checkout.
pub fn objects(scope: Scope<'_>) -> Result<Vec<Value>> {
    let name = if scope.watched.is_empty() { "cluster-wide.yaml" } else { "tenantry.yaml" };
    let path = paths::checkout().join("manifests").join(name);
    let text = std::fs::read_to_string(&path).at("reading", &path)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|error| Error::message(format!("{}: {error}", path.display())))?;
    let mut objects = Vec::new();
    for mut object in documents.into_iter().filter(|object| KINDS.iter().any(|kind| object["kind"] == *kind))
    {
        replace(&mut object, RELEASE_NAMESPACE, scope.namespace);
        for rule in object.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
            if rule["resourceNames"] == json!([installation::CUSTOMERS]) {
                rule["resourceNames"] = json!(scope.watched);
            }
            if let (Some(lease), true) =
                (scope.lease, rule["resources"] == json!(["leases"]) && !rule["resourceNames"].is_null())
            {
                rule["resourceNames"] = json!([lease]);
            }
        }
        if object["metadata"]["namespace"] == installation::CUSTOMERS {
            objects.extend(scope.watched.iter().map(|namespace| {
                let mut object = object.clone();
                object["metadata"]["namespace"] = json!(namespace);
                object
            }));
        } else {
            objects.push(object);
        }
    }
    Ok(objects)
}

/// Replaces a part of every text in a value.
pub(crate) fn replace(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) => *text = text.replace(from, to),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, from, to)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, from, to)),
        _ => {}
    }
}

/// Waits until the API server's authorization has seen the objects: it follows them by a watch of its own.
pub async fn wait_in_force(administrator: &Path, scope: Scope<'_>) -> Result<()> {
    let client = Client::try_from(read_config(administrator).await?)?;
    let mut needed = vec![
        ("list", "tenantry.dev", "tenantplans", None),
        ("create", "coordination.k8s.io", "leases", Some(scope.namespace)),
        ("create", "", "secrets", Some(scope.namespace)),
    ];
    if scope.watched.is_empty() {
        needed.push(("list", "", "secrets", None));
    } else {
        needed.push(("create", "events.k8s.io", "events", Some("default")));
        needed
            .extend(scope.watched.iter().map(|namespace| ("list", "", "secrets", Some(namespace.as_str()))));
    }
    let reviews: Api<SubjectAccessReview> = Api::all(client);
    let started = Instant::now();
    for (verb, group, resource, namespace) in needed {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{}:{ACCOUNT}", scope.namespace)),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let allowed = async || -> Result<bool> {
            let answer = reviews.create(&PostParams::default(), &review).await?;
            Ok(answer.status.is_some_and(|status| status.allowed))
        };
        while !allowed().await? {
            if started.elapsed() > IN_FORCE {
                return Err(Error::message(format!("the operator may not {verb} {resource}: {namespace:?}")));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
    Ok(())
}

/// A token of a ServiceAccount that exists.
pub async fn token(client: Client, namespace: &str, account: &str, seconds: i64) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(seconds), ..Default::default() },
        ..Default::default()
    };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.map(|status| status.token).unwrap_or_default())
}

/// Writes a kubeconfig with a new token of a ServiceAccount, for the cluster of the administrator's.
pub async fn write_kubeconfig(
    administrator: &Path,
    namespace: &str,
    account: &str,
    path: &Path,
) -> Result<()> {
    /// Longer than any environment lasts.
    const YEAR: i64 = 365 * 24 * 3600;
    let client = Client::try_from(read_config(administrator).await?)?;
    let token = token(client, namespace, account, YEAR).await?;
    let mut kubeconfig = Kubeconfig::read_from(administrator)?;
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = Some(AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() });
    }
    paths::write_secret(path, &serde_json::to_string(&kubeconfig)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_of_the_scope() {
        let watched = ["a".to_owned(), "b".to_owned()];
        let scope = Scope { namespace: "mine", watched: &watched, lease: Some("second") };
        let objects = objects(scope).unwrap();
        let text = json!(objects).to_string();
        assert!(!text.contains(RELEASE_NAMESPACE) && !text.contains(installation::CUSTOMERS), "{text}");
        let namespaces = |kind: &str| -> Vec<&str> {
            let roles = objects.iter().filter(|object| object["kind"] == kind);
            roles.filter_map(|role| role["metadata"]["namespace"].as_str()).collect()
        };
        assert_eq!(namespaces("Role"), ["mine", "a", "b", "default"]);
        assert_eq!(namespaces("RoleBinding"), ["mine", "a", "b", "default"]);
        assert!(
            text.contains(r#""resourceNames":["a","b"]"#) && text.contains(r#""resourceNames":["second"]"#)
        );
    }

    #[test]
    fn all_namespaces_need_a_cluster_role_only() {
        let objects = objects(Scope { namespace: "mine", watched: &[], lease: None }).unwrap();
        let roles = objects.iter().filter(|object| object["kind"] == "Role");
        assert_eq!(roles.map(|role| &role["metadata"]["namespace"]).collect::<Vec<_>>(), ["mine"]);
    }
}
