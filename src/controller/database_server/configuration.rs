//! The connection configuration of a `DatabaseServer`, from its spec and its Secrets.

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kube::{Api, ResourceExt};

use super::{expiry::first_expiry, prefix::prefix};
use crate::{
    api::{
        database_server::{DatabaseServer, SecretKeyRef, TlsMode},
        reason::Reason,
    },
    controller::{context::Context, state::server_credentials::CredentialTimes},
    postgres::{
        ServerConfig, Tls,
        tenant::credentials::{SecretText, without_final_line_break},
    },
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
    /// A key of a Secret is missing, or its value cannot be used.
    #[error("Secret {name:?} in namespace {namespace:?}: key {key:?} {fault}")]
    Key {
        /// The Secret.
        name: String,
        /// The operator's namespace.
        namespace: String,
        /// The key.
        key: String,
        /// What is wrong with it, and what to do.
        fault: Fault,
    },
}

impl ConfigurationError {
    /// The condition reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Read { .. } => Reason::KubernetesApiError,
            Self::Missing { .. } | Self::Key { fault: Fault::Missing, .. } => Reason::SecretNotFound,
            Self::Key { .. } => Reason::ServerMisconfigured,
        }
    }
}

/// Why the value of a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no such key, or its value is empty.
    #[error("is missing or empty: set it")]
    Missing,
    /// No login has such a name or password.
    #[error("is not a text in UTF-8: set it to the text itself")]
    NotText,
    /// A client cannot log in with it.
    #[error(
        "has a line break or another control character within: remove it (one line break at the end is ignored)"
    )]
    ControlCharacter,
    /// No certificate would be trusted.
    #[error(
        "has no certificate in PEM format: set it to one or more, each from BEGIN CERTIFICATE to END CERTIFICATE"
    )]
    NoCertificate,
}

/// Reads the configuration. All Secrets are in the operator's namespace, so that a `DatabaseServer` cannot name one of
/// another namespace.
pub async fn configuration(
    server: &DatabaseServer,
    context: &Context,
) -> Result<ServerConfig, ConfigurationError> {
    let spec = &server.spec;
    let admin = secret(context, &spec.admin_secret_ref.name, "username and password").await?;
    let fault = |name: &str, key: &str, fault| ConfigurationError::Key {
        name: name.to_owned(),
        namespace: context.config.operator_namespace.clone(),
        key: key.to_owned(),
        fault,
    };
    let text = |key: &str| {
        login_text(value(&admin, key)).map_err(|found| fault(&spec.admin_secret_ref.name, key, found))
    };
    let (username, password) = (text("username")?, text("password")?);
    let mode = spec.tls.as_ref().and_then(|tls| tls.mode).unwrap_or(TlsMode::VerifyFull);
    let ca = match spec.tls.as_ref().and_then(|tls| tls.ca_secret_ref.as_ref()) {
        None => None,
        Some(SecretKeyRef { name, key }) => {
            let secret = secret(context, name, "of a certificate authority in PEM").await?;
            Some(certificates(value(&secret, key)).map_err(|found| fault(name, key, found))?)
        }
    };
    let times = CredentialTimes {
        login_changed: last_change(&admin),
        authority_expires: ca.as_deref().and_then(first_expiry),
    };
    context.state.server_credentials.record(&server.name_any(), times);
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

/// When a Secret was last changed, or created.
fn last_change(secret: &Secret) -> Option<Timestamp> {
    let changes = secret.managed_fields().iter().filter_map(|entry| entry.time.as_ref());
    changes.chain(secret.metadata.creation_timestamp.as_ref()).map(|time| time.0).max()
}

async fn secret(context: &Context, name: &str, keys: &'static str) -> Result<Secret, ConfigurationError> {
    let namespace = context.config.operator_namespace.clone();
    match Api::<Secret>::namespaced(context.client.clone(), &namespace).get_opt(name).await {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(ConfigurationError::Missing { name: name.to_owned(), namespace, keys }),
        Err(source) => Err(ConfigurationError::Read { name: name.to_owned(), namespace, source }),
    }
}

fn value<'a>(secret: &'a Secret, key: &str) -> &'a [u8] {
    secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[], |value| &value.0)
}

/// A login's name or password. The line break that an editor adds at the end of a file, and `kubectl create secret
/// --from-file` keeps, is not part of it.
fn login_text(value: &[u8]) -> Result<String, Fault> {
    let text = std::str::from_utf8(value).map_err(|_| Fault::NotText)?;
    match without_final_line_break(text) {
        "" => Err(Fault::Missing),
        text if text.contains(char::is_control) => Err(Fault::ControlCharacter),
        text => Ok(text.to_owned()),
    }
}

/// The certificates of an authority, and nothing that stands beside them: a private key there must not reach the tenants,
/// whose Secrets have them too.
fn certificates(value: &[u8]) -> Result<Vec<u8>, Fault> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(value).map_err(|_| Fault::NoCertificate)?;
    let mut found = String::new();
    for block in text.split(BEGIN).skip(1) {
        let (content, _) = block.split_once(END).ok_or(Fault::NoCertificate)?;
        found.extend([BEGIN, content, END, "\n"]);
    }
    match found.is_empty() {
        _ if text.is_empty() => Err(Fault::Missing),
        true => Err(Fault::NoCertificate),
        false => Ok(found.into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_break_at_the_end_of_a_password_is_not_part_of_it() {
        for value in ["pass word", "pass word\n", "pass word\r\n"] {
            assert_eq!(login_text(value.as_bytes()).as_deref(), Ok("pass word"), "{value:?}");
        }
        for value in ["pass\nword", "password\n\n", "\tpassword", "password\r"] {
            assert_eq!(login_text(value.as_bytes()), Err(Fault::ControlCharacter), "{value:?}");
        }
        assert_eq!((login_text(b"\n"), login_text(b"")), (Err(Fault::Missing), Err(Fault::Missing)));
        assert_eq!(login_text(b"\xff"), Err(Fault::NotText));
    }

    #[test]
    fn certificate_authority_is_its_certificates_alone() {
        let one = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n";
        let two = one.repeat(2);
        for around in [format!("# ours\n{one}{key}{one}"), format!("{key}{one}\n{one}{key}"), two.clone()] {
            assert_eq!(certificates(around.as_bytes()), Ok(two.clone().into_bytes()), "{around}");
        }
        assert_eq!(certificates(b"-----BEGIN CERTIFICATE-----\nMIIB\n"), Err(Fault::NoCertificate));
        assert_eq!(certificates(b""), Err(Fault::Missing));
        assert_eq!(certificates(b"-----BEGIN PRIVATE KEY-----"), Err(Fault::NoCertificate));
    }
}
