//! A server with an authority of its own, and the Secret of a tenant of it, as the kubelet mounts it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use sqlx::Executor;
use tenantry::controller::tenant::secrets::{Address, entries};
use tenantry_dev::{Postgres, PostgresOptions, certificates::Authority};

/// The Secret's name.
const NAME: &str = "acme-db";
const DATABASE: &str = "tenant_acme";
const LOGIN: &str = "tenant_acme_app";
const PASSWORD: &str = "0123456789abcdef";

/// The login has no access without TLS.
const HBA: &str = "hostssl all tenant_acme_app all scram-sha-256\nhost all postgres all scram-sha-256\n";

/// The user that every client must find.
pub const EMAIL: &str = "ada@acme.example";

/// What a client must accept or refuse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Case {
    Right,
    OtherAuthority,
    OtherHost,
}

pub const CASES: [Case; 3] = [Case::Right, Case::OtherAuthority, Case::OtherHost];

/// A server with a certificate for `db.example` and 127.0.0.1, and its authority.
pub struct Database {
    postgres: Postgres,
    authority: Authority,
}

impl Database {
    pub async fn start() -> Self {
        let authority = Authority::new("private").unwrap();
        let tls = Some(authority.server(&["db.example", "127.0.0.1"]).unwrap());
        let options = PostgresOptions { tls, hba: Some(HBA.to_owned()), ..PostgresOptions::default() };
        let postgres = Postgres::start(options).await.unwrap();
        let run = async |database: &str, sql: &[&str]| {
            let mut session = postgres.connect(database).await.unwrap();
            for statement in sql {
                session.execute(sqlx::AssertSqlSafe(*statement)).await.unwrap();
            }
        };
        let login = format!("CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD}'");
        run("postgres", &[&login, &format!("CREATE DATABASE {DATABASE}")]).await;
        let user = format!("INSERT INTO users VALUES ('{EMAIL}')");
        let grant = format!("GRANT SELECT ON users TO {LOGIN}");
        run(DATABASE, &["CREATE TABLE users (email text PRIMARY KEY)", &user, &grant]).await;
        Self { postgres, authority }
    }

    /// The files of a Secret of the server. The second host is an address of the server that its certificate does not have.
    pub fn secret(&self, case: Case, [host, other]: [&str; 2]) -> Mounted {
        let authority = match case {
            Case::OtherAuthority => Authority::new("other").unwrap().certificate().to_owned(),
            Case::Right | Case::OtherHost => self.authority.certificate().to_owned(),
        };
        let host = if case == Case::OtherHost { other } else { host };
        let (port, sslmode) = (self.postgres.port(), "verify-full".to_owned());
        let address = Address { host: host.to_owned(), port, sslmode, certificates: authority };
        let directory = std::env::temp_dir().join(format!("tenantry-drivers-{}-{port}", std::process::id()));
        let mounted = Mounted { directory };
        let files = mounted.files();
        // As the kubelet does: a change of all files is one of a link.
        fs::create_dir_all(files.join("..1")).unwrap();
        symlink("..1", files.join("..data")).unwrap();
        for (key, value) in entries(&address, NAME, LOGIN, PASSWORD, DATABASE) {
            fs::write(files.join("..1").join(&*key), value).unwrap();
            symlink(Path::new("..data").join(&*key), files.join(&*key)).unwrap();
        }
        fs::create_dir(mounted.directory.join("root")).unwrap();
        fs::write(mounted.directory.join("hosts"), "127.0.0.1 localhost db.example other.example\n").unwrap();
        mounted
    }
}

/// The files of a Secret, until this is dropped.
pub struct Mounted {
    directory: PathBuf,
}

impl Mounted {
    pub fn files(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// Has the URI name the files where they are on this machine.
    pub fn name_files_here(&self) {
        let file = self.files().join("uri-mounted");
        let uri = fs::read_to_string(&file).unwrap();
        let there = format!("/bindings/{NAME}");
        assert!(uri.contains(&there), "{uri}");
        fs::write(&file, uri.replace(&there, &self.files().display().to_string())).unwrap();
    }

    /// What runs a program where the files are in `/bindings/acme-db`.
    pub fn container(&self) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docs/drivers/as-mounted.sh");
        let mut command = Command::new(script);
        command.arg(self.directory.join("root")).arg(self.files()).arg(NAME);
        command.arg(self.directory.join("hosts"));
        command
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
