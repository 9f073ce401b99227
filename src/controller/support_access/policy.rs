//! The admission policy `tenantry-support-access`: it refuses a SupportAccess whose `requestedBy` or `approvedBy` is not the
//! name of the user who writes it, and an approval without the verb approve. Without it, both names are what anybody wrote, so
//! that nothing is granted.

use k8s_openapi::{
    api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::SignedDuration,
};
use kube::{Api, Client};

use crate::api::support_access::SupportAccess;

/// Its name, and that of its binding.
const POLICY: &str = "tenantry-support-access";

/// How long an API server may take to see a new policy.
const TAKES_EFFECT: SignedDuration = SignedDuration::from_secs(5);

/// Why the names in a SupportAccess prove nothing; none if they do.
///
/// # Errors
/// The answer of the API server.
pub async fn missing(object: &SupportAccess, client: &Client) -> Result<Option<String>, kube::Error> {
    let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    let (policy, binding) = (policies.get_opt(POLICY).await?, bindings.get_opt(POLICY).await?);
    Ok(fault(object, policy.as_ref(), binding.as_ref()))
}

fn fault(
    object: &SupportAccess,
    policy: Option<&ValidatingAdmissionPolicy>,
    binding: Option<&ValidatingAdmissionPolicyBinding>,
) -> Option<String> {
    let (Some(policy), Some(binding)) = (policy, binding) else {
        return Some(format!(
            "the ValidatingAdmissionPolicy {POLICY} and its binding do not both exist: install those of the chart (supportAccess.policy), and create another SupportAccess"
        ));
    };
    let spec = policy.spec.as_ref();
    let ignores =
        spec.is_none_or(|spec| spec.failure_policy.as_deref().is_some_and(|policy| policy != "Fail"));
    let bound = binding.spec.as_ref().is_some_and(|spec| {
        spec.policy_name.as_deref() == Some(POLICY)
            && spec.match_resources.is_none()
            && spec.validation_actions.iter().flatten().any(|action| action == "Deny")
    });
    if ignores || !bound {
        return Some(format!(
            "the ValidatingAdmissionPolicy {POLICY} or its binding was changed so that it does not refuse everywhere: install those of the chart again, and create another SupportAccess"
        ));
    }
    let is_older = |metadata: &ObjectMeta| {
        let (theirs, ours) =
            (metadata.creation_timestamp.as_ref()?, object.metadata.creation_timestamp.as_ref()?);
        Some(theirs.0.checked_add(TAKES_EFFECT).ok()? <= ours.0)
    };
    let seen = [&policy.metadata, &binding.metadata].into_iter().all(|found| is_older(found) == Some(true));
    (!seen).then(|| {
        format!(
            "this SupportAccess was created before the ValidatingAdmissionPolicy {POLICY} was in force, so that nothing proves who requested it: create another"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn found(seconds: u8, policy: Value, binding: Value) -> Option<String> {
        let metadata = json!({"name": POLICY, "creationTimestamp": "2026-11-30T12:00:00Z"});
        let policy: ValidatingAdmissionPolicy =
            serde_json::from_value(json!({"metadata": metadata, "spec": policy})).unwrap();
        let binding: ValidatingAdmissionPolicyBinding =
            serde_json::from_value(json!({"metadata": metadata, "spec": binding})).unwrap();
        let mut object = SupportAccess::new("look", Default::default());
        object.metadata = serde_json::from_value(
            json!({"name": "look", "creationTimestamp": format!("2026-11-30T12:00:{seconds:02}Z")}),
        )
        .unwrap();
        fault(&object, Some(&policy), Some(&binding))
    }

    #[test]
    fn only_a_policy_that_refuses_everywhere_and_was_there_before_counts() {
        let bound = json!({"policyName": POLICY, "validationActions": ["Deny"]});
        assert_eq!(found(30, json!({"failurePolicy": "Fail"}), bound.clone()), None);
        assert_eq!(found(30, json!({}), bound.clone()), None);
        assert!(found(2, json!({}), bound.clone()).unwrap().contains("was created before"));
        for (policy, binding) in [
            (json!({"failurePolicy": "Ignore"}), bound.clone()),
            (json!({}), json!({"policyName": "another", "validationActions": ["Deny"]})),
            (json!({}), json!({"policyName": POLICY, "validationActions": ["Audit"]})),
            (
                json!({}),
                json!({"policyName": POLICY, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": {}}}),
            ),
        ] {
            let text = found(30, policy.clone(), binding.clone()).unwrap();
            assert!(text.contains("was changed"), "{policy} {binding}: {text}");
        }
        let object = SupportAccess::new("look", Default::default());
        assert!(fault(&object, None, None).unwrap().contains("do not both exist"));
    }
}
