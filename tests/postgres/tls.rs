//! TLS to PostgreSQL, against real certificates.

use std::{env, process::Command};

use tenantry::{
    api::reason::Reason,
    postgres::{ServerConfig, Tls, install::setup::server_setup, server::Server},
    registry::Registry,
};
use tenantry_dev::{Postgres, PostgresOptions, Version, certificates::Authority};

use crate::servers::{INSTALLATION, OPERATOR, PASSWORD, config, config_at, set_up, setup_options};

async fn serving(certificate: tenantry_dev::certificates::Certificate) -> Postgres {
    let options =
        PostgresOptions { version: Version::Major(18), tls: Some(certificate), ..PostgresOptions::default() };
    set_up(Postgres::start(options).await.unwrap()).await
}

fn verifying(postgres: &Postgres, authority: &Authority) -> Server {
    let tls = Tls::VerifyFull { ca: Some(authority.certificate().as_bytes().to_vec()) };
    Server::new(ServerConfig { tls, ..config(postgres) })
}

#[tokio::test]
async fn certificate_of_a_wrong_authority_is_refused() {
    let authority = Authority::new("right").unwrap();
    let postgres = serving(authority.server(&["127.0.0.1"]).unwrap()).await;
    verifying(&postgres, &authority).preflight(INSTALLATION).await.unwrap();
    let wrong = verifying(&postgres, &Authority::new("wrong").unwrap());
    assert_eq!(wrong.preflight(INSTALLATION).await.unwrap_err().reason(), Reason::TlsFailed);
    // Without an own authority, only those of the system are trusted.
    let system = Server::new(ServerConfig { tls: Tls::VerifyFull { ca: None }, ..config(&postgres) });
    assert_eq!(system.preflight(INSTALLATION).await.unwrap_err().reason(), Reason::TlsFailed);
}

#[tokio::test]
async fn wrong_host_name_is_refused_only_by_verify_full() {
    let authority = Authority::new("authority").unwrap();
    let postgres = serving(authority.server(&["elsewhere.example"]).unwrap()).await;
    let error = verifying(&postgres, &authority).preflight(INSTALLATION).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TlsFailed, "{error}");
    let tls = Tls::VerifyCa { ca: Some(authority.certificate().as_bytes().to_vec()) };
    Server::new(ServerConfig { tls, ..config(&postgres) }).preflight(INSTALLATION).await.unwrap();
}

#[tokio::test]
async fn expired_certificate_and_missing_tls_are_refused() {
    let authority = Authority::new("authority").unwrap();
    let postgres = serving(authority.expired_server(&["127.0.0.1"]).unwrap()).await;
    let error = verifying(&postgres, &authority).preflight(INSTALLATION).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TlsFailed, "{error}");
    let plain = &crate::servers::SERVERS[1];
    let error = verifying(plain, &authority).preflight(INSTALLATION).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TlsFailed, "{error}");
}

/// The port of the server, for the process whose system trusts the server's authority.
const PORT: &str = "TENANTRY_TEST_TLS_PORT";

#[tokio::test]
async fn own_authority_is_trusted_instead_of_those_of_the_system() {
    if let Ok(port) = env::var(PORT) {
        return only_the_own_authority_is_trusted(port.parse().unwrap()).await;
    }
    let public = Authority::new("public").unwrap();
    let postgres = serving(public.server(&["127.0.0.1"]).unwrap()).await;
    let file = postgres.data().with_extension("public.pem");
    std::fs::write(&file, public.certificate()).unwrap();
    let same = "tls::own_authority_is_trusted_instead_of_those_of_the_system";
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", same])
        .env("SSL_CERT_FILE", &file)
        .env(PORT, postgres.port().to_string())
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // The control: no other test is run by that name.
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

async fn only_the_own_authority_is_trusted(port: u16) {
    let preflight =
        async |tls| Server::new(ServerConfig { tls, ..config_at(port) }).preflight(INSTALLATION).await;
    let own = Authority::new("own").unwrap();
    let ca = || Some(own.certificate().as_bytes().to_vec());
    // The system trusts the server's authority.
    for tls in [Tls::VerifyFull { ca: None }, Tls::VerifyCa { ca: None }] {
        preflight(tls).await.unwrap();
    }
    for tls in [Tls::VerifyFull { ca: ca() }, Tls::VerifyCa { ca: ca() }] {
        let error = preflight(tls).await.unwrap_err();
        assert_eq!(error.reason(), Reason::TlsFailed, "{error}");
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
    // So it is for URLs.
    let (public, wrong) =
        (env::var("SSL_CERT_FILE").unwrap(), env::temp_dir().join(format!("own-{port}.pem")));
    std::fs::write(&wrong, own.certificate()).unwrap();
    for mode in ["verify-full", "verify-ca"] {
        let url = |user: &str, root: &str| {
            format!("postgresql://{user}@127.0.0.1:{port}/tenantry_system?sslmode={mode}&{root}")
        };
        let operator = format!("{OPERATOR}:{PASSWORD}");
        let connect = async |root: &str| Registry::connect(&url(&operator, root), "tls", 3).await;
        let right = format!("sslrootcert={public}");
        let wrong = format!("sslrootcert={}", wrong.display());
        connect("").await.unwrap();
        let registry = connect(&right).await.unwrap();
        for _ in 0..3 {
            registry.ping().await.unwrap();
        }
        let error = connect(&wrong).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RegistryTlsFailed, "{error}");
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
        let set_up =
            async |root: &str| server_setup(url("postgres", root).parse().unwrap(), &setup_options()).await;
        let error = set_up(&wrong).await.unwrap_err();
        assert_eq!(error.reason(), Reason::TlsFailed, "{error}");
    }
    std::fs::remove_file(&wrong).unwrap();
}
