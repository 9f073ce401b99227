//! What an operator requested of the API server, from the audit log of the tests' control planes.

use std::collections::BTreeSet;

use serde_json::Value;
use tenantry_dev::{ControlPlane, ControlPlaneOptions, environment::on_a_thread, rights::ACCOUNT};

/// A control plane that records the requests of operators.
pub(crate) fn audited() -> ControlPlaneOptions {
    ControlPlaneOptions { audited: true, ..ControlPlaneOptions::default() }
}

/// A kind of request for an object or a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditedRequest {
    /// The namespace; none for the cluster's objects, and for lists of all namespaces.
    pub namespace: Option<String>,
    /// The API group; empty for the core.
    pub group: String,
    /// The resource, after a slash the subresource.
    pub resource: String,
    /// The object's name; none for lists and creations.
    pub name: Option<String>,
    /// `get`, `list`, `patch` …
    pub verb: String,
    /// Whether the API server's authorization admitted it.
    pub allowed: bool,
}

/// The requests of the operator of a namespace.
pub fn requests(plane: &ControlPlane, operator_namespace: &str) -> BTreeSet<AuditedRequest> {
    let user = format!("system:serviceaccount:{operator_namespace}:{ACCOUNT}");
    let text = std::fs::read_to_string(plane.audit_log()).unwrap();
    // The last line may be incomplete.
    let events = text.lines().filter(|line| line.contains(&user));
    let events = events.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["user"]["username"] == *user).filter_map(|event| request(&event)).collect()
}

fn request(event: &Value) -> Option<AuditedRequest> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    // Discovery has none.
    let object = event.get("objectRef")?;
    let mut resource = text(&object["resource"])?;
    if let Some(part) = object["subresource"].as_str() {
        resource = format!("{resource}/{part}");
    }
    Some(AuditedRequest {
        namespace: text(&object["namespace"]),
        group: text(&object["apiGroup"]).unwrap_or_default(),
        resource,
        name: text(&object["name"]),
        verb: text(&event["verb"])?,
        allowed: event["annotations"]["authorization.k8s.io/decision"] == "allow",
    })
}

/// Panics if the API server refused the operator of a namespace something in a namespace that exists: its Role in a
/// namespace is deleted with it.
pub(crate) fn demand_rights_suffice(plane: &ControlPlane, operator_namespace: &str) {
    let refused: Vec<AuditedRequest> =
        requests(plane, operator_namespace).into_iter().filter(|request| !request.allowed).collect();
    if refused.is_empty() {
        return;
    }
    let kubectl = plane.kubectl();
    let existing =
        on_a_thread(move || async move { kubectl.run(&["get", "ns", "-o", "name"]).await }).unwrap();
    let exists = |namespace: &str| existing.lines().any(|line| line == format!("namespace/{namespace}"));
    for request in refused {
        let namespace = request.namespace.as_deref();
        assert!(!namespace.is_none_or(exists), "the rights of the chart do not suffice: {request:?}");
    }
}
