//! The HTTP endpoint: liveness, readiness, health and metrics. Plain HTTP, read-only, no secrets.

mod health;
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

pub use self::{
    health::Health,
    readiness::{Readiness, ReadinessGate},
};
use crate::{
    domain::health::HealthState,
    metrics::{self, Metrics},
};

const INDEX: &str = "\
Tenantry

/livez    200 while the process runs
/readyz   200 when it is ready for work, else 503 with what is missing
/health   ready, degraded or failed, and why, as JSON: 200, or 503 if failed
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
    /// For `/health`.
    pub health: Health,
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
            .route("/health", get(health_page))
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

async fn health_page(State(pages): State<Pages>) -> Response {
    let (state, json) = pages.health.page(&pages.readiness);
    let status = match state {
        HealthState::Ready | HealthState::Degraded => StatusCode::OK,
        HealthState::Failed => StatusCode::SERVICE_UNAVAILABLE,
    };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, json).into_response()
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    match pages.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
