//! The webhook configurations, as the chart installs them, need two things that only the operator knows: the authority of its
//! certificate, and the word in its path. Where they are missing, or Helm has taken them away, they are written.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
};
use serde_json::{Value, json};

/// A kind of webhook configuration.
pub trait WebhookList {
    /// How each of its webhooks is reached, by its name.
    fn clients(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl WebhookList for ValidatingWebhookConfiguration {
    fn clients(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

impl WebhookList for MutatingWebhookConfiguration {
    fn clients(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

/// What is missing, as a strategic merge patch of `webhooks`; none: nothing is. The path is no part of what the chart installs: two
/// field managers would take it from each other. The name of a webhook begins with what it asks.
pub fn missing(list: &impl WebhookList, authorities: &str, word: &str) -> Option<Value> {
    let bundle = ByteString(authorities.as_bytes().to_vec());
    let mut patches = Vec::new();
    for (name, client) in list.clients() {
        let question = name.split('.').next().unwrap_or_default();
        let path = format!("/{question}/{word}");
        let mut patch = json!({});
        if client.ca_bundle.as_ref() != Some(&bundle) {
            patch["caBundle"] = json!(bundle);
        }
        if client.service.as_ref().is_some_and(|service| service.path.as_ref() != Some(&path)) {
            patch["service"] = json!({"path": path});
        }
        if let Some(url) = &client.url {
            let wanted = format!("{}{path}", origin(url));
            if wanted != *url {
                patch["url"] = json!(wanted);
            }
        }
        if patch != json!({}) {
            patches.push(json!({"name": name, "clientConfig": patch}));
        }
    }
    (!patches.is_empty()).then(|| json!(patches))
}

/// A URL without its path.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |at| &url[..host + at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(clients: Value) -> ValidatingWebhookConfiguration {
        let hook = |(name, client): (&String, &Value)| {
            json!({"name": format!("{name}.tenantry.dev"), "clientConfig": client, "sideEffects": "None",
                "admissionReviewVersions": ["v1"]})
        };
        let hooks: Vec<Value> = clients.as_object().unwrap().iter().map(hook).collect();
        serde_json::from_value(json!({"metadata": {}, "webhooks": hooks})).unwrap()
    }

    #[test]
    fn what_is_missing_is_written_and_nothing_else() {
        let bundle = json!(ByteString(b"pem".to_vec()));
        let service = json!({"name": "tenantry", "namespace": "system"});
        let fresh = list(json!({"holds": {"url": "https://127.0.0.1:9443"}, "slugs": {"service": service}}));
        assert_eq!(
            missing(&fresh, "pem", "word"),
            Some(json!([
                {"name": "holds.tenantry.dev",
                    "clientConfig": {"caBundle": bundle, "url": "https://127.0.0.1:9443/holds/word"}},
                {"name": "slugs.tenantry.dev",
                    "clientConfig": {"caBundle": bundle, "service": {"path": "/slugs/word"}}},
            ]))
        );
        let service = json!({"name": "tenantry", "namespace": "system", "path": "/slugs/word"});
        let complete = list(json!({
            "holds": {"caBundle": bundle, "url": "https://127.0.0.1:9443/holds/word"},
            "slugs": {"caBundle": bundle, "service": service},
        }));
        assert_eq!(missing(&complete, "pem", "word"), None);
        // Another word, another authority.
        let patch = missing(&complete, "pem", "other").unwrap();
        assert_eq!(patch[0]["clientConfig"], json!({"url": "https://127.0.0.1:9443/holds/other"}));
        assert_eq!(patch[1]["clientConfig"], json!({"service": {"path": "/slugs/other"}}));
        let patch = missing(&complete, "pem2", "word").unwrap();
        assert_eq!(patch[0]["clientConfig"].as_object().unwrap().keys().collect::<Vec<_>>(), ["caBundle"]);
    }
}
