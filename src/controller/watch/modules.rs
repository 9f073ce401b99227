//! The watches on TenantModules, and on the ConfigMaps of the operator's namespace, from which they come.

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::store::Writer,
        watcher::{Event, watcher},
    },
};
use tracing::warn;

use super::{decode::watch, source::watch_config};
use crate::{
    api::tenant_module::TenantModule,
    controller::{context::SharedContext, state::invalid_objects::InvalidObjects},
};

/// Keeps the store of TenantModules up to date, and has their content read when one changed.
pub async fn run(context: SharedContext, writer: Writer<TenantModule>) {
    let mut config = watch_config();
    if let Some(selector) = &context.config.module_selector {
        config = config.labels(selector);
    }
    let modules = Api::all(context.watch_client.clone());
    let events = watch(modules, config, writer, InvalidObjects::default(), &context);
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => {
                context.state.modules.sources_changed.notify_one();
                context.state.objects_changed.notify_one();
                context.state.images.wanted.notify_one();
                // A status that another client changed, or that is missing on a new object.
                context.state.modules.status_changed.notify_one();
            }
            Ok(Event::Init | Event::InitApply(_)) => {}
            Err(error) => warn!(%error, kind = "TenantModule", "watch interrupted"),
        }
    }
}

/// Keeps the store of ConfigMaps up to date, and has the content of modules read when one of theirs changed.
pub async fn run_config_maps(context: SharedContext, writer: Writer<ConfigMap>) {
    let maps = Api::<ConfigMap>::namespaced(context.watch_client.clone(), &context.config.operator_namespace);
    let (lists, path) = (context.clone(), maps.resource_url().to_owned());
    let events = watcher(maps, watch_config())
        .default_backoff()
        .modify(|map| map.managed_fields_mut().clear())
        .inspect(move |event| lists.state.failed_lists.note(&path, event))
        .reflect(writer);
    let is_source = |map: &ConfigMap| {
        let name = map.name_any();
        let is_it = |module: &TenantModule| {
            module.spec.source.config_maps.iter().flatten().any(|reference| reference.name == name)
        };
        context.stores.tenant_modules.state().iter().any(|module| is_it(module))
    };
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(map) | Event::Delete(map)) if !is_source(&map) => {}
            Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => {
                context.state.modules.sources_changed.notify_one();
            }
            Ok(Event::Init | Event::InitApply(_)) => {}
            Err(error) => warn!(%error, kind = "ConfigMap", "watch interrupted"),
        }
    }
}
