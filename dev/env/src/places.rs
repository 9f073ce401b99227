//! Where things live: what is kept between runs, and what ends with one.
//!
//! PostgreSQL refuses to run as root, so for root everything it must reach is below the temporary directory, which
//! another user can traverse; root's home usually is not.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Context, Error, Result};

/// Our own user id.
pub(crate) fn user_id() -> Result<u32> {
    Ok(std::fs::metadata("/proc/self").context("reading /proc (only Linux is supported)")?.uid())
}

/// The directory of what is kept between runs and costs time to make again: `${XDG_CACHE_HOME:-~/.cache}/tenantry`.
pub fn cache() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".cache"),
        _ => return Err(Error::message("set HOME or XDG_CACHE_HOME: built parts are cached there")),
    };
    directory(base.join("tenantry"), 0o755)
}

/// The cache of what the user that runs PostgreSQL must be able to read.
pub fn shared_cache() -> Result<PathBuf> {
    if user_id()? == 0 { directory(lasting()?.join("cache"), 0o755) } else { cache() }
}

/// The root of what outlives a run, such as the data of `make up`; on a disk rather than in memory where they differ.
pub fn lasting() -> Result<PathBuf> {
    private_root(Path::new("/var/tmp"))
}

/// The root of what ends with its run.
pub fn passing() -> Result<PathBuf> {
    private_root(&std::env::temp_dir())
}

/// `tenantry-<uid>` below a directory that anybody may write to: refused when somebody else made it first.
fn private_root(parent: &Path) -> Result<PathBuf> {
    let uid = user_id()?;
    // Root's must be passable for the user that PostgreSQL runs as; its listing is nobody's business.
    let root = directory(parent.join(format!("tenantry-{uid}")), if uid == 0 { 0o711 } else { 0o700 })?;
    let metadata = std::fs::symlink_metadata(&root).at("reading", &root)?;
    if metadata.uid() != uid || !metadata.is_dir() {
        return Err(Error::message(format!("{} belongs to somebody else: remove it", root.display())));
    }
    Ok(root)
}

/// The checkout this was built in.
pub fn checkout() -> PathBuf {
    let mut place = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    place.pop();
    place.pop();
    place
}

/// The program of this name on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Makes a directory, and its parents, with this mode; one that exists is taken as it is.
pub(crate) fn directory(path: PathBuf, mode: u32) -> Result<PathBuf> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).at("making", parent)?;
    }
    match DirBuilder::new().mode(mode).create(&path) {
        Ok(()) => {
            // The umask may have taken bits away that another user needs.
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).at("setting the mode of", &path)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).at("making", &path),
    }
    Ok(path)
}

/// Writes a file that only we can read.
pub(crate) fn write_secret(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .at("writing", path)?;
    file.write_all(content.as_bytes()).at("writing", path)
}

/// Opens the lock file at `path` and waits until it is ours; it is released when the file is dropped, or its holder dies.
pub(crate) async fn lock(path: PathBuf, busy: &str) -> Result<File> {
    let file = File::create(&path).at("opening", &path)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error).at("locking", &path),
    }
    let _step = crate::progress::step(format!("waiting: {busy}"));
    let name = path.clone();
    tokio::task::spawn_blocking(move || file.lock().map(|()| file))
        .await
        .map_err(|error| Error::message(error.to_string()))?
        .at("locking", &name)
}

/// The directory of one run. It goes with its owner, also when that is killed.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    /// Held for as long as the run lives; by it others see that the directory is in use.
    lock: Option<File>,
    /// Waits for the lock, then removes the directory.
    remover: Option<Child>,
}

impl RunDirectory {
    /// Makes a new one, and removes those whose owners are dead.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = passing()?;
        let gate = root.join("lock");
        let gate_file = File::create(&gate).at("opening", &gate)?;
        // Held until our own lock is taken, so that no sweep sees our directory without it.
        gate_file.lock().at("locking", &gate)?;
        sweep(&root);
        let name = format!("run-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = directory(root.join(name), if user_id()? == 0 { 0o711 } else { 0o700 })?;
        let lock = owner_lock(&path)?;
        lock.lock().at("locking", &path)?;
        let remover = Command::new("setsid")
            .args([
                "flock".as_ref(),
                path.join(OWNER).as_os_str(),
                "rm".as_ref(),
                "-rf".as_ref(),
                path.as_os_str(),
            ])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        // Without it the next run sweeps.
        Ok(Self { path, lock: Some(lock), remover: remover.ok() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        self.lock = None;
        if let Some(remover) = &mut self.remover {
            let _ = remover.wait();
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

const OWNER: &str = "owner.lock";

fn owner_lock(run: &Path) -> Result<File> {
    let path = run.join(OWNER);
    File::create(&path).at("opening", &path)
}

/// Removes the directories of runs that are over. A lock tells, not a process id: containers may share the directory.
fn sweep(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("run-")
            && owner_lock(&entry.path()).is_ok_and(|lock| lock.try_lock().is_ok())
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
