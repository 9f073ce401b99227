//! Directories: the cache, data that is kept between runs, and the temporary directory of one run.
//!
//! PostgreSQL refuses to run as root, so for root everything it must read is below the temporary directory, which
//! another user can traverse; root's home usually is not.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Context, Error, Result};

/// The user id of this process.
pub(crate) fn user_id() -> Result<u32> {
    Ok(std::fs::metadata("/proc/self").context("reading /proc (only Linux is supported)")?.uid())
}

/// The mode of a directory of ours. PostgreSQL runs as another user when we are root, so that user must be able to
/// traverse root's directories; it cannot list them.
pub(crate) fn private_mode() -> Result<u32> {
    Ok(if user_id()? == 0 { 0o711 } else { 0o700 })
}

/// The cache of what takes long to create: `${XDG_CACHE_HOME:-~/.cache}/tenantry`.
pub fn cache() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".cache"),
        _ => return Err(Error::message("set HOME or XDG_CACHE_HOME: built parts are cached there")),
    };
    directory(base.join("tenantry"), 0o755)
}

/// The cache of what the user that PostgreSQL runs as must be able to read.
pub fn shared_cache() -> Result<PathBuf> {
    if user_id()? == 0 { directory(persistent_root()?.join("cache"), 0o755) } else { cache() }
}

/// The root of data that outlives a run, such as that of `make up`. It is on a disk where the temporary directory is in
/// memory.
pub fn persistent_root() -> Result<PathBuf> {
    private_root(Path::new("/var/tmp"))
}

/// The root of data that is removed with its run.
pub fn temporary_root() -> Result<PathBuf> {
    private_root(&std::env::temp_dir())
}

/// The root of data in memory that is removed with its run; none where memory is scarce.
fn memory_root() -> Option<PathBuf> {
    let shared = Path::new("/dev/shm");
    let files = rustix::fs::statfs(shared).ok().filter(|files| files.f_type == TMPFS)?;
    let free = files.f_bavail.saturating_mul(files.f_bsize.unsigned_abs());
    // A tmpfs may be larger than what is free.
    let information = std::fs::read_to_string("/proc/meminfo").ok()?;
    let available = information.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = available.trim().strip_suffix(" kB")?.parse().ok()?;
    let is_enough = free.min(kilobytes.saturating_mul(1024)) >= MEMORY_LEFT;
    is_enough.then(|| private_root(shared).ok()).flatten()
}

/// `f_type` of a tmpfs (`TMPFS_MAGIC`, statfs(2)).
const TMPFS: i64 = 0x0102_1994;

/// What must be free in memory, in bytes, before a run takes some.
const MEMORY_LEFT: u64 = 8 << 30;

/// `tenantry-<uid>` below a directory that every user may write to: refused when another user created it first.
fn private_root(parent: &Path) -> Result<PathBuf> {
    let uid = user_id()?;
    let root = directory(parent.join(format!("tenantry-{uid}")), private_mode()?)?;
    let metadata = std::fs::symlink_metadata(&root).at("reading", &root)?;
    if metadata.uid() != uid || !metadata.is_dir() {
        return Err(Error::message(format!("{} belongs to another user: remove it", root.display())));
    }
    Ok(root)
}

/// The checkout that this program was built in.
pub fn checkout() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path.pop();
    path
}

/// The program of this name on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Creates a directory with this mode, and its parents. An existing directory keeps its mode.
pub(crate) fn directory(path: PathBuf, mode: u32) -> Result<PathBuf> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).at("creating", parent)?;
    }
    match DirBuilder::new().mode(mode).create(&path) {
        Ok(()) => {
            // The umask may have removed bits that another user needs.
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).at("setting the mode of", &path)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).at("creating", &path),
    }
    Ok(path)
}

/// Writes a file that only this user can read.
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

/// Opens the lock file at `path` and waits until this process holds its lock. The lock is released when the file is
/// dropped and when its holder dies. `busy` is shown while it waits.
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

/// The directory of one run. It is removed when this is dropped, and also when the process is killed.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    /// Locked for as long as the run lasts: it shows other runs that the directory is in use.
    lock: Option<File>,
    /// A process that waits for the lock, then removes the directory.
    remover: Option<Child>,
}

impl RunDirectory {
    /// Creates a directory, and removes those whose owners are dead.
    pub fn new() -> Result<Self> {
        Self::below(&temporary_root()?)
    }

    /// A directory in memory, where there is enough: for data that many files are created and deleted in, and that has to
    /// survive no crash of the machine.
    pub fn in_memory() -> Result<Self> {
        memory_root().map_or_else(Self::new, |root| Self::below(&root))
    }

    fn below(root: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let gate = root.join("lock");
        let gate_file = File::create(&gate).at("opening", &gate)?;
        // Locked until the new directory's own lock is held, so that no other run sweeps it away.
        gate_file.lock().at("locking", &gate)?;
        sweep(root);
        let name = format!("run-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = directory(root.join(name), private_mode()?)?;
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
        // Without a remover the next run sweeps.
        Ok(Self { path, lock: Some(lock), remover: remover.ok() })
    }

    /// Its path.
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

/// Removes the directories of runs that have ended. A lock decides, not a process id: containers may share the
/// directory.
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
