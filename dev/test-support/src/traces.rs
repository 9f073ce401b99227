//! What receives an operator's traces: OTLP over HTTP, as a collector does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, status::StatusCode as SpanStatus},
};
use prost::Message;
use tokio::net::TcpListener;

type Received = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// Receives traces as long as the test's runtime runs.
pub struct TraceReceiver {
    url: String,
    received: Received,
}

/// A span.
#[derive(Clone, Debug)]
pub struct ReceivedSpan {
    /// Its trace, in hexadecimal digits.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// That of its parent; empty if it has none.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// The message of its status, if that is an error.
    pub error: Option<String>,
    /// When it began and ended, in nanoseconds.
    pub time: (u64, u64),
}

impl TraceReceiver {
    /// Starts one, on loopback.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (url, received) = (format!("http://{}", listener.local_addr().unwrap()), Received::default());
        let routes = Router::new().route("/v1/traces", post(receive)).with_state(received.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, received }
    }

    /// The environment of an operator that exports its traces to it.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&self.url)
    }

    /// All that was received, as text.
    pub fn text(&self) -> String {
        format!("{:?}", self.received.lock().unwrap())
    }

    /// All spans.
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        let received = self.received.lock().unwrap();
        let resources = received.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| &scope.spans).map(ReceivedSpan::of).collect()
    }
}

/// The environment of an operator that exports its traces to a URL, soon.
pub fn environment(url: &str) -> Vec<(String, String)> {
    [("OTEL_EXPORTER_OTLP_ENDPOINT", url), ("OTEL_BSP_SCHEDULE_DELAY", "200")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

async fn receive(State(received): State<Received>, body: Bytes) -> StatusCode {
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) => {
            received.lock().unwrap().push(request);
            StatusCode::OK
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

impl ReceivedSpan {
    fn of(span: &Span) -> Self {
        let status = span.status.clone().unwrap_or_default();
        Self {
            trace: hexadecimal(&span.trace_id),
            id: hexadecimal(&span.span_id),
            parent: hexadecimal(&span.parent_span_id),
            name: span.name.clone(),
            attributes: span.attributes.iter().map(attribute).collect(),
            error: (status.code == SpanStatus::Error as i32).then_some(status.message),
            time: (span.start_time_unix_nano, span.end_time_unix_nano),
        }
    }

    /// An attribute; empty if it is missing.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

fn hexadecimal(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(pair: &KeyValue) -> (String, String) {
    let value = match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    (pair.key.clone(), value)
}
