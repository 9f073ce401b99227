//! The spans of reconciles and steps. The names of attributes are those of OpenTelemetry's semantic conventions where they have
//! one, and begin with `tenantry.` otherwise.

use opentelemetry::{
    Context, KeyValue, Value,
    context::{FutureExt, WithContext},
    trace::{SpanBuilder, Status, TraceContextExt, Tracer},
};
use uuid::Uuid;

use super::statements::LastStatement;

/// Runs a reconcile in a span. Without a name, it is that of all objects of the kind.
pub fn reconcile<F: Future>(kind: &'static str, namespace: &str, name: &str, work: F) -> WithContext<F> {
    in_span(work, || {
        let mut attributes = vec![KeyValue::new("tenantry.object.kind", kind)];
        for (attribute, value) in [("tenantry.object.name", name), ("k8s.namespace.name", namespace)] {
            if !value.is_empty() {
                attributes.push(KeyValue::new(attribute, value.to_owned()));
            }
        }
        SpanBuilder::from_name(format!("reconcile {kind}")).with_attributes(attributes)
    })
}

/// Runs a step in a span. The correlation id is the workflow's, once there is one.
pub fn step<F: Future>(
    step: &'static str,
    workflow: &'static str,
    correlation_id: Option<Uuid>,
    work: F,
) -> WithContext<F> {
    in_span(work, || {
        let mut attributes =
            vec![KeyValue::new("tenantry.step", step), KeyValue::new("tenantry.workflow.kind", workflow)];
        attributes.extend(correlation_id.map(|id| KeyValue::new("tenantry.correlation_id", id.to_string())));
        SpanBuilder::from_name(format!("step {step}")).with_attributes(attributes)
    })
}

/// The span ends when the future does.
pub(super) fn in_span<F: Future>(work: F, span: impl FnOnce() -> SpanBuilder) -> WithContext<F> {
    let context = match super::tracer() {
        Some(tracer) => {
            let parent = Context::current();
            let span = tracer.build_with_context(span(), &parent);
            parent.with_span(span).with_value(LastStatement::default())
        }
        None => Context::new(),
    };
    work.with_context(context)
}

/// Adds something to the span of the reconcile or the step that runs here.
pub fn note(attribute: &'static str, value: impl Into<Value>) {
    if super::tracer().is_some() {
        Context::current().span().set_attribute(KeyValue::new(attribute, value));
    }
}

/// The reconcile or the step that runs here has failed: with a condition's reason, and its message.
pub fn failed(reason: &'static str, message: &str) {
    if super::tracer().is_some() {
        let context = Context::current();
        context.span().set_attribute(KeyValue::new("error.type", reason));
        context.span().set_status(Status::error(format!("{reason}: {message}")));
    }
}
