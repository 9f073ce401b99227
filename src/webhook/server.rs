//! The HTTPS server. It begins to serve with the first certificate, and serves the next one to new connections while the old ones
//! go on.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{sync::Semaphore, task::JoinHandle, time::timeout};
use tracing::{debug, error, info};

use super::{Knowledge, answers::Question, certificate::KeyedCertificate, review::Review};

/// The largest question: an object has at most 1.5 MiB, and there may be two.
const LARGEST: usize = 4 << 20;

/// How many questions are read and answered at once: parsed, one may take many times its size.
const AT_ONCE: usize = 4;

/// How long a client may take for the TLS handshake, for the head of its request after that, and for its body.
const HANDSHAKE: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(10);
const BODY: Duration = Duration::from_secs(3);

/// How long open requests may take when the process ends.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// A server that serves.
pub struct Serving {
    tls: RustlsConfig,
    word: Arc<RwLock<String>>,
    handle: Handle<SocketAddr>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Asked {
    knowledge: Knowledge,
    word: Arc<RwLock<String>>,
    slots: Arc<Semaphore>,
}

impl Serving {
    /// Listens and serves with a certificate, to clients that know the word.
    ///
    /// # Errors
    /// The address is not available, or the certificate cannot be used.
    pub fn start(
        address: SocketAddr,
        leaf: &KeyedCertificate,
        word: &str,
        knowledge: Knowledge,
    ) -> std::io::Result<Self> {
        let tls = RustlsConfig::from_config(Arc::new(config(leaf).map_err(std::io::Error::other)?));
        let word = Arc::new(RwLock::new(word.to_owned()));
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let asked = Asked { knowledge, word: word.clone(), slots };
        let router = Router::new().route("/{question}/{word}", post(ask)).with_state(asked);
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let handle = Handle::new();
        let server = axum_server::from_tcp_rustls(listener, tls.clone())?
            .map(|acceptor| acceptor.handshake_timeout(HANDSHAKE))
            .first_request_timeout(REQUEST)
            .http1_only()
            .handle(handle.clone());
        info!(%address, "serving the admission webhook");
        let task = tokio::spawn(async move {
            if let Err(error) = server.serve(router.into_make_service()).await {
                error!(%error, "the admission webhook is not served any more");
            }
        });
        Ok(Self { tls, word, handle, task })
    }

    /// Serves another certificate to new connections, under this word.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn renew(&self, leaf: &KeyedCertificate, word: &str) -> Result<(), rustls::Error> {
        self.tls.reload_from_config(Arc::new(config(leaf)?));
        *self.word.write().unwrap_or_else(PoisonError::into_inner) = word.to_owned();
        Ok(())
    }

    /// Takes no new connection, and ends when the open requests are answered.
    pub async fn stop(self) {
        self.handle.graceful_shutdown(Some(LAST_REQUESTS));
        let _ = self.task.await;
    }
}

/// A configuration of TLS with a certificate.
fn config(leaf: &KeyedCertificate) -> Result<ServerConfig, rustls::Error> {
    let unreadable = |error: rustls::pki_types::pem::Error| rustls::Error::General(error.to_string());
    let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).map_err(unreadable)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn ask(
    State(asked): State<Asked>,
    Path((question, word)): Path<(String, String)>,
    request: Request,
) -> Response {
    let known = asked.word.read().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(question) = Question::of_path(&question).filter(|_| is_same(&word, &known)) else {
        debug!("a request to the admission webhook was not the API server's");
        return StatusCode::NOT_FOUND.into_response();
    };
    // Nothing of a body is read before that: anybody can reach the port.
    let Ok(_slot) = asked.slots.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let Ok(Ok(body)) = timeout(BODY, to_bytes(request.into_body(), LARGEST)).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let Ok(review) = serde_json::from_slice::<Review>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    Json(question.answer(&review.request, &asked.knowledge).await).into_response()
}

/// Compares in a time that does not depend on where the texts differ.
fn is_same(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).fold(0, |found, (x, y)| found | (x ^ y));
    a.len() == b.len() && differences == 0
}
