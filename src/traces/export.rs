//! The way of spans to the collector. A thread of the SDK collects batches and waits for the collector; what does not fit into
//! its queue, and what the collector does not take, is dropped and counted.

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use opentelemetry::Context;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::{
    SpanCounter,
    settings::{Error, Settings},
};

/// The most that is read of an answer.
const MOST_ANSWER: usize = 64 * 1024;

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanOutcome {
    /// The collector has it.
    Exported,
    /// The collector did not take it.
    Failed,
    /// Too many spans waited for the collector.
    Dropped,
}

impl SpanOutcome {
    /// As a label of a metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// The processor of all spans.
pub(super) fn processor(
    settings: &Settings,
    count: SpanCounter,
) -> Result<impl SpanProcessor + use<>, Error> {
    let state = Arc::new(State {
        waiting: AtomicUsize::new(0),
        most: settings.queue,
        fails: AtomicBool::new(false),
        cause: Mutex::default(),
        count,
    });
    let client =
        CollectorClient { client: client(settings)?, runtime: Handle::current(), state: Arc::clone(&state) };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(settings.endpoint.clone())
        .with_timeout(settings.timeout)
        .build()
        .map_err(|error| Error::new("OTEL_EXPORTER_OTLP_…", error.to_string()))?;
    let exporter = CountedExporter { exporter, state: Arc::clone(&state) };
    Ok(CountedProcessor { batches: BatchSpanProcessor::builder(exporter).build(), state })
}

fn client(settings: &Settings) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .timeout(settings.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &settings.certificate {
        let wrong = |why: String| Error::new("OTEL_EXPORTER_OTLP_CERTIFICATE", why);
        let pem = fs::read(file).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .ok()
            .filter(|authorities| !authorities.is_empty())
            .ok_or_else(|| wrong(format!("{} has no PEM certificate", file.display())))?;
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|error| Error::new("OTEL_EXPORTER_OTLP_…", with_causes(&error)))
}

/// What the processor and the exporter share.
struct State {
    /// Spans that ended and are not exported yet.
    waiting: AtomicUsize,
    most: usize,
    /// Whether the last export failed: only changes are logged.
    fails: AtomicBool,
    /// Why the last request failed: the SDK omits it.
    cause: Mutex<Option<String>>,
    count: SpanCounter,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl State {
    /// Takes a place in the queue.
    fn admit(&self) -> bool {
        let admitted = |waiting| (waiting < self.most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admitted).is_ok()
    }

    fn exported(&self, spans: usize, result: &OTelSdkResult) {
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let failure = result.as_ref().err();
        let outcome = if failure.is_some() { SpanOutcome::Failed } else { SpanOutcome::Exported };
        (self.count)(outcome, spans);
        let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (self.fails.swap(failure.is_some(), Ordering::Relaxed), failure) {
            (false, Some(error)) => {
                let error = cause.unwrap_or_else(|| error.to_string());
                warn!(error, "spans cannot be exported; until they can, they are dropped and counted");
            }
            (true, None) => info!("spans are exported again"),
            (false, None) | (true, Some(_)) => {}
        }
    }
}

#[derive(Debug)]
struct CountedProcessor {
    batches: BatchSpanProcessor,
    state: Arc<State>,
}

impl SpanProcessor for CountedProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        match self.state.admit() {
            true => self.batches.on_end(span),
            false => (self.state.count)(SpanOutcome::Dropped, 1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

#[derive(Debug)]
struct CountedExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    state: Arc<State>,
}

impl SpanExporter for CountedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.state.exported(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The SDK's thread has no runtime: requests are made in that of the process.
#[derive(Debug)]
struct CollectorClient {
    client: reqwest::Client,
    runtime: Handle,
    state: Arc<State>,
}

impl HttpClient for CollectorClient {
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> BoxFuture<'async_trait, Result<Response<Bytes>, HttpError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let (client, state) = (self.client.clone(), Arc::clone(&self.state));
        let sent = self.runtime.spawn(async move {
            let answer = send(&client, request).await;
            let cause = match &answer {
                Ok(answer) if answer.status().is_success() => None,
                Ok(answer) => Some(format!("the collector answered {}", answer.status())),
                Err(error) => Some(with_causes(error.as_ref())),
            };
            *state.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
            answer
        });
        Box::pin(async move { sent.await? })
    }
}

async fn send(client: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut answer = client.execute(request.try_into()?).await.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > MOST_ANSWER {
            return Err("the collector's answer is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(body.into());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Instant};

    use opentelemetry::trace::{Tracer, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    type Counts = Arc<Mutex<HashMap<SpanOutcome, usize>>>;

    fn provider(endpoint: String, queue: usize) -> (SdkTracerProvider, Counts) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (certificate, service_name, timeout) = (None, None, Duration::from_millis(300));
        let settings = Settings { endpoint, certificate, timeout, queue, service_name };
        let counts = Counts::default();
        let counted = Arc::clone(&counts);
        let count = Arc::new(move |outcome, spans| {
            *counted.lock().unwrap().entry(outcome).or_default() += spans;
        });
        let processor = processor(&settings, count).unwrap();
        (SdkTracerProvider::builder().with_span_processor(processor).build(), counts)
    }

    /// Ends spans, and then the provider.
    async fn end_spans(provider: SdkTracerProvider, spans: usize) -> Duration {
        let tracer = provider.tracer("test");
        let began = Instant::now();
        for _ in 0..spans {
            drop(tracer.start("span"));
        }
        let worked = began.elapsed();
        let ended =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(Duration::from_secs(5)));
        let _ = ended.await.unwrap();
        worked
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn collector_that_never_answers_delays_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (provider, counts) = provider(format!("http://{}", listener.local_addr().unwrap()), 10);
        let began = Instant::now();
        let worked = end_spans(provider, 1000).await;
        assert!(worked < Duration::from_secs(2), "{worked:?}");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        let counts = counts.lock().unwrap();
        assert_eq!(counts.values().sum::<usize>(), 1000, "{counts:?}");
        assert!(counts[&SpanOutcome::Dropped] >= 900 && counts[&SpanOutcome::Failed] >= 10, "{counts:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn refusals_are_failures_and_nothing_is_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (provider, counts) = provider(format!("http://{}", listener.local_addr().unwrap()), 10);
        let refusing = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = "HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream
        });
        end_spans(provider, 3).await;
        refusing.await.unwrap();
        assert_eq!(*counts.lock().unwrap(), HashMap::from([(SpanOutcome::Failed, 3)]));
    }

    #[tokio::test]
    async fn certificate_must_be_one() {
        let settings = |file: &str| Settings {
            endpoint: "https://c.example".to_owned(),
            certificate: Some(file.into()),
            timeout: Duration::from_secs(1),
            queue: 1,
            service_name: None,
        };
        for file in ["/no/such/file", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
            let error = client(&settings(file)).unwrap_err().to_string();
            assert!(error.contains("OTEL_EXPORTER_OTLP_CERTIFICATE") && error.contains(file), "{error}");
        }
    }
}
