//! Logging.
//!
//! One line per event, to standard error, as text or as JSON. Its subject is in fields, which always have the same
//! names: `tenant` and `namespace` (the Tenant's), `correlation_id` (the workflow's id), `step`,
//! `duration_ms`, `outcome`, `reason`, `error`. No field contains a secret.

use std::io::{self, IsTerminal};

use tracing::{Span, Subscriber, field::Empty};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, ParseError, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

use crate::traces::{STATEMENTS, StatementSpans};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not valid.
    #[error(
        "the log level {0:?} is neither a level (error, warn, info, debug, trace) nor a filter such as info,kube=debug: {1}"
    )]
    Filter(String, #[source] ParseError),
    /// Logging is set up already.
    #[error("logging is set up already")]
    Already,
}

/// Sets up logging for this process. `level` is a level, or a filter in the manner of `RUST_LOG`.
pub fn init(format: LogFormat, level: &str, statements: Statements) -> Result<(), Error> {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    subscriber(format, level, io::stderr, colours, statements)?.try_init().map_err(|_| Error::Already)
}

/// What becomes of the reports of SQL statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statements {
    /// As the filter says. Those on servers are not reported.
    Logged,
    /// Each gets a span. They are never logged: some have verifiers of passwords.
    Traced,
}

/// What [`init`] sets up, with another writer.
pub fn subscriber<W>(
    format: LogFormat,
    level: &str,
    writer: W,
    colours: bool,
    statements: Statements,
) -> Result<impl Subscriber + Send + Sync, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(level)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(colours).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let (lines, spans) = match statements {
        Statements::Logged => (lines.with_filter(filter).boxed(), None),
        Statements::Traced => {
            let others = filter_fn(|metadata| metadata.target() != STATEMENTS);
            (lines.with_filter(filter.and(others)).boxed(), Some(StatementSpans.with_filter(StatementSpans)))
        }
    };
    Ok(registry().with(lines).with(spans))
}

/// A plain level is Tenantry's own: libraries log warnings only. kube's client logs errors only, since its warnings contain
/// whole objects that it could not decode.
fn filter(level: &str) -> Result<EnvFilter, Error> {
    let level = level.trim();
    let directives = match level.parse::<tracing::Level>() {
        Ok(ours) if ours >= tracing::Level::INFO => format!("warn,kube_client::client=error,tenantry={ours}"),
        _ => level.to_owned(),
    };
    EnvFilter::try_new(directives).map_err(|error| Error::Filter(level.to_owned(), error))
}

/// The span of all work on a tenant: every line in it has the tenant's name. The workflow's id is recorded in it as
/// `correlation_id` once it exists.
pub fn tenant_span(namespace: &str, tenant: &str) -> Span {
    tracing::info_span!("tenant", namespace, tenant, correlation_id = Empty)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Lines {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    fn written(format: LogFormat, level: &str) -> String {
        written_with(format, level, Statements::Logged)
    }

    fn written_with(format: LogFormat, level: &str, statements: Statements) -> String {
        let lines = Lines::default();
        let subscriber = subscriber(format, level, lines.clone(), false, statements).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let span = tenant_span("customers", "acme");
            span.record("correlation_id", "c-1");
            let _in = span.enter();
            tracing::info!(step = "CreateDatabase", duration_ms = 54, outcome = "succeeded", "step ended");
            tracing::debug!("details");
            tracing::info!(target: "sqlx::query", "a library's chatter");
            tracing::warn!(target: "kube_client", "a library's warning");
            tracing::warn!(target: "kube_client::client", "an object that was not decoded");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_have_event_and_tenant_fields() {
        let text = written(LogFormat::Json, "info");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        let line = &lines[0];
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "step ended");
        assert_eq!(line["step"], "CreateDatabase");
        assert_eq!(line["duration_ms"], 54);
        assert_eq!(line["span"]["tenant"], "acme");
        assert_eq!(line["span"]["namespace"], "customers");
        assert_eq!(line["span"]["correlation_id"], "c-1");
        assert_eq!(lines[1]["message"], "a library's warning");
    }

    #[test]
    fn text_lines_have_event_and_tenant_fields() {
        let text = written(LogFormat::Text, "info");
        assert!(text.contains("tenant=\"acme\""), "{text}");
        assert!(text.contains("step=\"CreateDatabase\""), "{text}");
        assert!(!text.contains("chatter"), "{text}");
        assert!(!text.contains("details"), "{text}");
    }

    #[test]
    fn filter_selects_lines() {
        assert!(written(LogFormat::Text, "debug").contains("details"));
        assert!(written(LogFormat::Text, "sqlx=info").contains("chatter"));
        assert!(!written(LogFormat::Text, "sqlx=info").contains("step ended"));
        assert_eq!(written(LogFormat::Text, "off"), "");
    }

    #[test]
    fn traced_statements_are_never_logged() {
        for level in ["trace", "sqlx=trace", "sqlx::query=trace", "trace,sqlx::query=info"] {
            let text = written_with(LogFormat::Text, level, Statements::Traced);
            assert!(!text.contains("chatter"), "{level}: {text}");
            assert!(level.contains("sqlx=") || level.starts_with("sqlx::") || text.contains("step ended"));
        }
        assert!(written_with(LogFormat::Text, "info", Statements::Traced).contains("step ended"));
    }

    #[test]
    fn invalid_filter_is_refused_with_examples() {
        let error = filter("info,tenantry=loudly").unwrap_err().to_string();
        assert!(error.contains("info,tenantry=loudly") && error.contains("debug"), "{error}");
    }
}
