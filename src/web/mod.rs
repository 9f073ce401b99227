//! The HTTP endpoint: health, readiness and metrics. Plain HTTP, read-only, no secrets.

mod readiness;

use std::{future::Future, io, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

pub use self::readiness::{Readiness, ReadinessGate};
use crate::metrics::{self, Metrics};

const INDEX: &str = "\
Tenantry

/livez    200 while the process runs
/readyz   200 when it is ready for work, else 503 with what is missing
/metrics  for Prometheus
";

/// A bound endpoint, not serving yet.
#[derive(Debug)]
pub struct WebServer {
    listener: TcpListener,
}

/// The content of the pages.
#[derive(Clone, Debug)]
pub struct Pages {
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/metrics`.
    pub metrics: Metrics,
}

impl WebServer {
    /// Binds the address; port 0 is any free port.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// The bound address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` ends, then answers open requests and returns.
    pub async fn serve(
        self,
        pages: Pages,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let router = Router::new()
            .route("/", get(async || INDEX))
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_page))
            .with_state(pages);
        axum::serve(self.listener, router).with_graceful_shutdown(shutdown).await
    }
}

async fn readyz(State(pages): State<Pages>) -> Response {
    let closed = pages.readiness.closed();
    if closed.is_empty() {
        return "ready\n".into_response();
    }
    let lines: String = closed.iter().map(|(gate, why)| format!("{gate}: {why}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{lines}")).into_response()
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    match pages.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
