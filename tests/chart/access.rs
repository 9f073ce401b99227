//! The roles and policies of `docs/access.md` are installed as the values say. What they do is tried by
//! `tests/cluster/access.rs`.

use serde_json::{Value, json};
use tenantry_dev::helm::Helm;

use crate::{of_kind, render};

const STANDARD: &str = "rbac.authorization.k8s.io/aggregate-to-";
const OWN: &str = "tenantry.dev/aggregate-to-";

async fn rendered(helm: &Helm, set: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["--set", "image.repository=tenantry", "--set", "crds.install=false"];
    arguments.extend(set.iter().flat_map(|value| ["--set", value]));
    render(helm, &arguments).await
}

/// The ClusterRoles with a label that begins so, by the rest of the label.
fn labelled<'a>(objects: &'a [Value], begins: &str) -> Vec<(&'a str, &'a Value)> {
    let mut found = Vec::new();
    for role in of_kind(objects, "ClusterRole") {
        let labels = role["metadata"]["labels"].as_object().unwrap();
        let kinds = labels.keys().filter_map(|label| label.strip_prefix(begins));
        found.extend(kinds.map(|kind| (kind, role)));
    }
    found
}

fn verbs<'a>(role: &'a Value, resource: &str) -> Vec<&'a str> {
    let rules = role["rules"].as_array().unwrap().iter();
    let of = rules.filter(|rule| rule["resources"].as_array().unwrap().contains(&json!(resource)));
    of.flat_map(|rule| rule["verbs"].as_array().unwrap().iter().filter_map(Value::as_str)).collect()
}

#[tokio::test]
async fn each_role_has_its_rules_and_a_label() {
    let helm = Helm::new(None).await.unwrap();
    let objects = rendered(&helm, &[]).await;
    let roles = labelled(&objects, OWN);
    assert_eq!(roles.len(), 5);
    for (label, role) in roles {
        assert_eq!(role["metadata"]["name"], format!("tenantry-{label}"));
        // Kubernetes would create an aggregated role again when it is deleted together with its rules.
        assert!(role["aggregationRule"].is_null() && !role["rules"].as_array().unwrap().is_empty());
    }
    let operator = labelled(&objects, OWN).into_iter().find(|(of, _)| *of == "platform-operator").unwrap().1;
    for crd in tenantry::api::crds() {
        let plural = &crd.spec.names.plural;
        assert!(verbs(operator, plural).contains(&"create"), "{plural}");
        assert!(verbs(operator, &format!("{plural}/status")).is_empty(), "only operators write it: {plural}");
    }
}

#[tokio::test]
async fn own_roles_of_kubernetes_get_what_the_values_say() {
    let helm = Helm::new(None).await.unwrap();
    let of = |objects: &[Value]| -> Vec<String> {
        labelled(objects, STANDARD).into_iter().map(|(kind, _)| kind.to_owned()).collect()
    };
    assert_eq!(of(&rendered(&helm, &[]).await), ["view"]);
    let objects = rendered(&helm, &["access.aggregateTo.edit=true", "access.aggregateTo.view=false"]).await;
    assert_eq!(of(&objects), ["edit"]);
    let edit = labelled(&objects, STANDARD)[0].1;
    assert_eq!(verbs(edit, "tenants"), ["create", "update", "patch"]);
    assert!(verbs(edit, "tenantholds").is_empty());
    let objects = rendered(&helm, &["access.aggregateTo.admin=true"]).await;
    assert_eq!(of(&objects), ["admin", "view"]);
}

#[tokio::test]
async fn another_release_of_the_cluster_can_leave_them_out() {
    let helm = Helm::new(None).await.unwrap();
    let of_access = |objects: &[Value]| {
        let policies = of_kind(objects, "ValidatingAdmissionPolicy");
        let named = policies.iter().filter_map(|policy| policy["metadata"]["name"].as_str());
        let ours = named.filter(|name| {
            ["tenants", "finalizers", "holds", "servers", "breaker", "owners"]
                .iter()
                .any(|part| *name == format!("tenantry-{part}"))
        });
        (labelled(objects, OWN).len(), ours.count())
    };
    assert_eq!(of_access(&rendered(&helm, &[]).await), (5, 6));
    assert_eq!(of_access(&rendered(&helm, &["access.roles=false"]).await), (0, 6));
    assert_eq!(of_access(&rendered(&helm, &["access.policies=false"]).await), (5, 0));
}
