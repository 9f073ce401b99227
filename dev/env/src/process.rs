//! Children: how they are spawned, told apart and ended.
//!
//! A child that ends with us gets a parent-death signal. The kernel sends it when the *thread* that spawned the child
//! ends, and test runtimes come and go, so one thread that lives as long as the process spawns them all.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

use rustix::process::{Pid, kill_process};
use serde::{Deserialize, Serialize};

pub use rustix::process::Signal;

use crate::error::{Context, Error, Result};
use crate::places;

/// Whether a child ends with the process that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It does, however that process ends.
    WithParent,
    /// It goes on in the background: `make up`.
    Detached,
}

/// The user that PostgreSQL runs as when we are root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The id of its primary group.
    pub gid: u32,
}

impl User {
    /// `postgres`, else `nobody`; none unless we are root, for then nothing need change.
    pub fn for_database() -> Result<Option<Self>> {
        if places::user_id()? != 0 {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| users.lines().find_map(|line| Self::parse(line, name)))
            .map(Some)
            .ok_or_else(|| Error::message("PostgreSQL does not run as root: add a user named postgres"))
    }

    fn parse(line: &str, name: &str) -> Option<Self> {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let _password = fields.next()?;
        Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What it is called in messages.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments. Never a password: everybody on the machine can read them.
    pub arguments: Vec<String>,
    /// Its environment. Nothing else is inherited but `PATH`, `HOME` and `RUST_*`: the caller's `KUBECONFIG` and `PG…`
    /// variables must not reach it.
    pub environment: Vec<(String, String)>,
    /// Where its output goes.
    pub log: PathBuf,
    /// The user to run as, if another.
    pub user: Option<User>,
    /// How it is ended when we end, in order or killed.
    pub end: End,
}

/// The signal that ends a process when we end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGKILL: for what leaves nothing behind that matters. An orderly end may never come when all parts end at once:
    /// kube-apiserver waits for an etcd that is gone.
    Kill,
    /// SIGQUIT, PostgreSQL's immediate shutdown.
    Quit,
}

impl End {
    /// As a signal to send.
    pub fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Quit => Signal::QUIT,
        }
    }

    /// As `setpriv` spells it.
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
        }
    }
}

impl Launch {
    fn command(&self, lifetime: Lifetime) -> Result<Command> {
        let mut words = Vec::new();
        if lifetime == Lifetime::Detached {
            words.push("setsid".to_owned());
        }
        if lifetime == Lifetime::WithParent || self.user.is_some() {
            words.push("setpriv".to_owned());
            if let Some(user) = self.user {
                words.extend([
                    format!("--reuid={}", user.uid),
                    format!("--regid={}", user.gid),
                    "--clear-groups".to_owned(),
                ]);
            }
            if lifetime == Lifetime::WithParent {
                words.push(format!("--pdeathsig={}", self.end.name()));
            }
            words.push("--".to_owned());
        }
        words.push(self.program.display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(&self.arguments);
        bare(&mut command);
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

/// Takes the caller's environment away, but for what programs need to run at all.
pub(crate) fn bare(command: &mut Command) {
    command.env_clear();
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["PATH", "HOME", "TZ"].contains(&&*text) || text.starts_with("RUST_") {
            command.env(&name, value);
        }
    }
    command.env("LANG", "C.UTF-8").current_dir("/");
}

/// A process, told apart from a later one that happens to get the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The process id.
    pub pid: i32,
    /// When the kernel started it, in clock ticks since boot.
    pub started: u64,
}

impl ProcessRecord {
    /// The process that has this id now, if one has.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field, the name, is in parentheses and may contain anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        // A zombie is dead; in a container without an init process it stays one.
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        Some(Self { pid, started: fields.nth(18)?.parse().ok()? })
    }

    /// Reads one from its file.
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
                // It ended between the two looks.
                Err(rustix::io::Errno::SRCH) => Ok(()),
                outcome => outcome
                    .map_err(std::io::Error::from)
                    .context(format!("sending a signal to process {}", self.pid)),
            },
            _ => Ok(()),
        }
    }
}

/// A child of ours, or a process that an earlier command left in the background.
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

    /// Takes over a process that an earlier command started, if it still runs.
    pub(crate) fn adopt(record: ProcessRecord) -> Option<Self> {
        record.is_alive().then_some(Self { record, child: None })
    }

    pub(crate) fn record(&self) -> ProcessRecord {
        self.record
    }

    /// Whether it still runs; one of ours that does not is reaped.
    pub(crate) fn is_alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => self.record.is_alive(),
        }
    }
}

type Order = (Command, Sender<std::io::Result<Child>>);

fn spawn_on_thread(command: Command) -> std::io::Result<Child> {
    static SPAWNER: LazyLock<Sender<Order>> = LazyLock::new(|| {
        let (orders, receiver) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let gone = || std::io::Error::other("the thread that starts children is gone");
    let (answer, outcome) = channel();
    SPAWNER.send((command, answer)).map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}

/// Runs a short command to its end, as another user if one is given; its output becomes the error when it fails.
pub(crate) async fn run(program: &Path, arguments: &[&str], user: Option<User>) -> Result<String> {
    let mut command = if let Some(user) = user {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
            .args(["--clear-groups", "--"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.args(arguments).stdin(Stdio::null());
    bare(&mut command);
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await
        .context(format!("running {}", program.display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::message(format!(
        "{} failed ({}):\n{}{}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    )))
}

/// The last lines of a log, for a message.
pub(crate) fn tail(log: &Path) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(15)..].join("\n");
    format!("{last}\n(all of it in {})", log.display())
}
