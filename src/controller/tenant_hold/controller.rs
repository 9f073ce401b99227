//! The controller of `TenantHold`: its watch, and what it requests.

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
    api::tenant_hold::TenantHold,
    controller::{
        context::SharedContext,
        state::invalid_objects::InvalidObjects,
        watch::{
            decode::watch,
            source::{api, watch_config},
        },
    },
    traces,
};

/// The holds of one watched namespace.
pub struct HoldInput {
    /// The namespace; none: all.
    pub namespace: Option<String>,
    /// The store that the watch fills.
    pub writer: Writer<TenantHold>,
    /// Requested reconciles.
    pub requests: UnboundedReceiver<ObjectRef<TenantHold>>,
}

/// Reconciles the holds of one watched namespace until `shutdown`.
pub async fn run(context: SharedContext, input: HoldInput, shutdown: CancellationToken) {
    // Before all Tenants are known, a hold would be taken for one of a Tenant that does not exist.
    if !context.stores.scopes.are_known(&shutdown).await {
        return;
    }
    let reader = input.writer.as_reader();
    let holds = api(&context.watch_client, input.namespace.as_deref());
    let stream = watch(holds, watch_config(), input.writer, InvalidObjects::default(), &context)
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::finalizers), Default::default());
    Controller::for_stream(stream, reader)
        .reconcile_on(UnboundedReceiverStream::new(input.requests))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(
            |hold, context| {
                let namespace = hold.namespace().unwrap_or_default();
                traces::reconcile("TenantHold", &namespace, &hold.name_any(), reconcile(hold, context))
            },
            after_error,
            context,
        )
        .for_each(|_| ready(()))
        .await;
}
