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

/// What is missing, as a strategic merge patch of `webhooks`; none: nothing is.
pub fn missing(list: &impl WebhookList, authorities: &str, word: &str) -> Option<Value> {
    let bundle = ByteString(authorities.as_bytes().to_vec());
    let mut patches = Vec::new();
    for (name, client) in list.clients() {
        let mut patch = json!({});
        if client.ca_bundle.as_ref() != Some(&bundle) {
            patch["caBundle"] = json!(bundle);
        }
        if let Some(path) = client.service.as_ref().and_then(|service| service.path.as_deref()) {
            let wanted = with_word(path, word);
            if wanted != path {
                patch["service"] = json!({"path": wanted});
            }
        }
        if let Some((origin, path)) = client.url.as_deref().and_then(split_url) {
            let wanted = with_word(path, word);
            if wanted != path {
                patch["url"] = json!(format!("{origin}{wanted}"));
            }
        }
        if patch != json!({}) {
            patches.push(json!({"name": name, "clientConfig": patch}));
        }
    }
    (!patches.is_empty()).then(|| json!(patches))
}

/// A path with its first part, which says what is asked, and the word.
fn with_word(path: &str, word: &str) -> String {
    let question = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    format!("/{question}/{word}")
}

/// The origin and the path of a URL.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let host = url.find("://")? + 3;
    let path = url[host..].find('/')? + host;
    Some(url.split_at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(clients: Value) -> ValidatingWebhookConfiguration {
        let hook = |(number, client): (usize, &Value)| {
            json!({"name": format!("{number}.tenantry.dev"), "clientConfig": client, "sideEffects": "None",
                "admissionReviewVersions": ["v1"]})
        };
        let hooks: Vec<Value> = clients.as_array().unwrap().iter().enumerate().map(hook).collect();
        serde_json::from_value(json!({"metadata": {}, "webhooks": hooks})).unwrap()
    }

    #[test]
    fn what_is_missing_is_written_and_nothing_else() {
        let bundle = json!(ByteString(b"pem".to_vec()));
        let service = json!({"name": "tenantry", "namespace": "system", "path": "/slugs"});
        let fresh = list(json!([{"service": service}, {"url": "https://127.0.0.1:9443/holds"}]));
        assert_eq!(
            missing(&fresh, "pem", "word"),
            Some(json!([
                {"name": "0.tenantry.dev", "clientConfig": {"caBundle": bundle, "service": {"path": "/slugs/word"}}},
                {"name": "1.tenantry.dev",
                    "clientConfig": {"caBundle": bundle, "url": "https://127.0.0.1:9443/holds/word"}},
            ]))
        );
        let complete = list(json!([
            {"caBundle": bundle, "url": "https://127.0.0.1:9443/holds/word"},
        ]));
        assert_eq!(missing(&complete, "pem", "word"), None);
        // Another word, another authority.
        let patch = missing(&complete, "pem", "other").unwrap();
        assert_eq!(patch[0]["clientConfig"], json!({"url": "https://127.0.0.1:9443/holds/other"}));
        let patch = missing(&complete, "pem2", "word").unwrap();
        assert_eq!(patch[0]["clientConfig"].as_object().unwrap().keys().collect::<Vec<_>>(), ["caBundle"]);
    }
}
