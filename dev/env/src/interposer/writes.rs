//! Requests to the API server that change something.

use std::fmt;

use http::{Method, Uri};

/// A request to the API server that changes something which is kept. Not one: a change of a Lease or an Event, which
/// tell of the operator and not of its work; a dry run; a review of rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The API group; empty for the core.
    pub group: String,
    /// The resource, such as `secrets`.
    pub resource: String,
    /// The namespace, if it is in one.
    pub namespace: Option<String>,
    /// The object's name; none when one is made.
    pub name: Option<String>,
    /// Such as `status`, if it is for one.
    pub subresource: Option<String>,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Groups whose resources are questions.
const QUESTIONS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];
/// Parts of a Namespace, which look like resources in it.
const PARTS_OF_NAMESPACES: [&str; 2] = ["finalize", "status"];

impl Write {
    /// What this request is, if it is one.
    pub(super) fn of(method: &Method, uri: &Uri) -> Option<Self> {
        let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
        let dry = uri.query().unwrap_or_default().split('&').any(|pair| pair.starts_with("dryRun="));
        if !writes || dry {
            return None;
        }
        let path = uri.path();
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match segments.as_slice() {
            ["api", _version, rest @ ..] => ("", rest),
            ["apis", group, _version, rest @ ..] => (*group, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", _, part, ..] if PARTS_OF_NAMESPACES.contains(part) => (None, rest),
            ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (Some(*namespace), inner),
            _ => (None, rest),
        };
        let (resource, rest) = rest.split_first()?;
        let passing = matches!(
            (group, *resource),
            ("coordination.k8s.io", "leases") | ("" | "events.k8s.io", "events")
        );
        if passing || QUESTIONS.contains(&group) {
            return None;
        }
        let part = |index: usize| rest.get(index).map(|text| (*text).to_owned());
        Some(Self {
            method: method.to_string(),
            path: path.to_owned(),
            group: group.to_owned(),
            resource: (*resource).to_owned(),
            namespace: namespace.map(str::to_owned),
            name: part(0),
            subresource: part(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(method: Method, uri: &'static str) -> Option<Write> {
        Write::of(&method, &Uri::from_static(uri))
    }

    #[test]
    fn what_is_written_is_read_from_the_path() {
        for (uri, group, resource, namespace, name, subresource) in [
            ("/api/v1/namespaces", "", "namespaces", None, None, None),
            ("/api/v1/namespaces/ns", "", "namespaces", None, Some("ns"), None),
            ("/api/v1/namespaces/ns/finalize", "", "namespaces", None, Some("ns"), Some("finalize")),
            ("/api/v1/namespaces/ns/secrets?fieldManager=x", "", "secrets", Some("ns"), None, None),
            (
                "/apis/tenantry.dev/v1alpha1/namespaces/ns/tenants/acme/status",
                "tenantry.dev",
                "tenants",
                Some("ns"),
                Some("acme"),
                Some("status"),
            ),
            ("/apis/apps/v1/x/y", "apps", "x", None, Some("y"), None),
        ] {
            let got = write(Method::PATCH, uri).expect("a write");
            assert_eq!((&*got.group, &*got.resource), (group, resource), "{uri}");
            let rest = (got.namespace.as_deref(), got.name.as_deref(), got.subresource.as_deref());
            assert_eq!(rest, (namespace, name, subresource), "{uri}");
            assert!(uri.starts_with(&got.path) && got.to_string().starts_with("PATCH /"));
        }
    }

    #[test]
    fn what_changes_nothing_that_matters_is_none() {
        for (method, uri) in [
            (Method::GET, "/api/v1/namespaces/ns/secrets"),
            (Method::POST, "/version"),
            (Method::PATCH, "/api/v1/namespaces/ns/secrets/x?fieldManager=y&dryRun=All"),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/ns/leases/tenantry"),
            (Method::POST, "/api/v1/namespaces/ns/events"),
            (Method::POST, "/apis/events.k8s.io/v1/namespaces/ns/events"),
            (Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ] {
            assert_eq!(write(method, uri), None, "{uri}");
        }
    }
}
