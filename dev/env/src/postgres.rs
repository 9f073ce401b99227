//! A PostgreSQL server on loopback.

pub mod binaries;

mod archive;

use std::fmt::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};

use self::binaries::{Binaries, Version};
use crate::certificates::Certificate;
use crate::error::{Context, Error, Result};
use crate::process::{self, End, Launch, Lifetime, Signal, User};
use crate::service::Service;
use crate::{paths, ports, progress};

/// How long a server may take to start, also after a crash, and to stop.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Its version.
    pub version: Version,
    /// Whether commits reach the disk. Off by default, for tests; on where the server is measured, shown or kept.
    pub fsync: bool,
    /// Additional settings, such as `("max_connections", "20")`; the last one of a name applies.
    pub settings: Vec<(String, String)>,
    /// The certificate with which it offers TLS. Clients may still connect without TLS, unless `hba` forbids it.
    pub tls: Option<Certificate>,
    /// The content of `pg_hba.conf`; by default it accepts passwords from loopback.
    pub hba: Option<String>,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ends the sessions, writes a checkpoint.
    Fast,
    /// Acts as a crash of the server: the next start recovers.
    Immediate,
}

/// A running PostgreSQL server. It ends and its data is removed when this is dropped, unless it was started with
/// `start_detached`.
#[derive(Debug)]
pub struct Postgres {
    service: Service,
    binaries: Binaries,
    data: PathBuf,
    port: u16,
    password: String,
    user: Option<User>,
    // Dropped last, so that the data is removed after the server has ended.
    _run: Option<paths::RunDirectory>,
}

impl Postgres {
    /// Starts a new server for this process, on a free port.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        let binaries = binaries::find(options.version).await?;
        let step = progress::step(format!("PostgreSQL {}", binaries.version));
        let outcome = async {
            // ext4 searches for a free inode for long where many files were deleted just now: a tenant's database has about 370. With
            // fsync, the disk is what is measured.
            let run =
                if options.fsync { paths::RunDirectory::new() } else { paths::RunDirectory::in_memory() }?;
            let password = clone_template(&binaries, &run.path().join("data")).await?;
            let mut server =
                Self::describe(binaries, run.path(), ports::free()?, password, Lifetime::WithParent)?;
            server._run = Some(run);
            server.configure(&options)?;
            server.start_again().await?;
            Ok(server)
        };
        step.end(outcome.await)
    }

    /// Starts the server whose data is in `directory`, unless it runs; the data is created if there is none. The server
    /// keeps running when this process ends.
    pub async fn start_detached(
        directory: &Path,
        port: u16,
        password: &str,
        options: &PostgresOptions,
    ) -> Result<Self> {
        let data = directory.join("data");
        let version = match std::fs::read_to_string(data.join("PG_VERSION")) {
            Ok(major) => major.trim().parse().map_or(Version::Any, Version::Major),
            Err(_) => options.version,
        };
        let binaries = binaries::find(version).await?;
        let step = progress::step(format!("PostgreSQL {} on port {port}", binaries.version));
        let outcome = async {
            let new = !data.exists();
            if new {
                initialize(&binaries, &data, password).await?;
            }
            let server = Self::describe(binaries, directory, port, password.to_owned(), Lifetime::Detached)?;
            if new {
                server.configure(options)?;
            }
            server.start_again().await?;
            Ok(server)
        };
        step.end(outcome.await)
    }

    fn describe(
        binaries: Binaries,
        directory: &Path,
        port: u16,
        password: String,
        lifetime: Lifetime,
    ) -> Result<Self> {
        let (data, user) = (directory.join("data"), User::for_database()?);
        let launch = Launch {
            name: format!("PostgreSQL {}", binaries.version),
            program: binaries.directory.join("postgres"),
            arguments: vec!["-D".to_owned(), data.display().to_string()],
            environment: Vec::new(),
            log: directory.join("postgres.log"),
            user,
            // Immediate: the data is removed anyway, and shared memory is released.
            end: End::Quit,
        };
        let service = Service::new(launch, lifetime);
        Ok(Self { service, binaries, data, port, password, user, _run: None })
    }

    /// Writes the configuration; it applies from the next start on.
    pub fn configure(&self, options: &PostgresOptions) -> Result<()> {
        let on_off = |yes| if yes { "on" } else { "off" };
        let mut text = format!(
            "# Written by tenantry-dev.\n\
             listen_addresses = '127.0.0.1'\n\
             port = {}\n\
             # No socket files: a path in the temporary directory may be too long for one.\n\
             unix_socket_directories = ''\n\
             max_connections = 500\n\
             fsync = {}\n\
             full_page_writes = {}\n\
             recovery_init_sync_method = syncfs\n\
             password_encryption = scram-sha-256\n\
             log_line_prefix = '%m [%p] %q%u@%d %a '\n\
             shared_buffers = '128MB'\n",
            self.port,
            on_off(options.fsync),
            on_off(options.fsync),
        );
        if let Some(certificate) = &options.tls {
            self.write("server.crt", &certificate.certificate)?;
            self.write("server.key", &certificate.key)?;
            text.push_str("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n");
        }
        for (name, value) in &options.settings {
            let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        }
        self.write("tenantry.conf", &text)?;
        if let Some(hba) = &options.hba {
            self.write("pg_hba.conf", hba)?;
        }
        Ok(())
    }

    /// Writes a file into the data directory, readable only by the server.
    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.data.join(name);
        std::fs::write(&path, content).at("writing", &path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).at("writing", &path)?;
        change_owner(&path, self.user)
    }

    /// Starts it on the same port and data, unless it runs, and waits until it accepts connections.
    pub async fn start_again(&self) -> Result<()> {
        if !self.service.is_running() {
            self.remove_stale_lock().await?;
        }
        if self.service.start()? {
            self.service.wait_until(TIMEOUT, || self.answers()).await?;
        }
        Ok(())
    }

    /// Stops it and waits until it has ended; the data stays.
    pub async fn stop(&self, mode: Stop) -> Result<()> {
        let signal = if mode == Stop::Fast { Signal::INT } else { Signal::QUIT };
        self.service.stop(signal, TIMEOUT).await
    }

    /// Removes the lock file of a server that was killed, once all its processes have ended. PostgreSQL itself takes the
    /// lock for that of a running server if a zombie or another process has the process id.
    async fn remove_stale_lock(&self) -> Result<()> {
        let lock = self.data.join("postmaster.pid");
        if !lock.exists() {
            return Ok(());
        }
        let started = std::time::Instant::now();
        // The working directory of every process of a server is its data directory; a zombie has none.
        while processes_in(&self.data)? {
            if started.elapsed() > Duration::from_secs(10) {
                return Err(Error::message(format!("another server runs in {}", self.data.display())));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::fs::remove_file(&lock).at("removing", &lock)
    }

    async fn answers(&self) -> bool {
        match self.connect("postgres").await {
            Ok(_) => true,
            // An error other than "starting up" persists: the first user of the server reports it better.
            Err(Error::Postgres(sqlx::Error::Database(error))) => error.code().as_deref() != Some("57P03"),
            Err(_) => false,
        }
    }

    /// Opens a session of the superuser.
    pub async fn connect(&self, database: &str) -> Result<PgConnection> {
        let options: PgConnectOptions = self.admin_url(database).parse()?;
        Ok(options.connect().await?)
    }

    /// The URL of this database with the superuser's login.
    pub fn admin_url(&self, database: &str) -> String {
        self.url("postgres", &self.password, database)
    }

    /// A URL of this database with this login. The arguments must need no escaping.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        url(self.port, user, password, database)
    }

    /// Its data directory: to copy and restore it while the server is stopped.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its programs and version.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The process, to kill, freeze or inspect it.
    pub fn service(&self) -> &Service {
        &self.service
    }
}

/// Whether this is the working directory of any process.
fn processes_in(directory: &Path) -> Result<bool> {
    let directory = directory.canonicalize().at("reading", directory)?;
    let processes = std::fs::read_dir("/proc").context("reading /proc")?;
    Ok(processes
        .flatten()
        .any(|process| std::fs::read_link(process.path().join("cwd")).is_ok_and(|path| path == directory)))
}

/// A URL of a server on this port of 127.0.0.1.
pub(crate) fn url(port: u16, user: &str, password: &str, database: &str) -> String {
    format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}?sslmode=disable")
}

/// A new password, without characters that need quoting.
pub fn password() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

fn change_owner(path: &Path, user: Option<User>) -> Result<()> {
    match user {
        Some(user) => chown(path, Some(user.uid), Some(user.gid)).at("changing the owner of", path),
        None => Ok(()),
    }
}

/// Creates a data directory with one superuser, `postgres`.
async fn initialize(binaries: &Binaries, data: &Path, password: &str) -> Result<()> {
    let user = User::for_database()?;
    // Renamed when it is complete: an interrupted run leaves nothing that looks finished.
    let new = data.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&new);
    paths::directory(new.clone(), 0o700)?;
    change_owner(&new, user)?;
    let secret = new.with_extension("password");
    paths::write_secret(&secret, password)?;
    change_owner(&secret, user)?;
    let outcome = process::run(
        &binaries.directory.join("initdb"),
        &[
            "--pgdata",
            &new.display().to_string(),
            "--username=postgres",
            "--auth=scram-sha-256",
            "--pwfile",
            &secret.display().to_string(),
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ],
        user,
    )
    .await;
    let removed = std::fs::remove_file(&secret).at("removing", &secret);
    outcome?;
    removed?;
    let configuration = new.join("postgresql.conf");
    let mut text = std::fs::read_to_string(&configuration).at("reading", &configuration)?;
    text.push_str("\ninclude = 'tenantry.conf'\n");
    std::fs::write(&configuration, text).at("writing", &configuration)?;
    std::fs::rename(&new, data).at("renaming to", data)
}

/// Copies a template of a data directory, which is created once per version and user: a copy takes a tenth of `initdb`'s
/// time. Returns the superuser's password, which is stored beside the template and as protected as it.
async fn clone_template(binaries: &Binaries, data: &Path) -> Result<String> {
    let user = User::for_database()?.map_or(0, |user| user.uid);
    let cache = paths::directory(paths::shared_cache()?.join("postgresql"), 0o755)?;
    // Increase the last number when `initialize` changes.
    let name = format!("template-{}-{user}-1", binaries.version.replace('/', "_"));
    let template = cache.join(name);
    let secret = template.join("password");
    {
        let _lock = paths::lock(cache.join("template.lock"), "another process prepares PostgreSQL").await?;
        if !secret.is_file() {
            let _ = std::fs::remove_dir_all(&template);
            paths::directory(template.clone(), 0o711)?;
            let password = password();
            initialize(binaries, &template.join("data"), &password).await?;
            // Last: a template without it is incomplete.
            paths::write_secret(&secret, &password)?;
        }
    }
    let (from, to) = (template.join("data").display().to_string(), data.display().to_string());
    process::run(Path::new("cp"), &["--archive", "--reflink=auto", &from, &to], None).await?;
    std::fs::read_to_string(&secret).at("reading", &secret)
}
