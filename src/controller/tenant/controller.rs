//! The controller of `Tenant`: its watch, and what it requests.

use std::future::ready;

use futures::StreamExt;
use kube::runtime::{
    Controller, WatchStreamExt,
    reflector::{ObjectRef, store::Writer},
    watcher,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::reconcile::{after_error, reconcile};
use crate::{
    api::tenant::Tenant,
    controller::{
        context::SharedContext,
        state::{fingerprint, invalid_objects::InvalidObjects},
        watch::{
            decode::watch,
            requeue::{requeue_all_holds_and_plans, requeue_holds_and_plans_of},
            source::{api, watch_config},
        },
    },
};

/// The Tenants of one watched namespace.
pub struct TenantInput {
    /// The namespace; none: all.
    pub namespace: Option<String>,
    /// The store that the watch fills.
    pub writer: Writer<Tenant>,
    /// The objects that cannot be decoded.
    pub invalid: InvalidObjects<Tenant>,
    /// Requested reconciles.
    pub requests: UnboundedReceiver<ObjectRef<Tenant>>,
}

/// Reconciles the Tenants of one watched namespace until `shutdown`. A change of a Tenant requests the reconcile of its
/// holds too: their status depends on it.
pub async fn run(context: SharedContext, input: TenantInput, shutdown: CancellationToken) {
    let reader = input.writer.as_reader();
    info!(namespace = input.namespace.as_deref().unwrap_or("all"), "watching tenants");
    let tenants = api(&context.watch_client, input.namespace.as_deref());
    let (requeueing, changed, requested) = (context.clone(), context.clone(), context.clone());
    let stream = watch(tenants, watch_config(), input.writer, input.invalid, &context)
        .inspect(move |event| match event {
            Ok(watcher::Event::Apply(tenant) | watcher::Event::Delete(tenant)) => {
                requeue_holds_and_plans_of(tenant, &requeueing);
            }
            Ok(watcher::Event::InitDone) => requeue_all_holds_and_plans(&requeueing),
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) | Err(_) => {}
        })
        .applied_objects()
        .predicate_filter(reconciled_part, Default::default())
        .inspect(move |tenant| {
            if let Ok(tenant) = tenant {
                changed.state.waiting.requested(&ObjectRef::from_obj(tenant));
            }
        });
    let requests = UnboundedReceiverStream::new(input.requests)
        .inspect(move |reference| requested.state.waiting.requested(reference));
    // Without a limit on the number of reconciles: each waits for its own slot, a restriction of access for none of theirs.
    Controller::for_stream(stream, reader)
        .reconcile_on(requests)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, after_error, context)
        .for_each(|_| ready(()))
        .await;
}

/// The part of a Tenant whose change leads to its reconcile.
fn reconciled_part(tenant: &Tenant) -> Option<u64> {
    Some(fingerprint::of_tenant(tenant))
}
