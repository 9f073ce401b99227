//! What can fail while an environment is started, in terms for the user at the terminal.

use std::path::Path;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, with the message to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A complete message.
    #[error("{0}")]
    Message(String),
    /// A file, directory or process could not be used.
    #[error("{what}: {source}")]
    Io {
        /// The action and its object.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// PostgreSQL refused, or could not be reached.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The API server refused, or could not be reached.
    #[error("Kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    /// A kubeconfig cannot be read.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// A certificate could not be created.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A state file is not valid.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// A failure whose message is complete.
    pub fn message(message: impl Into<String>) -> Self {
        Self::Message(message.into())
    }
}

/// Adds the action to an IO error.
pub(crate) trait Context<T> {
    /// Names the action.
    fn context(self, what: impl Into<String>) -> Result<T>;
    /// Names the action and its path.
    fn at(self, action: &str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Io { what: what.into(), source })
    }

    fn at(self, action: &str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { what: format!("{action} {}", path.display()), source })
    }
}
