//! The policies that record users are installed where the API server knows them, or as the value says.

use serde_json::{Value, json};
use tenantry_dev::helm::Helm;

use crate::{of_kind, render};

const V1: [&str; 2] = ["--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"];
/// Kubernetes 1.34 and 1.35 have it too.
const BETA: [&str; 2] = ["--api-versions", "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy"];

fn records_users(name: &&Value) -> bool {
    name.as_str().unwrap().ends_with(".changes")
}

#[tokio::test]
async fn policies_depend_on_the_api_server_and_on_the_value() {
    let helm = Helm::new(None).await.unwrap();
    let image = ["--set", "image.repository=tenantry", "--set", "crds.install=false"];
    let set = |value: &'static str| match value {
        "true" => ["--set", "admission.recordUsers=true"],
        "false" => ["--set", "admission.recordUsers=false"],
        _ => ["--set", "admission.recordUsers=auto"],
    };
    for (arguments, installed) in [
        (V1.to_vec(), true),
        (BETA.to_vec(), false),
        (vec![], false),
        ([V1, set("auto")].concat(), true),
        ([V1, set("false")].concat(), false),
        (set("true").to_vec(), true),
    ] {
        let objects = render(&helm, &[&image[..], &arguments].concat()).await;
        for kind in ["MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"] {
            let (policies, bindings) =
                (of_kind(&objects, kind), of_kind(&objects, &format!("{kind}Binding")));
            // Support access has a policy of its own, for every version.
            let names: Vec<_> =
                policies.iter().map(|policy| &policy["metadata"]["name"]).filter(records_users).collect();
            let bound: Vec<_> =
                bindings.iter().map(|binding| &binding["spec"]["policyName"]).filter(records_users).collect();
            assert_eq!((names.len(), &names), (usize::from(installed), &bound), "{arguments:?}");
        }
    }
}

/// Every kind with a spec, and every field of it: one that the policies do not know would be changed without being named.
#[tokio::test]
async fn policies_cover_every_kind_and_field() {
    let helm = Helm::new(None).await.unwrap();
    let image = ["--set", "image.repository=tenantry", "--set", "crds.install=false"];
    let objects = render(&helm, &[&image[..], &["--set", "admission.recordUsers=true"]].concat()).await;
    for kind in ["MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"] {
        let objects = of_kind(&objects, kind);
        let policy = objects.iter().find(|policy| records_users(&&policy["metadata"]["name"])).unwrap();
        let spec = &policy["spec"];
        let rule = &spec["matchConstraints"]["resourceRules"][0];
        let variables = spec["variables"].as_array().unwrap();
        let fields = variables.iter().find(|variable| variable["name"] == "fields").unwrap();
        let fields = fields["expression"].as_str().unwrap();
        for crd in tenantry::api::crds() {
            let plural = json!(crd.spec.names.plural);
            assert!(rule["resources"].as_array().unwrap().contains(&plural), "{kind}: {plural}");
            let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
            let spec = schema.properties.unwrap()["spec"].properties.clone().unwrap();
            for field in spec.keys() {
                assert!(fields.contains(&format!("{field:?}")), "{kind}: {plural}: {field}");
                // The pattern of a line of the annotation.
                assert!(field.chars().all(|c| c.is_ascii_alphabetic()), "{field}");
            }
        }
    }
}
