//! A real container registry on loopback, behind a door of ours: it can ask for a password, or be shut.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::error::{Context, Result};
use crate::paths::RunDirectory;
use crate::process::{End, Launch, Lifetime};
use crate::service::Service;
use crate::{build_script, ports, process};

/// Who may pass the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// Everybody.
    Open,
    /// Those who give this user and password.
    Locked(String, String),
    /// No client: every connection is closed at once.
    Shut,
}

/// The registry; it ends when dropped.
#[derive(Debug)]
pub struct ContainerRegistry {
    program: PathBuf,
    run: RunDirectory,
    port: u16,
    door: Arc<Mutex<Door>>,
    door_port: u16,
    accepting: JoinHandle<()>,
    _service: Service,
}

impl ContainerRegistry {
    /// Starts one. Its program is built first if this machine has not built it before.
    pub async fn start() -> Result<Self> {
        let program = build_script::run("dev/tools/crane.sh", "crane").await?;
        let (run, port) = (RunDirectory::new()?, ports::free()?);
        let launch = Launch {
            name: "container registry".to_owned(),
            program: program.clone(),
            arguments: vec![
                "registry".to_owned(),
                "serve".to_owned(),
                format!("--address=127.0.0.1:{port}"),
                format!("--disk={}", run.path().join("blobs").display()),
            ],
            environment: Vec::new(),
            log: run.path().join("registry.log"),
            user: None,
            end: End::Kill,
        };
        std::fs::create_dir(run.path().join("blobs")).context("creating the registry's directory")?;
        let service = Service::new(launch, Lifetime::WithParent);
        service.start()?;
        let answers = || async move { TcpStream::connect(("127.0.0.1", port)).await.is_ok() };
        service.wait_until(Duration::from_secs(60), answers).await?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("binding a port")?;
        let door_port = listener.local_addr().context("reading a port")?.port();
        let door = Arc::new(Mutex::new(Door::Open));
        let rule = Arc::clone(&door);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let rule = rule.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(async move { drop(pass(stream, &rule, port).await) });
            }
        });
        Ok(Self { program, run, port, door, door_port, accepting, _service: service })
    }

    /// Host and port, as in a reference: behind the door.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.door_port)
    }

    /// Host and port past the door, for pushing.
    pub fn inside(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Changes who may pass, for connections that begin later.
    pub fn set(&self, door: Door) {
        *self.door.lock().unwrap_or_else(PoisonError::into_inner) = door;
    }

    /// The directory with the blobs.
    pub fn blobs(&self) -> PathBuf {
        self.run.path().join("blobs")
    }

    /// Runs crane and returns its standard output.
    pub async fn crane(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        process::clear_environment(&mut command);
        command.env("HOME", self.run.path());
        process::text(command, &format!("crane {}", arguments.join(" ")), b"").await
    }

    /// Pushes an image of these layers, each the bytes of a tar archive; returns its digest.
    pub async fn push(&self, image: &str, layers: &[Vec<u8>]) -> Result<String> {
        let reference = format!("{}/{image}", self.inside());
        let mut arguments = vec!["append".to_owned(), format!("--new_tag={reference}")];
        for (number, layer) in layers.iter().enumerate() {
            let path = self.run.path().join(format!("layer-{number}.tar"));
            std::fs::write(&path, layer).at("writing", &path)?;
            arguments.push(format!("--new_layer={}", path.display()));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.crane(&arguments).await?;
        Ok(self.crane(&["digest", &reference]).await?.trim().to_owned())
    }
}

impl Drop for ContainerRegistry {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

const LONGEST_HEAD: usize = 64 << 10;

/// Lets a connection pass if its first request may.
async fn pass(mut stream: TcpStream, door: &Door, port: u16) -> std::io::Result<()> {
    let expected = match door {
        Door::Shut => return Ok(()),
        Door::Open => None,
        Door::Locked(user, password) => {
            Some(format!("basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
        }
    };
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let given = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then_some(value)
    });
    // The scheme's name in any case, the rest as it is.
    let is_right = |expected: &str| {
        given.is_some_and(|given| {
            given.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic "))
                && given[6..] == expected[6..]
        })
    };
    if expected.is_some_and(|expected| !is_right(&expected)) {
        let refusal = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"registry\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(refusal).await;
    }
    let mut inside = TcpStream::connect(("127.0.0.1", port)).await?;
    inside.write_all(&head).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut inside).await.map(drop)
}
