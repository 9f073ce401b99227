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

/// What records users.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Recorder {
    Policy,
    Webhook,
    None,
}

#[tokio::test]
async fn users_are_recorded_as_the_api_server_can_and_the_value_says() {
    let helm = Helm::new(None).await.unwrap();
    let image = ["--set", "image.repository=tenantry", "--set", "crds.install=false"];
    let without = ["--set", "webhook.enabled=false"];
    for (arguments, recorder) in [
        (V1.to_vec(), Recorder::Policy),
        (BETA.to_vec(), Recorder::Webhook),
        (vec![], Recorder::Webhook),
        (without.to_vec(), Recorder::None),
        ([V1, ["--set", "admission.recordUsers=auto"]].concat(), Recorder::Policy),
        ([V1, ["--set", "admission.recordUsers=false"]].concat(), Recorder::None),
        ([V1, ["--set", "admission.recordUsers=webhook"]].concat(), Recorder::Webhook),
        (["--set", "admission.recordUsers=true"].to_vec(), Recorder::Policy),
    ] {
        let objects = render(&helm, &[&image[..], &arguments].concat()).await;
        let recorded = recorder != Recorder::None;
        for (kind, installed) in [
            ("MutatingAdmissionPolicy", recorder == Recorder::Policy),
            ("ValidatingAdmissionPolicy", recorded),
        ] {
            let (policies, bindings) =
                (of_kind(&objects, kind), of_kind(&objects, &format!("{kind}Binding")));
            // Support access has a policy of its own, for every version.
            let names: Vec<_> =
                policies.iter().map(|policy| &policy["metadata"]["name"]).filter(records_users).collect();
            let bound: Vec<_> =
                bindings.iter().map(|binding| &binding["spec"]["policyName"]).filter(records_users).collect();
            assert_eq!((names.len(), &names), (usize::from(installed), &bound), "{arguments:?}");
        }
        let webhooks = of_kind(&objects, "MutatingWebhookConfiguration").len();
        assert_eq!(webhooks, usize::from(recorder == Recorder::Webhook), "{arguments:?}");
        let checks = of_kind(&objects, "ValidatingWebhookConfiguration").len();
        assert_eq!(checks, usize::from(arguments != without), "{arguments:?}");
    }
}

/// Nothing depends on the webhook, and it is asked about what is the operator's only.
#[tokio::test]
async fn webhooks_are_ignored_when_they_do_not_answer() {
    let helm = Helm::new(None).await.unwrap();
    let arguments = [
        "--set",
        "image.repository=tenantry",
        "--set",
        "admission.recordUsers=webhook",
        "--set",
        "watch.namespaces={eu,us}",
    ];
    let objects = render(&helm, &arguments).await;
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        for hook in of_kind(&objects, kind)[0]["webhooks"].as_array().unwrap() {
            let name = &hook["name"];
            assert_eq!(
                (&hook["failurePolicy"], &hook["timeoutSeconds"]),
                (&json!("Ignore"), &json!(3)),
                "{name}"
            );
            for rule in hook["rules"].as_array().unwrap() {
                let resources = rule["resources"].as_array().unwrap();
                assert!(
                    resources.iter().all(|it| !it.as_str().unwrap().contains('/')),
                    "{name}: {resources:?}"
                );
            }
            let elsewhere = [
                // These are about kinds of the cluster.
                "plans.tenantry.dev",
                "deletions.cluster.tenantry.dev",
                // This one is about objects in namespaces of customers.
                "changes.accounts.tenantry.dev",
            ];
            if !elsewhere.contains(&name.as_str().unwrap()) {
                let values = &hook["namespaceSelector"]["matchExpressions"][0]["values"];
                assert_eq!(values, &json!(["eu", "us"]), "{name}");
            }
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
