//! The TenantModules of the built-in modules, so that `kubectl get tmod` lists them too.

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::reflector::ObjectRef,
};
use serde_json::json;
use tracing::{info, warn};

use crate::{
    api::{API_VERSION, LABEL_MANAGED_BY, MANAGED_BY, tenant_module::TenantModule},
    controller::context::Context,
};

/// Applies the objects that do not exist, or lack their label. A field that another client owns is not changed. Returns
/// whether every request succeeded. An operator for a selection of TenantModules leaves this to another one.
pub async fn apply_built_in(context: &Context) -> bool {
    if context.config.module_selector.is_some() {
        return true;
    }
    let mut done = true;
    for name in context.modules.built_in_names() {
        let found = context.stores.tenant_modules.get(&ObjectRef::new(name));
        let is_as_wanted = |module: &TenantModule| {
            module.spec.source.built_in.is_none()
                || module.labels().get(LABEL_MANAGED_BY).is_some_and(|by| by == MANAGED_BY)
        };
        if found.is_some_and(|module| is_as_wanted(&module)) {
            continue;
        }
        let patch = json!({
            "apiVersion": API_VERSION, "kind": "TenantModule",
            "metadata": {"name": name, "labels": {LABEL_MANAGED_BY: MANAGED_BY}},
            "spec": {"source": {"builtIn": {}}},
        });
        let modules = Api::<TenantModule>::all(context.client.clone());
        match modules.patch(name, &PatchParams::apply(MANAGED_BY), &Patch::Apply(patch)).await {
            Ok(_) => info!(module = name, "listed a built-in module"),
            // Another client owns a field: it may have an object of this name at the same time.
            Err(kube::Error::Api(answer)) if answer.is_conflict() => {}
            Err(error) => {
                warn!(module = name, %error, "could not list a built-in module");
                done = false;
            }
        }
    }
    done
}
