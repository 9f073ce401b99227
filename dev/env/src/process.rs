//! Child processes: how they are started, identified and ended.
//!
//! A child that must end with this process gets a parent-death signal. The kernel sends that signal when the *thread*
//! that started the child ends, and test runtimes start and end threads, so one thread that lasts as long as the
//! process starts all children.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

use rustix::process::{Pid, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

pub use rustix::process::Signal;

use crate::error::{Context, Error, Result};
use crate::paths;

/// Whether a child ends with the process that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It ends with that process, even when that process is killed.
    WithParent,
    /// It keeps running in the background: `make up`.
    Detached,
}

/// The user that PostgreSQL runs as when this process is root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The id of its primary group.
    pub gid: u32,
}

impl User {
    /// The user `postgres`, else the unprivileged user of the system. None unless this process is root: then PostgreSQL
    /// runs as the same user.
    pub fn for_database() -> Result<Option<Self>> {
        if paths::user_id()? != 0 {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let find = |wanted: fn(&str, u32) -> bool| users.lines().find_map(|line| Self::parse(line, wanted));
        find(|name, _| name == "postgres")
            .or_else(|| find(|_, uid| uid == UNPRIVILEGED))
            .map(Some)
            .ok_or_else(|| Error::message("PostgreSQL does not run as root: add a user named postgres"))
    }

    fn parse(line: &str, wanted: fn(&str, u32) -> bool) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let user = Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? };
        wanted(name, user.uid).then_some(user)
    }
}

/// The user id that Linux reserves for a user without rights.
const UNPRIVILEGED: u32 = 65_534;

/// How a process is started and ended.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its name in messages.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments. Never a password: every user of the machine can read them.
    pub arguments: Vec<String>,
    /// Its environment. It inherits only `PATH`, `HOME`, `TZ` and `RUST_*`: the caller's `KUBECONFIG` and `PG…`
    /// variables must not reach it.
    pub environment: Vec<(String, String)>,
    /// The file that its output is appended to.
    pub log: PathBuf,
    /// The user to run as, if another.
    pub user: Option<User>,
    /// The signal that ends it when this process ends.
    pub end: End,
}

/// The signal that ends a child when its parent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGKILL: for a process that leaves nothing behind that matters. An orderly end may take forever when all parts
    /// end at once: kube-apiserver waits for etcd.
    Kill,
    /// SIGQUIT, PostgreSQL's immediate shutdown, which removes its shared memory.
    Quit,
}

impl End {
    /// The signal to send.
    pub fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Quit => Signal::QUIT,
        }
    }

    /// The signal's name in `setpriv`'s arguments.
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
        }
    }
}

impl Launch {
    fn command(&self, lifetime: Lifetime) -> Result<Command> {
        let mut line = Vec::new();
        if lifetime == Lifetime::Detached {
            line.push("setsid".to_owned());
        }
        if lifetime == Lifetime::WithParent || self.user.is_some() {
            line.push("setpriv".to_owned());
            line.extend(self.user.into_iter().flat_map(as_user));
            if lifetime == Lifetime::WithParent {
                line.push(format!("--pdeathsig={}", self.end.name()));
            }
            line.push("--".to_owned());
        }
        line.push(self.program.display().to_string());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).args(&self.arguments);
        clear_environment(&mut command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)
            .at("opening the log", &self.log)?;
        let errors = log.try_clone().at("opening the log", &self.log)?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        Ok(command)
    }
}

/// `setpriv`'s arguments to run a program as this user.
fn as_user(user: User) -> [String; 3] {
    [format!("--reuid={}", user.uid), format!("--regid={}", user.gid), "--clear-groups".to_owned()]
}

/// Removes the caller's environment variables except those that programs need to run at all.
pub(crate) fn clear_environment(command: &mut Command) {
    command.env_clear();
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["PATH", "HOME", "TZ"].contains(&&*text) || text.starts_with("RUST_") {
            command.env(&name, value);
        }
    }
    command.env("LANG", "C.UTF-8").current_dir("/");
}

/// A process, distinguished from a later one that gets the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The process id.
    pub pid: i32,
    /// When the kernel started it, in clock ticks since boot.
    pub started: u64,
}

impl ProcessRecord {
    /// The running process with this id, if there is one.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field, the name, is in parentheses and may contain anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        // A zombie has ended; in a container without an init process it stays a zombie.
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        Some(Self { pid, started: fields.nth(18)?.parse().ok()? })
    }

    /// Reads a record from its file; none if there is no valid one.
    pub fn read(file: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
    }

    /// Writes it to a file.
    pub fn write(&self, file: &Path) -> Result<()> {
        std::fs::write(file, serde_json::to_string(self)?).at("writing", file)
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match Pid::from_raw(self.pid) {
            Some(pid) if self.is_alive() => match kill_process(pid, signal) {
                // It ended after `is_alive`.
                Err(rustix::io::Errno::SRCH) => Ok(()),
                outcome => outcome
                    .map_err(std::io::Error::from)
                    .context(format!("sending a signal to process {}", self.pid)),
            },
            _ => Ok(()),
        }
    }
}

/// A child of this process, or a process that an earlier command left in the background.
#[derive(Debug)]
pub(crate) struct Process {
    record: ProcessRecord,
    child: Option<Child>,
}

impl Process {
    /// Starts it.
    pub(crate) fn spawn(launch: &Launch, lifetime: Lifetime) -> Result<Self> {
        let mut child = spawn_on_thread(launch.command(lifetime)?).context(format!(
            "starting {} ({})",
            launch.name,
            launch.program.display()
        ))?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let Some(record) = ProcessRecord::of(pid) else {
            let _ = child.wait();
            return Err(Error::message(format!("{} ended at once:\n{}", launch.name, tail(&launch.log))));
        };
        Ok(Self { record, child: Some(child) })
    }

    /// Adopts a process that an earlier command started, if it still runs.
    pub(crate) fn adopt(record: ProcessRecord) -> Option<Self> {
        record.is_alive().then_some(Self { record, child: None })
    }

    pub(crate) fn record(&self) -> ProcessRecord {
        self.record
    }

    /// Whether it still runs. Reaps a child that has ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => self.record.is_alive(),
        }
    }
}

type SpawnRequest = (Command, Sender<std::io::Result<Child>>);

fn spawn_on_thread(command: Command) -> std::io::Result<Child> {
    static SPAWNER: LazyLock<Sender<SpawnRequest>> = LazyLock::new(|| {
        let (requests, receiver) = channel::<SpawnRequest>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        requests
    });
    let ended = || std::io::Error::other("the thread that starts children has ended");
    let (answer, outcome) = channel();
    SPAWNER.send((command, answer)).map_err(|_| ended())?;
    outcome.recv().map_err(|_| ended())?
}

/// Runs a program to its end, as another user if one is passed, and returns its standard output as text.
pub(crate) async fn run(program: &Path, arguments: &[&str], user: Option<User>) -> Result<String> {
    let mut command = match user {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(as_user(user)).arg("--").arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(arguments);
    clear_environment(&mut command);
    text(command, &program.display().to_string(), b"").await
}

/// As `output`, with the standard output as text.
pub(crate) async fn text(command: Command, what: &str, input: &[u8]) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command, what, input).await?).into_owned())
}

/// Runs a command to its end with this standard input, and returns its standard output. When it fails, the error
/// contains `what` and what the command printed.
pub(crate) async fn output(mut command: Command, what: &str, input: &[u8]) -> Result<Vec<u8>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = || format!("running {what}");
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().context(running())?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command that ends before it has read everything reports the reason itself.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.context(running())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let [printed, errors] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    let text = if errors.is_empty() { printed } else { errors };
    Err(Error::message(format!("{what} failed ({}): {text}", output.status)))
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(15)..].join("\n");
    format!("{last}\n(the whole log: {})", log.display())
}
