//! The controller of `SupportAccess`: its watch, and what it requests.

use std::future::ready;

use futures::StreamExt;
use kube::{
    ResourceExt,
    runtime::{
        Controller, WatchStreamExt, predicates,
        reflector::{ObjectRef, store::Writer},
        utils::Predicate,
    },
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use super::reconcile::{after_error, reconcile};
use crate::{
    api::support_access::SupportAccess,
    controller::{
        context::{Context, SharedContext},
        state::invalid_objects::InvalidObjects,
        watch::{
            decode::watch,
            source::{api, watch_config},
        },
    },
    registry, traces,
};

/// The support accesses of one watched namespace.
pub struct SupportInput {
    /// The namespace; none: all.
    pub namespace: Option<String>,
    /// The store that the watch fills.
    pub writer: Writer<SupportAccess>,
    /// Requested reconciles.
    pub requests: UnboundedReceiver<ObjectRef<SupportAccess>>,
}

/// Reads which accesses are in force. Before anything looks for support logins that were left.
pub async fn resume(context: &Context) -> Result<(), registry::Error> {
    for record in context.registry.support_in_force().await? {
        context.state.supports.set(&record);
    }
    Ok(())
}

/// Reconciles the support accesses of one watched namespace until `shutdown`.
pub async fn run(context: SharedContext, input: SupportInput, shutdown: CancellationToken) {
    // Before all Tenants are known, an access would be taken for one to a tenant that is gone.
    if !context.stores.scopes.are_known(&shutdown).await {
        return;
    }
    let reader = input.writer.as_reader();
    let accesses = api(&context.watch_client, input.namespace.as_deref());
    let stream = watch(accesses, watch_config(), input.writer, InvalidObjects::default(), &context)
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::finalizers), Default::default());
    Controller::for_stream(stream, reader)
        .reconcile_on(UnboundedReceiverStream::new(input.requests))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(
            |object, context| {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                traces::reconcile("SupportAccess", &namespace, &name, reconcile(object, context))
            },
            after_error,
            context,
        )
        .for_each(|_| ready(()))
        .await;
}
