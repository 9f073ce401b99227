//! The controller of `DatabaseServer`: its watches, and what they request.

use std::{collections::HashMap, future::ready, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    runtime::{
        Controller, WatchStreamExt,
        controller::Config,
        predicates,
        reflector::{ObjectRef, store::Writer},
        utils::Predicate,
        watcher,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use super::reconcile::{after_error, reconcile};
use crate::{
    api::database_server::DatabaseServer,
    controller::{
        context::SharedContext,
        state::invalid_objects::InvalidObjects,
        watch::{decode::watch, requeue::requeue_tenants_on, source::watch_config},
    },
    traces,
};

/// A server that many tenants could not reach at once is checked once.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Reconciles the servers with these labels until `shutdown`. Tenants are reconciled when their server's spec changes; what
/// a check of the server finds requests their reconcile itself.
pub async fn run(
    context: SharedContext,
    selector: Option<String>,
    writer: Writer<DatabaseServer>,
    shutdown: CancellationToken,
) {
    let reader = writer.as_reader();
    let servers = Api::all(context.watch_client.clone());
    let config = match selector {
        Some(labels) => watch_config().labels(&labels),
        None => watch_config(),
    };
    let stream = watch(servers, config, writer, InvalidObjects::default(), &context)
        .inspect(requeue_tenants_of_changed(context.clone()))
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::finalizers), Default::default());
    let (sender, check_requests) = mpsc::unbounded_channel();
    context.state.servers.send_check_requests_to(sender);
    // A changed admin or CA Secret is used at once, not at the next period.
    let secrets = Api::<Secret>::namespaced(context.watch_client.clone(), &context.config.operator_namespace);
    let store = reader.clone();
    Controller::for_stream(stream, reader)
        .reconcile_on(UnboundedReceiverStream::new(check_requests))
        .with_config(Config::default().debounce(DEBOUNCE))
        .watches(secrets, watch_config(), move |secret| {
            let name = secret.name_any();
            let users = store.state_filter(move |server| {
                let ca = server.spec.tls.as_ref().and_then(|tls| tls.ca_secret_ref.as_ref());
                server.spec.admin_secret_ref.name == name || ca.is_some_and(|ca| ca.name == name)
            });
            users.into_iter().map(|server| ObjectRef::from_obj(server.as_ref()))
        })
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(
            |server, context| {
                traces::reconcile("DatabaseServer", "", &server.name_any(), reconcile(server, context))
            },
            after_error,
            context,
        )
        .for_each(|_| ready(()))
        .await;
}

type ServerEvent = watcher::Result<watcher::Event<DatabaseServer>>;

/// Requests the reconcile of the tenants of a server that is new, was deleted, or has another spec.
fn requeue_tenants_of_changed(context: SharedContext) -> impl FnMut(&ServerEvent) {
    let mut generations = HashMap::new();
    move |event| match event {
        Ok(watcher::Event::Apply(server) | watcher::Event::InitApply(server)) => {
            let (name, generation) = (server.name_any(), server.metadata.generation);
            if generations.insert(name.clone(), generation) != Some(generation) {
                requeue_tenants_on(&name, &context);
                context.state.objects_changed.notify_one();
            }
        }
        Ok(watcher::Event::Delete(server)) => {
            generations.remove(&server.name_any());
            requeue_tenants_on(&server.name_any(), &context);
            context.state.objects_changed.notify_one();
        }
        // Those that were deleted while the watch was down are missing in the list.
        Ok(watcher::Event::InitDone) => context.state.objects_changed.notify_one(),
        Ok(watcher::Event::Init) | Err(_) => {}
    }
}
