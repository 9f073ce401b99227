//! The flags of the admission webhook.

use std::{net::SocketAddr, time::Duration};

use clap::Args;

use crate::webhook::WebhookSettings;

/// How the admission webhook is served.
#[derive(Args)]
pub struct WebhookArguments {
    /// Address of the admission webhook, over HTTPS; default: none is served, and who deletes an object is not known
    #[arg(long, env = "TENANTRY_WEBHOOK_ADDRESS", value_name = "ADDRESS:PORT")]
    webhook_address: Option<SocketAddr>,

    /// Names by which the API server reaches the admission webhook, separated by commas, for its certificate; default:
    /// tenantry.<operator-namespace>.svc
    #[arg(long, env = "TENANTRY_WEBHOOK_NAMES", value_delimiter = ',', value_name = "NAMES")]
    webhook_names: Vec<String>,

    /// Name of the ValidatingWebhookConfiguration and of the MutatingWebhookConfiguration of the admission webhook, in which
    /// the operator writes its certificate authority
    #[arg(
        long,
        env = "TENANTRY_WEBHOOK_CONFIGURATION",
        default_value = "tenantry.tenantry-system",
        value_name = "NAME"
    )]
    webhook_configuration: String,

    /// Secret of the operator's namespace with the certificate of the admission webhook, which the operator creates and renews
    #[arg(long, env = "TENANTRY_WEBHOOK_SECRET", default_value = "tenantry-webhook", value_name = "NAME")]
    webhook_secret: String,

    /// For tests: how long a certificate of the admission webhook is valid, in seconds
    #[arg(long, hide = true, default_value_t = 90 * 24 * 3600, value_name = "SECONDS")]
    test_webhook_lifetime: u32,
}

impl WebhookArguments {
    /// How it is served; none: it is not.
    pub fn settings(&self, namespace: &str) -> Option<WebhookSettings> {
        let default = || vec![format!("tenantry.{namespace}.svc")];
        Some(WebhookSettings {
            address: self.webhook_address?,
            names: if self.webhook_names.is_empty() { default() } else { self.webhook_names.clone() },
            configuration: self.webhook_configuration.clone(),
            secret: self.webhook_secret.clone(),
            namespace: namespace.to_owned(),
            lifetime: Duration::from_secs(self.test_webhook_lifetime.into()),
        })
    }
}
