//! TLS to PostgreSQL, against real certificates.

use tenantry::{
    api::reason::Reason,
    postgres::{ServerConfig, Tls, server::Server},
};
use tenantry_dev::{Postgres, PostgresOptions, Version, certificates::Authority};

use crate::servers::{INSTALLATION, config, set_up};

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
