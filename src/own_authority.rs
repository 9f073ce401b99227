//! TLS with a certificate authority of one's own, and no other. The database library would trust those of the system too,
//! and with `VerifyCa` a certificate of any of them for any host. So TLS is done here: the session goes through a local
//! connection to this process, which passes its bytes on: a single session's accepts one client.

use std::{borrow::Cow, io, net::Ipv4Addr, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use sqlx::{
    ConnectOptions, Error,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::warn;

/// How long the session has to come through the local connection.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long to wait after a session could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The message by which a client asks a server for TLS: its length, and the code of the request.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// An authority that a server's certificate must be of.
#[derive(Clone, Debug)]
pub struct OwnAuthority<'a> {
    /// PEM certificates.
    pub ca: Cow<'a, [u8]>,
    /// The certificate must be for the host, too.
    pub for_host: bool,
}

/// Passes on the bytes of a pool's sessions, until it is dropped.
#[derive(Debug)]
pub struct Relay(AbortHandle);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl OwnAuthority<'static> {
    /// The authority that a URL names with `sslrootcert`, if certificates are verified. None with a client certificate
    /// (`sslcert`): a local connection would lend it to others.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(options: &PgConnectOptions) -> sqlx::Result<Option<Self>> {
        let for_host = match options.get_ssl_mode() {
            PgSslMode::VerifyCa => false,
            PgSslMode::VerifyFull => true,
            PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer | PgSslMode::Require => {
                return Ok(None);
            }
        };
        let url = options.to_url_lossy();
        let value =
            |name| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let (Some(file), None) = (value("sslrootcert"), value("sslcert")) else { return Ok(None) };
        // So the driver writes the name of a file.
        let file = file.strip_prefix("file: ").map_or(file.clone(), str::to_owned);
        let ca = match file.trim_start().starts_with("-----BEGIN CERTIFICATE-----") {
            true => file.into_bytes(),
            false => std::fs::read(&file)
                .map_err(|error| Error::Tls(format!("cannot read sslrootcert {file}: {error}").into()))?,
        };
        Ok(Some(Self { ca: ca.into(), for_host }))
    }

    /// Connects to the server of these options once, so that a failure has its cause, and returns the options of sessions
    /// through local connections, of which each has a connection to the server.
    ///
    /// # Errors
    /// The server does not respond, or has no certificate of the authority.
    pub async fn relay(self, options: &PgConnectOptions) -> sqlx::Result<(PgConnectOptions, Relay)> {
        let (host, port) = (options.get_host().to_owned(), options.get_port());
        drop(self.open(&host, port).await.map_err(as_tls)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let through = through(options, &listener)?;
        let task = tokio::spawn(async move {
            loop {
                let client = match listener.accept().await {
                    Ok((client, _)) => client,
                    // For example too many open files, which passes: without this task, no session could be opened any more.
                    Err(error) => {
                        warn!(%error, "could not accept a session to {host}:{port}");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let (authority, host) = (self.clone(), host.clone());
                tokio::spawn(async move {
                    match timeout(ACCEPT_TIMEOUT, authority.open(&host, port)).await {
                        Ok(Ok(server)) => exchange(client, server).await,
                        Ok(Err(error)) => warn!(%error, "could not connect to {host}:{port}"),
                        Err(_) => warn!("{host}:{port} does not respond"),
                    }
                });
            }
        });
        Ok((through, Relay(task.abort_handle())))
    }
}

/// The options of a session through a local connection.
fn through(options: &PgConnectOptions, listener: &TcpListener) -> io::Result<PgConnectOptions> {
    let port = listener.local_addr()?.port();
    Ok(options.clone().host("127.0.0.1").port(port).ssl_mode(PgSslMode::Disable))
}

impl OwnAuthority<'_> {
    /// Connects to the server of these options, and returns the options of a session through that connection.
    ///
    /// # Errors
    /// The server does not respond, or has no certificate of the authority.
    pub async fn connect(&self, options: &PgConnectOptions) -> sqlx::Result<PgConnectOptions> {
        let server = self.open(options.get_host(), options.get_port()).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let through = through(options, &listener)?;
        tokio::spawn(pass_on(listener, server));
        Ok(through)
    }

    async fn open(&self, host: &str, port: u16) -> sqlx::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| Error::Tls(error.into()))?;
        let config = self.config().map_err(|error| Error::Io(io::Error::other(error)))?;
        let mut server = TcpStream::connect((host, port)).await?;
        server.set_nodelay(true)?;
        server.write_all(&SSL_REQUEST).await?;
        match server.read_u8().await? {
            b'S' => Ok(TlsConnector::from(Arc::new(config)).connect(name, server).await?),
            b'N' => Err(Error::Tls("server does not support TLS".into())),
            other => Err(Error::Protocol(format!("unexpected answer to a request for TLS: {other:#x}"))),
        }
    }

    fn config(&self) -> Result<ClientConfig, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca) {
            let certificate = certificate.map_err(|error| TlsError::General(error.to_string()))?;
            roots.add(certificate)?;
        }
        let provider = Arc::new(default_provider());
        let config =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        if self.for_host {
            return Ok(config.with_root_certificates(roots).with_no_client_auth());
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|error| TlsError::General(error.to_string()))?;
        Ok(config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyHost(verifier)))
            .with_no_client_auth())
    }
}

/// What is wrong with the certificate is no lost connection.
fn as_tls(error: Error) -> Error {
    match error {
        Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<TlsError>()) => {
            Error::Tls(error.into())
        }
        other => other,
    }
}

/// Accepts one client, and passes on what it and the server send until one of them closes its connection.
async fn pass_on(listener: TcpListener, server: TlsStream<TcpStream>) {
    let Ok(Ok((client, _))) = timeout(ACCEPT_TIMEOUT, listener.accept()).await else { return };
    drop(listener);
    exchange(client, server).await;
}

async fn exchange(mut client: TcpStream, mut server: TlsStream<TcpStream>) {
    if client.set_nodelay(true).is_ok() {
        // The session reports a connection that was lost.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// Verifies everything about a certificate but the name of the host.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        // The name is compared last.
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
