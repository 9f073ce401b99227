//! The spans of SQL statements, from what sqlx reports of each: its time and its text, of which a span has a summary only.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::trace::Span;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tracing::{
    Event, Metadata, Subscriber,
    field::{self, Field},
    subscriber::Interest,
};
use tracing_subscriber::layer::{self, Filter, Layer};

use super::{connections, summary::Summary};

/// The target under which sqlx reports statements.
pub const STATEMENTS: &str = "sqlx::query";

/// Makes a span of every statement in the span of a reconcile. What background loops ask is not traced.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatementSpans;

/// As a filter, it refuses whatever gets no span: sqlx then writes no report.
impl<S> Filter<S> for StatementSpans {
    fn enabled(&self, metadata: &Metadata<'_>, _: &layer::Context<'_, S>) -> bool {
        metadata.target() == STATEMENTS && is_traced(&Context::current())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.target() == STATEMENTS { Interest::sometimes() } else { Interest::never() }
    }
}

impl<S: Subscriber> Layer<S> for StatementSpans {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let context = Context::current();
        let (Some(tracer), Some(last)) = (super::tracer(), context.get::<LastStatement>()) else { return };
        let mut report = Report::default();
        event.record(&mut report);
        let ended = SystemTime::now();
        let started = ended.checked_sub(report.took).unwrap_or(ended);
        let span = SpanBuilder::from_name(report.summary().to_string())
            .with_kind(SpanKind::Client)
            .with_start_time(started)
            .with_attributes(report.attributes());
        last.replace(Some(EndedSpan { span: tracer.build_with_context(span, &context), ended }));
    }
}

fn is_traced(context: &Context) -> bool {
    context.span().span_context().is_sampled()
}

/// What sqlx reports of a statement.
#[derive(Default)]
struct Report {
    took: Duration,
    beginning: String,
    text: String,
    threshold: String,
    rows: u64,
}

impl Report {
    /// A short statement is not repeated as text.
    fn summary(&self) -> Summary {
        Summary::of(if self.text.trim().is_empty() { &self.beginning } else { &self.text })
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let summary = self.summary();
        let mut attributes = vec![
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.query.summary", summary.to_string()),
            KeyValue::new("db.operation.name", summary.operation),
            KeyValue::new("db.response.returned_rows", i64::try_from(self.rows).unwrap_or(i64::MAX)),
        ];
        attributes.extend(summary.target.map(|target| KeyValue::new("db.collection.name", target)));
        if let Some(endpoint) = connections::endpoint(&self.threshold) {
            attributes.push(KeyValue::new("db.namespace", endpoint.database.clone()));
            attributes.push(KeyValue::new("server.address", endpoint.host.clone()));
            attributes.push(KeyValue::new("server.port", i64::from(endpoint.port)));
        }
        attributes
    }
}

impl field::Visit for Report {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.took = Duration::try_from_secs_f64(value).unwrap_or_default();
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "rows_returned" {
            self.rows = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.beginning),
            "db.statement" => value.clone_into(&mut self.text),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "slow_threshold" {
            self.threshold = format!("{value:?}");
        }
    }
}

/// The last statement of a span: whether it failed is known only after sqlx has reported it.
#[derive(Default)]
pub(super) struct LastStatement(Mutex<Option<EndedSpan>>);

impl LastStatement {
    fn replace(&self, span: Option<EndedSpan>) -> Option<EndedSpan> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), span)
    }
}

/// Is exported when it is dropped.
struct EndedSpan {
    span: Span,
    ended: SystemTime,
}

impl Drop for EndedSpan {
    fn drop(&mut self) {
        self.span.end_with_timestamp(self.ended);
    }
}

/// The statement that ended here last has failed, with this error, which is returned. Its span gets the SQLSTATE, and no message:
/// that may have values of rows.
pub fn statement_failed(error: &sqlx::Error) -> &sqlx::Error {
    if super::tracer().is_some() {
        mark(error);
    }
    error
}

fn mark(error: &sqlx::Error) {
    let sqlx::Error::Database(error) = error else { return };
    let error = error.downcast_ref::<PgDatabaseError>();
    // What refuses or ends a session is not an error of a statement.
    if matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic) {
        return;
    }
    let context = Context::current();
    if let Some(mut last) = context.get::<LastStatement>().and_then(|last| last.replace(None)) {
        last.span.set_attribute(KeyValue::new("error.type", error.code().to_owned()));
        last.span.set_attribute(KeyValue::new("db.response.status_code", error.code().to_owned()));
        last.span.set_status(Status::error(format!("SQLSTATE {}", error.code())));
    }
}
