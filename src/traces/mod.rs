//! Traces, for OpenTelemetry: a span for each reconcile, each step, each SQL statement and each change of an object in them, sent to a collector by OTLP
//! over HTTP. Off, and free, unless the environment names an endpoint ([`Settings`]).
//!
//! A span has no statement's text, no parameter and no secret. Work never waits for the collector: spans that it does not take
//! are dropped and counted.

mod connections;
mod export;
mod requests;
mod settings;
mod spans;
mod statements;
mod summary;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, ResourceDetector, TelemetryResourceDetector},
    trace::{SdkTracer, SdkTracerProvider},
};

pub use self::{
    connections::with_traced_statements,
    export::SpanOutcome,
    requests::request,
    settings::{Error, Settings},
    spans::{failed, note, reconcile, step},
    statements::{STATEMENTS, StatementSpans, statement_failed},
};

/// How long the last spans may take, when the process ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Set once, if traces are on.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Counts spans by what became of them.
pub type SpanCounter = Arc<dyn Fn(SpanOutcome, usize) + Send + Sync>;

/// The traces of this process.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Begins to export spans, for the rest of the process. `identity` is that of the process. Within a runtime.
    ///
    /// # Errors
    /// The settings cannot be used.
    pub fn start(settings: &Settings, identity: &str, count: SpanCounter) -> Result<Self, Error> {
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(settings, identity))
            .with_span_processor(export::processor(settings, count)?)
            .build();
        let _ = TRACER.set(provider.tracer("tenantry"));
        Ok(Self { provider })
    }

    /// Exports the spans that have ended, for at most five seconds.
    pub async fn end(self) {
        // It blocks.
        let _ = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_LIMIT)).await;
    }
}

/// Whether traces are on.
fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// What all spans say about their process. The environment overrides it.
fn resource(settings: &Settings, identity: &str) -> Resource {
    let detectors: [Box<dyn ResourceDetector>; 2] =
        [Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())];
    let builder = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "tenantry"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", identity.to_owned()),
        ])
        .with_detectors(&detectors);
    match &settings.service_name {
        Some(name) => builder.with_service_name(name.clone()),
        None => builder,
    }
    .build()
}
