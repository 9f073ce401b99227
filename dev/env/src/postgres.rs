//! A PostgreSQL server of our own on loopback.

use std::fmt::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};

use crate::binaries::{self, Binaries, Version};
use crate::certificates::Certificate;
use crate::error::{Context, Error, Result};
use crate::process::{self, End, Launch, Lifetime, Signal, User};
use crate::service::Service;
use crate::{places, ports, progress};

/// How long a server may take to start, after a crash too.
const PATIENCE: Duration = Duration::from_secs(60);

/// What kind of server.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Which version.
    pub version: Version,
    /// Whether commits reach the disk. Off for tests; on for whatever is measured, shown or kept.
    pub fsync: bool,
    /// More lines for the configuration, such as `("max_connections", "20")`; the last of a name wins.
    pub settings: Vec<(String, String)>,
    /// Offers TLS with this certificate. Clients may still come without, unless `hba` says otherwise.
    pub tls: Option<Certificate>,
    /// The whole of `pg_hba.conf`, in place of "passwords, from loopback".
    pub hba: Option<String>,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ends the sessions, writes a checkpoint.
    Fast,
    /// As a crash of the server would: the next start recovers.
    Immediate,
}

/// A running PostgreSQL server. It ends, and its data goes, when this is dropped, unless it was placed.
#[derive(Debug)]
pub struct Postgres {
    service: Service,
    binaries: Binaries,
    data: PathBuf,
    port: u16,
    password: String,
    user: Option<User>,
    // Last, so that the data goes after the server.
    _run: Option<places::RunDirectory>,
}

impl Postgres {
    /// Starts a new server for this process, on a free port, with data that ends with it.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        let binaries = binaries::find(options.version).await?;
        let step = progress::step(format!("PostgreSQL {}", binaries.version));
        let outcome = async {
            let run = places::RunDirectory::new()?;
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

    /// The server whose data is in `directory`, made there if there is none; it goes on when this process ends, and the
    /// data stays. Starts it unless it runs.
    pub async fn place(
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
            let fresh = !data.exists();
            if fresh {
                initialize(&binaries, &data, password).await?;
            }
            let server = Self::describe(binaries, directory, port, password.to_owned(), Lifetime::Detached)?;
            if fresh {
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
            // Immediate: the data goes with the run, and shared memory is given back.
            end: End::Quit,
        };
        let service = Service::new(launch, lifetime);
        Ok(Self { service, binaries, data, port, password, user, _run: None })
    }

    /// Writes the configuration; it holds from the next start on.
    pub fn configure(&self, options: &PostgresOptions) -> Result<()> {
        let on_off = |yes| if yes { "on" } else { "off" };
        let mut text = format!(
            "# Written by tenantry-dev.\n\
             listen_addresses = '127.0.0.1'\n\
             port = {}\n\
             # No socket files: a path in the temporary directory may be longer than a socket's may be.\n\
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

    /// Writes a file into the data directory, readable by the server alone.
    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.data.join(name);
        std::fs::write(&path, content).at("writing", &path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).at("writing", &path)?;
        give(&path, self.user)
    }

    /// Starts it, on the same port and data, unless it runs, and waits until it takes connections.
    pub async fn start_again(&self) -> Result<()> {
        if !self.service.is_running() {
            self.clear_remains().await?;
        }
        if self.service.start()? {
            self.service.wait_until(PATIENCE, || self.answers()).await?;
        }
        Ok(())
    }

    /// Stops it and waits until it is gone; the data stays.
    pub async fn stop(&self, mode: Stop) -> Result<()> {
        let signal = if mode == Stop::Fast { Signal::INT } else { Signal::QUIT };
        self.service.stop(signal, PATIENCE).await
    }

    /// Removes the lock file of a server that was killed, once none of its processes is left. PostgreSQL does so itself,
    /// but for a process id that a zombie or somebody else has, it believes that the old server runs.
    async fn clear_remains(&self) -> Result<()> {
        let lock = self.data.join("postmaster.pid");
        if !lock.exists() {
            return Ok(());
        }
        let begun = std::time::Instant::now();
        // Every process of a server works in its data directory; a zombie works nowhere.
        while processes_in(&self.data)? {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err(Error::message(format!("another server runs in {}", self.data.display())));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::fs::remove_file(&lock).at("removing", &lock)
    }

    async fn answers(&self) -> bool {
        match self.connect("postgres").await {
            Ok(_) => true,
            // A refusal in words that is not "starting up" will not go away: better seen by the first user.
            Err(Error::Postgres(sqlx::Error::Database(error))) => error.code().as_deref() != Some("57P03"),
            Err(_) => false,
        }
    }

    /// A session of the superuser.
    pub async fn connect(&self, database: &str) -> Result<PgConnection> {
        let options: PgConnectOptions = self.admin_url(database).parse()?;
        Ok(options.connect().await?)
    }

    /// The superuser's URL for this database.
    pub fn admin_url(&self, database: &str) -> String {
        self.url("postgres", &self.password, database)
    }

    /// A URL for this login and database. The three must need no escaping.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        url(self.port, user, password, database)
    }

    /// Where its data is: to be copied, and put back, while it is stopped.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Which PostgreSQL it is.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The process, to be killed, frozen and looked at.
    pub fn service(&self) -> &Service {
        &self.service
    }
}

/// Whether any living process works in this directory.
fn processes_in(directory: &Path) -> Result<bool> {
    let directory = directory.canonicalize().at("reading", directory)?;
    let processes = std::fs::read_dir("/proc").context("reading /proc")?;
    Ok(processes
        .flatten()
        .any(|process| std::fs::read_link(process.path().join("cwd")).is_ok_and(|place| place == directory)))
}

/// A URL for a server on this port of 127.0.0.1.
pub(crate) fn url(port: u16, user: &str, password: &str, database: &str) -> String {
    format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}?sslmode=disable")
}

/// A password that needs no quoting anywhere.
pub fn password() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

fn give(path: &Path, user: Option<User>) -> Result<()> {
    match user {
        Some(user) => chown(path, Some(user.uid), Some(user.gid)).at("giving away", path),
        None => Ok(()),
    }
}

/// Makes a data directory with one superuser, `postgres`.
async fn initialize(binaries: &Binaries, data: &Path, password: &str) -> Result<()> {
    let user = User::for_database()?;
    // Made under another name, so that a cut-off run leaves nothing that looks finished.
    let fresh = data.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&fresh);
    places::directory(fresh.clone(), 0o700)?;
    give(&fresh, user)?;
    let secret = fresh.with_extension("password");
    places::write_secret(&secret, password)?;
    give(&secret, user)?;
    let outcome = process::run(
        &binaries.directory.join("initdb"),
        &[
            "--pgdata",
            &fresh.display().to_string(),
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
    let configuration = fresh.join("postgresql.conf");
    let mut text = std::fs::read_to_string(&configuration).at("reading", &configuration)?;
    text.push_str("\ninclude = 'tenantry.conf'\n");
    std::fs::write(&configuration, text).at("writing", &configuration)?;
    std::fs::rename(&fresh, data).at("renaming to", data)
}

/// Copies a data directory that was made once per version and user: a tenth of the time `initdb` takes. Its password is
/// as secret as the directory. Returns the password.
async fn clone_template(binaries: &Binaries, data: &Path) -> Result<String> {
    let user = User::for_database()?.map_or(0, |user| user.uid);
    let cache = places::directory(places::shared_cache()?.join("postgresql"), 0o755)?;
    // The name carries a digest of what makes the template, so that a change here makes a new one.
    let name = format!("template-{}-{user}-1", binaries.version.replace('/', "_"));
    let template = cache.join(name);
    let secret = template.join("password");
    {
        let _lock = places::lock(cache.join("template.lock"), "somebody else prepares PostgreSQL").await?;
        if !secret.is_file() {
            let _ = std::fs::remove_dir_all(&template);
            places::directory(template.clone(), 0o711)?;
            let password = password();
            initialize(binaries, &template.join("data"), &password).await?;
            // Last: a template without it is not finished.
            places::write_secret(&secret, &password)?;
        }
    }
    let (from, to) = (template.join("data").display().to_string(), data.display().to_string());
    process::run(Path::new("cp"), &["--archive", "--reflink=auto", &from, &to], None).await?;
    std::fs::read_to_string(&secret).at("reading", &secret)
}
