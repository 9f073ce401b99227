//! The connection configuration of a `DatabaseServer`, from its spec and its Secrets.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::prefix::prefix;
use crate::{
    api::{
        database_server::{DatabaseServer, TlsMode},
        reason::Reason,
    },
    controller::context::Context,
    postgres::{ServerConfig, Tls, tenant::credentials::SecretText},
};

/// PostgreSQL's default port.
const DEFAULT_PORT: u16 = 5432;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A Secret could not be read.
    #[error("could not read Secret {name:?} in namespace {namespace:?}: {source}")]
    Read {
        /// The Secret.
        name: String,
        /// The operator's namespace.
        namespace: String,
        /// Why.
        source: kube::Error,
    },
    /// A Secret does not exist.
    #[error("there is no Secret {name:?} in namespace {namespace:?}: create it with the keys {keys}")]
    Missing {
        /// The Secret.
        name: String,
        /// The operator's namespace.
        namespace: String,
        /// What it should contain.
        keys: &'static str,
    },
    /// A Secret lacks the key.
    #[error("Secret {name:?} in namespace {namespace:?} has no usable key {key:?}")]
    Key {
        /// The Secret.
        name: String,
        /// The operator's namespace.
        namespace: String,
        /// The key.
        key: String,
    },
    /// A value cannot be a user name or a password: often the line break at the end of a file.
    #[error(
        "key {key:?} of Secret {name:?} in namespace {namespace:?} has a line break or another control character: write it without one (`printf %s`, not `echo`)"
    )]
    ControlCharacter {
        /// The Secret.
        name: String,
        /// The operator's namespace.
        namespace: String,
        /// The key.
        key: String,
    },
}

impl ConfigurationError {
    /// The condition reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Read { .. } => Reason::KubernetesApiError,
            Self::Missing { .. } | Self::Key { .. } => Reason::SecretNotFound,
            Self::ControlCharacter { .. } => Reason::ServerMisconfigured,
        }
    }
}

/// Reads the configuration. All Secrets are in the operator's namespace, so that a `DatabaseServer` cannot name one of
/// another namespace.
pub async fn configuration(
    server: &DatabaseServer,
    context: &Context,
) -> Result<ServerConfig, ConfigurationError> {
    let spec = &server.spec;
    let admin = secret(context, &spec.admin_secret_ref.name, "username and password").await?;
    let text = |key: &str| {
        let (name, namespace) =
            (spec.admin_secret_ref.name.clone(), context.config.operator_namespace.clone());
        match entry(&admin, key) {
            None => Err(ConfigurationError::Key { name, namespace, key: key.to_owned() }),
            Some(text) if text.chars().any(char::is_control) => {
                Err(ConfigurationError::ControlCharacter { name, namespace, key: key.to_owned() })
            }
            Some(text) => Ok(text),
        }
    };
    let (username, password) = (text("username")?, text("password")?);
    let mode = spec.tls.as_ref().and_then(|tls| tls.mode).unwrap_or(TlsMode::VerifyFull);
    let ca = match spec.tls.as_ref().and_then(|tls| tls.ca_secret_ref.as_ref()) {
        None => None,
        Some(reference) => {
            let secret = secret(context, &reference.name, "of a certificate authority in PEM").await?;
            let pem = entry(&secret, &reference.key).ok_or_else(|| ConfigurationError::Key {
                name: reference.name.clone(),
                namespace: context.config.operator_namespace.clone(),
                key: reference.key.clone(),
            })?;
            Some(pem.into_bytes())
        }
    };
    Ok(ServerConfig {
        name: server.name_any(),
        host: spec.host.clone(),
        port: spec.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(DEFAULT_PORT),
        tls: match mode {
            TlsMode::Disable => Tls::Disable,
            TlsMode::Require => Tls::Require,
            TlsMode::VerifyCa => Tls::VerifyCa { ca },
            TlsMode::VerifyFull => Tls::VerifyFull { ca },
        },
        username,
        password: SecretText::new(password),
        prefix: prefix(Some(server)),
        application_name: context.leader.identity.clone(),
        max_connections: context.config.max_connections,
    })
}

async fn secret(context: &Context, name: &str, keys: &'static str) -> Result<Secret, ConfigurationError> {
    let namespace = context.config.operator_namespace.clone();
    match Api::<Secret>::namespaced(context.client.clone(), &namespace).get_opt(name).await {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(ConfigurationError::Missing { name: name.to_owned(), namespace, keys }),
        Err(source) => Err(ConfigurationError::Read { name: name.to_owned(), namespace, source }),
    }
}

fn entry(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok().filter(|text| !text.is_empty())
}
