//! The spans of requests to the API server: of those within a reconcile that change something.

use http::{Method, Response};
use opentelemetry::{
    Context, KeyValue,
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt},
};

use super::spans::in_span;

/// Sends a request for this path, in a span.
pub async fn request<B, E>(
    method: Method,
    path: String,
    sent: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<B>, E> {
    if method.is_safe() || !Context::current().span().span_context().is_sampled() {
        return sent.await;
    }
    let template = template(&path);
    let attributes = vec![
        KeyValue::new("http.request.method", method.to_string()),
        KeyValue::new("url.template", template.clone()),
        KeyValue::new("url.path", path),
    ];
    let span = || {
        SpanBuilder::from_name(format!("{method} {template}"))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
    };
    let work = async {
        let answer = sent.await;
        let context = Context::current();
        let span = context.span();
        match &answer {
            Ok(answer) => {
                let status = answer.status();
                span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
                if status.is_client_error() || status.is_server_error() {
                    span.set_attribute(KeyValue::new("error.type", status.as_u16().to_string()));
                    span.set_status(Status::error(status.to_string()));
                }
            }
            Err(_) => span.set_status(Status::error("no answer")),
        }
        answer
    };
    in_span(work, span).await
}

/// The path without the names of objects.
fn template(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    let version = if parts.get(1) == Some(&"api") { 2 } else { 3 };
    let mut kind = version + 1;
    // Unless the object is a namespace itself.
    if parts.get(kind) == Some(&"namespaces") && parts.len() > kind + 2 && parts[kind + 2] != "status" {
        parts[kind + 1] = "{namespace}";
        kind += 2;
    }
    if let Some(name) = parts.get_mut(kind + 1) {
        *name = "{name}";
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_has_no_names() {
        for (path, expected) in [
            ("/api/v1/namespaces/customers/secrets/acme-db", "/api/v1/namespaces/{namespace}/secrets/{name}"),
            ("/api/v1/namespaces/customers/secrets", "/api/v1/namespaces/{namespace}/secrets"),
            ("/api/v1/namespaces/customers", "/api/v1/namespaces/{name}"),
            (
                "/apis/tenantry.dev/v1alpha1/namespaces/customers/tenants/acme/status",
                "/apis/tenantry.dev/v1alpha1/namespaces/{namespace}/tenants/{name}/status",
            ),
            (
                "/apis/tenantry.dev/v1alpha1/databaseservers/default/status",
                "/apis/tenantry.dev/v1alpha1/databaseservers/{name}/status",
            ),
            ("/livez", "/livez"),
            ("", ""),
        ] {
            assert_eq!(template(path), expected);
        }
    }
}
