//! The proxy in front of the API server.

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
use super::door::Door;
use super::effects::{Admission, Effects};
use super::trouble::{ApiTrouble, Gate};
use crate::error::Result;
use crate::places::{self, RunDirectory};

/// What concerns one connection and not what is said on it, and what a client says of its own connection.
const OF_ONE_CONNECTION: [HeaderName; 7] = [
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

/// What has gone through so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiTotals {
    /// Connections that were accepted, also those that were closed at once.
    pub connections: u64,
    /// Requests that came, also those that were not forwarded.
    pub requests: u64,
    /// Writes that were forwarded, counted as effects or not.
    pub writes: u64,
}

/// A proxy in front of an API server, plain HTTP. Ends when dropped, and its connections with it.
///
/// Whoever reaches it has the rights of the configuration it was started with.
#[derive(Debug)]
pub struct ApiProxy {
    door: Door,
    requests: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    kubeconfig: PathBuf,
    _run: RunDirectory,
}

impl ApiProxy {
    /// Starts one, on a free port, in front of this cluster.
    pub fn start(mut cluster: Config, effects: &Effects) -> Result<Self> {
        // Answers are passed on as they are, refusals too.
        cluster.default_retry = false;
        let (requests, writes) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (shared, came, written) = (effects.clone(), Arc::clone(&requests), Arc::clone(&writes));
        let door = Door::open("api-proxy", effects, move || {
            let client = Client::try_from(cluster)?;
            Ok(move |stream, gate| {
                let connection = Connection {
                    client: client.clone(),
                    effects: shared.clone(),
                    gate,
                    requests: Arc::clone(&came),
                    writes: Arc::clone(&written),
                };
                let service = service_fn(move |request| connection.clone().answer(request));
                // A connection that breaks has told both ends all there is to tell.
                async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await) }
            })
        })?;
        let run = RunDirectory::new()?;
        let kubeconfig = run.path().join("kubeconfig");
        write_kubeconfig(&kubeconfig, door.port())?;
        Ok(Self { door, requests, writes, kubeconfig, _run: run })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.door.port()
    }

    /// A kubeconfig that leads through the proxy.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Makes trouble, or with `Trouble::Pass` ends it.
    pub fn set(&self, trouble: impl Into<ApiTrouble>) {
        self.door.set(trouble.into(), None);
    }

    /// Makes trouble for those requests alone whose path the filter holds for; `set` ends it. (`Trouble::Refuse` is for
    /// all of them: it ends connections.)
    pub fn set_for(
        &self,
        only: impl Fn(&str) -> bool + Send + Sync + 'static,
        trouble: impl Into<ApiTrouble>,
    ) {
        self.door.set(trouble.into(), Some(Arc::new(only)));
    }

    /// What has gone through so far.
    pub fn totals(&self) -> ApiTotals {
        ApiTotals {
            connections: self.door.connections(),
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
    places::write_secret(path, &kubeconfig.to_string())
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
    /// Answers a request; an error closes the connection, as a server that breaks down would.
    async fn answer(mut self, request: Request<Incoming>) -> Result<Answer, AnyError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (parts, body) = request.into_parts();
        // Whole, for the client that sends it on takes no stream. Kubernetes has none in this direction but upgraded
        // connections, which lead to a kubelet, and there is none.
        let body = body.collect().await?.to_bytes();
        let write = Write::of(&parts.method, &parts.uri);
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = parts.method;
        *request.uri_mut() = parts.uri;
        *request.headers_mut() = of_the_message(parts.headers);

        self.gate.is_for(request.uri().path());
        self.gate.delay().await;
        self.gate.open().await;
        if let Some(refusal) = refusal(self.gate.trouble())? {
            return Ok(refusal);
        }
        match self.admit(write.as_ref()).await {
            Admission::Forward => self.forward(request).await,
            Admission::Await(trigger) => {
                let client = self.client.clone();
                // In a task of its own: the server does what it was told, also when the client goes away.
                let answered = tokio::spawn(async move {
                    if let Ok(answer) = client.send(request).await {
                        let _ = answer.into_body().collect().await;
                    }
                    trigger.fire()
                });
                // The connection ends with all the others, or at once if the trigger was forgotten meanwhile.
                if answered.await? { std::future::pending().await } else { Err("forgotten".into()) }
            }
            Admission::Never => std::future::pending().await,
        }
    }

    async fn admit(&mut self, write: Option<&Write>) -> Admission {
        let Some(write) = write else {
            self.gate.open().await;
            return Admission::Forward;
        };
        loop {
            self.gate.open().await;
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
        self.gate.open().await;
        let gate = self.gate;
        let body = BodyStream::new(body.map_err(AnyError::from)).and_then(move |frame| {
            let mut gate = gate.clone();
            async move {
                gate.open().await;
                Ok(frame)
            }
        });
        let mut answer = Response::new(StreamBody::new(body).boxed_unsync());
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = of_the_message(parts.headers);
        Ok(answer)
    }
}

fn of_the_message(mut headers: HeaderMap) -> HeaderMap {
    for name in OF_ONE_CONNECTION {
        headers.remove(name);
    }
    headers
}

/// The answer of the proxy itself, if this trouble is one.
fn refusal(trouble: ApiTrouble) -> Result<Option<Answer>, AnyError> {
    let (status, retry_after) = match trouble {
        ApiTrouble::Connection(_) => return Ok(None),
        ApiTrouble::Throttle { retry_after } => {
            let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
            (StatusCode::TOO_MANY_REQUESTS, Some(seconds))
        }
        ApiTrouble::Fail(status) => (status, None),
    };
    // As kube-apiserver spells its reasons, for the answers that it has one for.
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
        "message": format!("the proxy was told to answer {}", status.as_u16()),
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
