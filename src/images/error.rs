//! Why an image has no files for us. Each message says what to do.

use oci_client::errors::{OciDistributionError, OciErrorCode};

/// Why an image could not be pulled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The reference is none.
    #[error(
        "{reference:?} is no reference of an image: {why}; write it as in registry.example/app/migrations:v1 or registry.example/app/migrations@sha256:…"
    )]
    Reference {
        /// As written.
        reference: String,
        /// Why.
        why: String,
    },
    /// The pull Secret has no usable credentials.
    #[error("{0}")]
    Credentials(String),
    /// The container registry wants other credentials, or any.
    #[error(
        "{reference}: the container registry refuses access ({why}): name a Secret of type kubernetes.io/dockerconfigjson that may pull it in pullSecretRef, or correct the one that is named"
    )]
    Unauthorized {
        /// The image.
        reference: String,
        /// Its answer.
        why: String,
    },
    /// There is no such image.
    #[error(
        "{reference}: there is no such image in the container registry: push it, or correct the reference{}", hint(*is_recorded)
    )]
    NotFound {
        /// The image.
        reference: String,
        /// The digest is the one that was recorded for a tag.
        is_recorded: bool,
    },
    /// The container registry does not answer, or not as it should.
    #[error("{reference}: the container registry could not be read, and is asked again: {why}")]
    Unreachable {
        /// The image.
        reference: String,
        /// Why.
        why: String,
    },
    /// The image cannot be used.
    #[error("{reference}: {why}")]
    Content {
        /// The image.
        reference: String,
        /// Why, and what to do.
        why: String,
    },
}

fn hint(is_recorded: bool) -> &'static str {
    if is_recorded {
        "; this digest was recorded when the tag was looked up: name another tag or digest"
    } else {
        ""
    }
}

impl ImageError {
    /// From an answer of the container registry, or its absence.
    pub(super) fn of_registry(reference: &str, error: &OciDistributionError, is_recorded: bool) -> Self {
        let reference = reference.to_owned();
        let unauthorized =
            |why: &str| Self::Unauthorized { reference: reference.clone(), why: one_line(why) };
        let not_found = || Self::NotFound { reference: reference.clone(), is_recorded };
        let why = match error {
            OciDistributionError::UnauthorizedError { .. } => return unauthorized("401"),
            OciDistributionError::AuthenticationFailure(why) => return unauthorized(why),
            OciDistributionError::ImageManifestNotFoundError(_)
            | OciDistributionError::ServerError { code: 404, .. } => return not_found(),
            OciDistributionError::ServerError { code: code @ (401 | 403), .. } => {
                return unauthorized(&code.to_string());
            }
            OciDistributionError::ServerError { code, .. } => format!("it answered with status {code}"),
            OciDistributionError::RegistryError { envelope, .. } => {
                let has =
                    |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
                let text: Vec<&str> = envelope.errors.iter().map(|error| error.message.as_str()).collect();
                let text = text.join("; ");
                if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    return unauthorized(&text);
                }
                if has(&[
                    OciErrorCode::ManifestUnknown,
                    OciErrorCode::NameUnknown,
                    OciErrorCode::NotFound,
                    OciErrorCode::BlobUnknown,
                    OciErrorCode::ManifestBlobUnknown,
                ]) {
                    return not_found();
                }
                text
            }
            other => with_causes(other),
        };
        Self::Unreachable { reference, why: one_line(&why) }
    }
}

/// An error with its causes: a failed request names neither the refused connection nor the wrong certificate.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The most of a foreign text that a condition shows.
const SHOWN: usize = 300;

fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    text.trim().to_owned()
}
