//! The proxy for the API server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::{Client, Config};
use serde_json::json;

use super::Write;
use super::effects::{Admission, Effects};
use super::fault::{ApiFault, Gate};
use super::listener::Listener;
use crate::error::Result;
use crate::paths::{self, RunDirectory};

/// The headers that concern one connection and not the message: they are not forwarded.
const CONNECTION_HEADERS: [HeaderName; 7] = [
    header::CONNECTION,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

type AnyError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, AnyError>>;

/// Counts of what the proxy has received and forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiTotals {
    /// Connections that were accepted, including those that were closed at once.
    pub connections: u64,
    /// Requests that were received, including those that were not forwarded.
    pub requests: u64,
    /// Writes that were forwarded, whether or not they count as effects.
    pub writes: u64,
}

/// A proxy for an API server, over plain HTTP. It ends and closes its connections when dropped.
///
/// Every client of the proxy has the rights of the configuration that it was started with.
#[derive(Debug)]
pub struct ApiProxy {
    listener: Listener,
    requests: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    kubeconfig: PathBuf,
    _run: RunDirectory,
}

impl ApiProxy {
    /// Starts a proxy on a free port for this cluster.
    pub fn start(mut cluster: Config, effects: &Effects) -> Result<Self> {
        // All answers are forwarded, refusals too.
        cluster.default_retry = false;
        let (requests, writes) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (shared, received, forwarded) = (effects.clone(), Arc::clone(&requests), Arc::clone(&writes));
        let listener = Listener::start("api-proxy", effects, move || {
            let client = Client::try_from(cluster)?;
            Ok(move |stream, gate| {
                let connection = Connection {
                    client: client.clone(),
                    effects: shared.clone(),
                    gate,
                    requests: Arc::clone(&received),
                    writes: Arc::clone(&forwarded),
                };
                let service = service_fn(move |request| connection.clone().answer(request));
                // An error has closed the connection for both sides: there is nothing to report.
                async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await) }
            })
        })?;
        let run = RunDirectory::new()?;
        let kubeconfig = run.path().join("kubeconfig");
        write_kubeconfig(&kubeconfig, listener.port())?;
        Ok(Self { listener, requests, writes, kubeconfig, _run: run })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// A kubeconfig that uses the proxy.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Injects a fault; `Fault::Pass` ends it.
    pub fn set(&self, fault: impl Into<ApiFault>) {
        self.listener.set(fault.into(), None);
    }

    /// Injects a fault into the requests whose path the filter accepts; `set` ends it. (`Fault::Refuse` affects all
    /// requests: it closes connections.)
    pub fn set_for(&self, only: impl Fn(&str) -> bool + Send + Sync + 'static, fault: impl Into<ApiFault>) {
        self.listener.set(fault.into(), Some(Arc::new(only)));
    }

    /// Counts of what the proxy has received and forwarded.
    pub fn totals(&self) -> ApiTotals {
        ApiTotals {
            connections: self.listener.connections(),
            requests: self.requests.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
        }
    }
}

fn write_kubeconfig(path: &Path, port: u16) -> Result<()> {
    let name = "tenantry-dev-proxy";
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": name, "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    });
    paths::write_secret(path, &kubeconfig.to_string())
}

#[derive(Clone)]
struct Connection {
    client: Client,
    effects: Effects,
    gate: Gate,
    requests: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
}

impl Connection {
    /// Answers a request; an error closes the connection, as a server that crashes would.
    async fn answer(mut self, request: Request<Incoming>) -> Result<Answer, AnyError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (parts, body) = request.into_parts();
        // Complete, since `kube::Client` sends no streams. The only streams of requests in Kubernetes are upgraded
        // connections to a kubelet, which does not exist here.
        let body = body.collect().await?.to_bytes();
        let write = Write::of(&parts.method, &parts.uri);
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = parts.method;
        *request.uri_mut() = parts.uri;
        *request.headers_mut() = message_headers(parts.headers);

        self.gate.set_path(request.uri().path());
        self.gate.delay().await;
        self.gate.opened().await;
        if let Some(refusal) = refusal(self.gate.fault())? {
            return Ok(refusal);
        }
        match self.admit(write.as_ref()).await {
            Admission::Forward => self.forward(request).await,
            Admission::Await(trigger) => {
                let client = self.client.clone();
                // In a task of its own: the server executes the request even if the client disconnects.
                let answered = tokio::spawn(async move {
                    if let Ok(answer) = client.send(request).await {
                        let _ = answer.into_body().collect().await;
                    }
                    trigger.fire()
                });
                // The connection is closed with all others, or at once if the trigger was reset meanwhile.
                if answered.await? { std::future::pending().await } else { Err("reset".into()) }
            }
            Admission::Never => std::future::pending().await,
        }
    }

    async fn admit(&mut self, write: Option<&Write>) -> Admission {
        let Some(write) = write else {
            self.gate.opened().await;
            return Admission::Forward;
        };
        loop {
            self.gate.opened().await;
            if let Some(admission) = self.effects.admit_write(self.gate.epoch(), write) {
                if !matches!(admission, Admission::Never) {
                    self.writes.fetch_add(1, Ordering::Relaxed);
                }
                return admission;
            }
        }
    }

    async fn forward(mut self, request: Request<Body>) -> Result<Answer, AnyError> {
        let (parts, body) = self.client.send(request).await?.into_parts();
        self.gate.opened().await;
        let gate = self.gate;
        let body = BodyStream::new(body.map_err(AnyError::from)).and_then(move |frame| {
            let mut gate = gate.clone();
            async move {
                gate.opened().await;
                Ok(frame)
            }
        });
        let mut answer = Response::new(StreamBody::new(body).boxed_unsync());
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = message_headers(parts.headers);
        Ok(answer)
    }
}

fn message_headers(mut headers: HeaderMap) -> HeaderMap {
    for name in CONNECTION_HEADERS {
        headers.remove(name);
    }
    headers
}

/// The proxy's own answer, if this fault requires one.
fn refusal(fault: ApiFault) -> Result<Option<Answer>, AnyError> {
    let (status, retry_after) = match fault {
        ApiFault::Connection(_) => return Ok(None),
        ApiFault::Throttle { retry_after } => {
            let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
            (StatusCode::TOO_MANY_REQUESTS, Some(seconds))
        }
        ApiFault::Fail(status) => (status, None),
    };
    // The reasons of kube-apiserver.
    let reason = match status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::INTERNAL_SERVER_ERROR => "InternalError",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::GATEWAY_TIMEOUT => "Timeout",
        _ => "",
    };
    let body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("fault injection: the proxy answers {}", status.as_u16()),
        "reason": reason,
        "details": {"retryAfterSeconds": retry_after.unwrap_or_default()},
        "code": status.as_u16(),
    });
    let body = Full::new(Bytes::from(body.to_string())).map_err(AnyError::from).boxed_unsync();
    let mut answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    if let Some(seconds) = retry_after {
        answer = answer.header(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(Some(answer.body(body)?))
}
