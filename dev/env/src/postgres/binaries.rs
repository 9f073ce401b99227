//! PostgreSQL's server binaries: `DEV_PG_BINDIR`, else installed ones, else those of Maven Central.

use std::path::{Path, PathBuf};

use super::archive;
use crate::error::{Context, Error, Result};
use crate::{paths, process, progress};

/// The version that is fetched of each major version. The versions are exact, so that a cached one needs no network.
const PUBLISHED: [(u16, &str); 4] = [(18, "18.6.0"), (17, "17.11.0"), (16, "16.15.0"), (15, "15.19.0")];

/// A PostgreSQL version that a server may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// `DEV_PG_BINDIR`, else the newest installed version, else 18 from Maven Central.
    #[default]
    Any,
    /// This major version, 15 to 18: `DEV_PG_BINDIR` or an installed one if it has that version, else Maven Central's.
    Major(u16),
}

/// The programs of a PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The directory of `initdb` and `postgres`.
    pub directory: PathBuf,
    /// The major version.
    pub major: u16,
    /// The full version, such as `18.6`.
    pub version: String,
}

/// Finds a version, and fetches it if it is not on this machine.
pub async fn find(wanted: Version) -> Result<Binaries> {
    if let Some(directory) = std::env::var_os("DEV_PG_BINDIR").filter(|value| !value.is_empty()) {
        let chosen = inspect(Path::new(&directory))
            .await
            .map_err(|error| Error::message(format!("DEV_PG_BINDIR holds no PostgreSQL server: {error}")))?;
        if wanted == Version::Any || wanted == Version::Major(chosen.major) {
            return Ok(chosen);
        }
    }
    let mut installed = installed().await;
    installed.retain(|found| match wanted {
        Version::Any => found.major >= 15,
        Version::Major(major) => found.major == major,
    });
    if let Some(newest) = installed.into_iter().max_by_key(|found| found.major) {
        return Ok(newest);
    }
    let major = if let Version::Major(major) = wanted { major } else { PUBLISHED[0].0 };
    let (_, version) = PUBLISHED.iter().find(|(published, _)| *published == major).ok_or_else(|| {
        Error::message(format!("PostgreSQL {major} is neither installed nor published for tests"))
    })?;
    fetch(version).await
}

/// The versions that are installed where Debian and Ubuntu, Red Hat, Arch or a build from source put them.
async fn installed() -> Vec<Binaries> {
    let mut directories = vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/pgsql/bin")];
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        directories.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .map(|entry| entry.path().join("bin")),
        );
    }
    let mut found = Vec::new();
    for directory in directories {
        if directory.join("initdb").is_file()
            && let Ok(binaries) = inspect(&directory).await
        {
            found.push(binaries);
        }
    }
    found
}

async fn inspect(directory: &Path) -> Result<Binaries> {
    let answer = process::run(&directory.join("postgres"), &["--version"], None).await?;
    let version = answer.split_whitespace().nth(2).unwrap_or_default().to_owned();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    let major =
        digits.parse().map_err(|_| Error::message(format!("unknown PostgreSQL version: {answer}")))?;
    Ok(Binaries { directory: directory.to_owned(), major, version })
}

/// A published version, from the cache, else from Maven Central into the cache.
async fn fetch(version: &str) -> Result<Binaries> {
    let cache = paths::directory(paths::shared_cache()?.join("postgresql"), 0o755)?;
    let directory = cache.join(version);
    if !directory.is_dir() {
        let _lock = paths::lock(cache.join("lock"), "another process fetches PostgreSQL").await?;
        if !directory.is_dir() {
            let step = progress::step(format!(
                "fetching PostgreSQL {version} from Maven Central: 15 MB, once per machine"
            ));
            // Renamed when it is complete: an interrupted run leaves nothing that looks finished.
            let new = directory.with_file_name(format!("{version}-new-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&new);
            step.end(archive::unpack(version, &new).await)?;
            std::fs::rename(&new, &directory).at("renaming to", &directory)?;
        }
    }
    inspect(&directory.join("bin")).await
}
