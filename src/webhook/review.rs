//! The question that the API server asks, `AdmissionReview` of admission.k8s.io/v1, and its answer.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::admission::AdmissionDecision;

/// A question.
#[derive(Debug, Deserialize)]
pub struct Review {
    /// Its content.
    pub request: ReviewRequest,
}

/// A request to the API server.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewRequest {
    /// Names the question.
    pub uid: String,
    /// The object's namespace.
    #[serde(default)]
    pub namespace: String,
    /// The object's name.
    #[serde(default)]
    pub name: String,
    /// Who requests it.
    pub user_info: RequestingUser,
    /// The object as it would be; null: it is deleted.
    #[serde(default)]
    pub object: Value,
    /// The object as it is; null: it is new.
    #[serde(default)]
    pub old_object: Value,
    /// A dry run: it changes nothing.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// A user, as the API server authenticated them.
#[derive(Debug, Deserialize)]
pub struct RequestingUser {
    /// Their name.
    #[serde(default)]
    pub username: String,
}

/// An answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Value,
}

impl Answer {
    fn of(response: Value) -> Self {
        Self { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response }
    }

    /// The request is allowed, refused, or allowed with a warning.
    pub fn decision(request: &ReviewRequest, decision: &AdmissionDecision) -> Self {
        let mut response = json!({"uid": request.uid, "allowed": true});
        match decision {
            AdmissionDecision::Allowed => {}
            AdmissionDecision::Warned(text) => response["warnings"] = json!([text]),
            AdmissionDecision::Refused { code, reason, message } => {
                response["allowed"] = json!(false);
                response["status"] =
                    json!({"status": "Failure", "code": code, "reason": reason, "message": message});
            }
        }
        Self::of(response)
    }

    /// The request is allowed, with an annotation of the object.
    pub fn annotated(request: &ReviewRequest, annotation: &str, text: &str) -> Self {
        let has_annotations = request.object["metadata"]["annotations"].is_object();
        let patch = match has_annotations {
            true => json!([{"op": "add", "value": text,
                "path": format!("/metadata/annotations/{}", annotation.replace('~', "~0").replace('/', "~1"))}]),
            false => json!([{"op": "add", "path": "/metadata/annotations", "value": {annotation: text}}]),
        };
        let patch = BASE64_STANDARD.encode(patch.to_string());
        Self::of(json!({"uid": request.uid, "allowed": true, "patchType": "JSONPatch", "patch": patch}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(object: Value) -> ReviewRequest {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "operation": "CREATE", "namespace": "customers", "name": "acme", "dryRun": false,
            "userInfo": {"username": "alice", "groups": ["system:masters"]}, "object": object, "oldObject": null}});
        serde_json::from_value::<Review>(review).unwrap().request
    }

    fn response(answer: &Answer) -> Value {
        serde_json::to_value(answer).unwrap()["response"].clone()
    }

    #[test]
    fn decisions_are_in_the_words_of_the_api_server() {
        let request = request(json!({}));
        let answer = |decision: &AdmissionDecision| response(&Answer::decision(&request, decision));
        assert_eq!(answer(&AdmissionDecision::Allowed), json!({"uid": "u", "allowed": true}));
        assert_eq!(answer(&AdmissionDecision::Warned("look".into()))["warnings"], json!(["look"]));
        let refused =
            AdmissionDecision::Refused { code: 409, reason: "AlreadyExists", message: "taken".into() };
        let refused = answer(&refused);
        assert_eq!((&refused["allowed"], &refused["status"]["code"]), (&json!(false), &json!(409)));
        assert_eq!(refused["status"]["reason"], "AlreadyExists");
    }

    #[test]
    fn annotation_is_added_with_or_without_others() {
        for (object, path) in [
            (json!({"metadata": {}}), "/metadata/annotations"),
            (json!({"metadata": {"annotations": {"a": "b"}}}), "/metadata/annotations/tenantry.dev~1changes"),
        ] {
            let answer = response(&Answer::annotated(&request(object), "tenantry.dev/changes", "1 * alice"));
            let patch = BASE64_STANDARD.decode(answer["patch"].as_str().unwrap()).unwrap();
            let patch: Value = serde_json::from_slice(&patch).unwrap();
            assert_eq!((&patch[0]["op"], &patch[0]["path"]), (&json!("add"), &json!(path)));
        }
    }
}
