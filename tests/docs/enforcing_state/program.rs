//! A program of the page: installed and started by the page's commands, and asked over HTTP.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use tenantry_dev::ports;
use tenantry_test_support::Wait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

use super::{answers::Columns, tenants::Stage};
use crate::shell::{blocks, blocks_in};

/// The page's, which may be in use here.
const PORT: &str = "8018";

/// Shorter than the page's.
pub const POLL: Duration = Duration::from_secs(2);
pub const STALE: Duration = Duration::from_secs(6);

/// A block of the page is a file of the examples.
pub fn demand_printed(page: &str, language: &str, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/enforcing-state").join(file);
    let content = fs::read_to_string(path).unwrap();
    assert_eq!(blocks_in(page, language), [content.trim_end()], "{file} is not printed as it is");
}

/// An installed program.
pub struct Program {
    start: String,
}

impl Program {
    /// By the first block of its section. The second starts it.
    pub async fn install(page: &str, section: &str, stage: &Stage) -> Self {
        let section = page.split("\n## ").find(|found| found.lines().next() == Some(section)).unwrap();
        let section = format!("\n{section}");
        let commands = blocks(&section);
        let [install, start] = commands[..] else { panic!("{commands:?}") };
        // How this machine reaches a package registry, and what it has of it.
        let home = std::env::var("HOME").unwrap();
        let own: String = std::env::vars()
            .filter(|(name, _)| {
                let name = name.to_lowercase();
                ["pip_", "ssl_", "pyenv_", "npm_config_", "node_"]
                    .iter()
                    .any(|begins| name.starts_with(begins))
                    || name.ends_with("_proxy")
            })
            .map(|(name, value)| format!("export {name}={}\n", quoted(&value)))
            .collect();
        let caches = format!(
            "export PIP_CACHE_DIR={0}/.cache/pip npm_config_cache={0}/.npm NPM_CONFIG_USERCONFIG={0}/.npmrc\n",
            quoted(&home)
        );
        stage.shell.run(&format!("{own}{caches}{install}")).await;
        let (_, directory) = install.split_once("\ncd ").unwrap();
        let directory = directory.split_whitespace().next().unwrap();
        Self { start: format!("cd {directory}\nexec env {start}") }
    }

    /// Without the registry's address, it ends and names the variable.
    pub async fn demand_address(&self, stage: &Stage) {
        let ends = format!("({}) 2>&1 || echo failed", self.start);
        let printed = stage.shell.run(&format!("unset REGISTRY_URL; {ends}")).await;
        assert!(printed.contains("set REGISTRY_URL") && printed.ends_with("failed\n"), "{printed}");
    }

    /// Starts it, and waits until it serves a tenant.
    pub async fn start(&self, stage: &Stage) -> Running {
        let port = ports::free().unwrap();
        let mut bash = Command::new("bash");
        bash.args(["-c", &self.start.replace(PORT, &port.to_string())])
            .env_clear()
            .envs(stage.shell.variables.iter().map(|(name, value)| (name, value)))
            .env("REGISTRY_URL", &stage.registry_url)
            .env("POLL_SECONDS", POLL.as_secs().to_string())
            .env("STALE_SECONDS", STALE.as_secs().to_string())
            .current_dir(&stage.shell.directory);
        let process = bash.kill_on_drop(true).spawn().unwrap();
        let running = Running { process, port };
        running.until("active", 200).await;
        running
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A program that runs.
pub struct Running {
    process: Child,
    port: u16,
}

/// An answer, with its head in lower case.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Running {
    pub async fn stop(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// A command of the page, for this port.
    pub fn here(&self, command: &str) -> String {
        command.replace(PORT, &self.port.to_string())
    }

    /// The answer for a tenant.
    pub async fn ask(&self, slug: &str, method: &str, headers: &[&str]) -> Answer {
        self.try_ask(slug, method, headers).await.unwrap()
    }

    async fn try_ask(&self, slug: &str, method: &str, headers: &[&str]) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!(
            "{method} /notes HTTP/1.1\r\nHost: {slug}.portal.example\r\nConnection: close\r\n{headers}\
             Content-Length: 4\r\n\r\nnote"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
    }

    /// When a customer's reading was first answered so.
    pub async fn until(&self, slug: &str, status: u16) -> Instant {
        Wait::until(format!("{slug} is answered with {status}"))
            .observe(async || {
                let found = self.try_ask(slug, "GET", &[]).await.map_or(0, |answer| answer.status);
                if found == status { Ok(Instant::now()) } else { Err(found) }
            })
            .await
    }

    /// Waits until the application knows the state of a tenant that has its name.
    pub async fn until_state(&self, state: &str) {
        let header = format!("tenant-state: {state}");
        Wait::until(format!("the application knows {state}"))
            .observe(async || {
                let head = self.ask(state, "GET", &[]).await.head;
                if head.lines().any(|line| line == header) { Ok(()) } else { Err(head) }
            })
            .await;
    }

    /// An answer as the table writes it.
    pub async fn answer(&self, slug: &str, column: Columns) -> String {
        const STAFF: [&str; 2] = ["support:ada", "platform:grace"];
        let of_staff = async |method: &str, looks: bool| {
            let mut found = Vec::new();
            for name in STAFF {
                let user = format!("X-Authenticated-User: {name}");
                let mut headers = vec![user.as_str()];
                headers.extend(looks.then_some("Tenant-Access: read-only"));
                found.push(self.cell(slug, method, &headers).await);
            }
            assert_eq!(found[0], found[1], "{slug}: {STAFF:?}");
            found.remove(0)
        };
        match column {
            Columns::CustomerReads => self.cell(slug, "GET", &[]).await,
            Columns::CustomerWrites => {
                let customer = ["X-Authenticated-User: owner@acme.example"];
                let adds = self.cell(slug, "POST", &customer).await;
                let deletes = self.cell(slug, "DELETE", &customer).await;
                if adds == deletes { adds } else { format!("{adds}, but DELETE {deletes}") }
            }
            Columns::StaffWithoutHeader => {
                let (reads, writes) = (of_staff("GET", false).await, of_staff("POST", false).await);
                assert_eq!(reads, writes, "{slug}");
                reads
            }
            Columns::StaffReads => of_staff("GET", true).await,
            Columns::StaffWrites => {
                let (adds, deletes) = (of_staff("POST", true).await, of_staff("DELETE", true).await);
                assert_eq!(adds, deletes, "{slug}");
                adds
            }
        }
    }

    /// The status, and the name of the problem.
    async fn cell(&self, slug: &str, method: &str, headers: &[&str]) -> String {
        let answer = self.ask(slug, method, headers).await;
        if answer.status == 200 {
            return "200".to_owned();
        }
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        let name = problem["type"].as_str().unwrap().strip_prefix("/problems/").unwrap();
        assert_eq!(problem["status"], answer.status, "{problem}");
        format!("{} {name}", answer.status)
    }

    /// A refusal is a document of RFC 9457, which no cache keeps.
    pub async fn demand_problem_details(&self, slug: &str, title: &str) {
        let answer = self.ask(slug, "GET", &[]).await;
        for header in ["content-type: application/problem+json", "cache-control: no-store"] {
            assert!(answer.head.contains(header), "{}", answer.head);
        }
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem["title"], title);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    }
}
