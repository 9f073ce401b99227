//! Requests to the API server that change an object.

use std::fmt;

use http::{Method, Uri};

/// A request to the API server that changes a stored object. Changes of Leases and Events are excluded, since they
/// report the operator's state and not its work; so are dry runs and access reviews.
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
    /// The object's name; none for a creation.
    pub name: Option<String>,
    /// The subresource, such as `status`, if it is for one.
    pub subresource: Option<String>,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Groups whose resources are reviews: nothing is stored.
const REVIEWS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];
/// Subresources of a Namespace, whose paths look like those of resources in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["finalize", "status"];

impl Write {
    /// The write that this request is, if it is one.
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
            ["namespaces", _, part, ..] if NAMESPACE_SUBRESOURCES.contains(part) => (None, rest),
            ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (Some(*namespace), inner),
            _ => (None, rest),
        };
        let (resource, rest) = rest.split_first()?;
        let excluded = matches!(
            (group, *resource),
            ("coordination.k8s.io", "leases") | ("" | "events.k8s.io", "events")
        );
        if excluded || REVIEWS.contains(&group) {
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
    fn write_is_parsed_from_path() {
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
    fn reads_dry_runs_reviews_leases_and_events_are_no_writes() {
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
