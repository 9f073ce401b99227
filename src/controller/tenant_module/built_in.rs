//! The TenantModules of the built-in modules, so that `kubectl get tmod` lists them too, and the schemas that they are in.

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
    domain::module_schemas::ModuleSchemas,
    modules, registry,
};

/// Records the schema of each built-in module. One that tenants have, or may have, keeps its schema.
///
/// # Errors
/// The registry's.
pub async fn record_schemas(context: &Context) -> registry::Result<()> {
    for module in context.modules.built_in_modules() {
        let recorded = context.state.modules.accepted(&module.name);
        let wanted = module.accepted();
        if recorded.as_ref() == Some(&wanted) {
            continue;
        }
        let accepted = match context.registry.schema_in_use(&module.name).await? {
            Some(schema) if schema != module.schema => {
                warn!(module = %module.name, schema = %module.schema, tenants_have = schema, "the schema of a module was changed: it is not applied");
                let in_public = || {
                    let mut modules = modules::embedded(&ModuleSchemas::default()).into_iter();
                    modules.find(|public| public.name == module.name).map(|public| public.accepted())
                };
                recorded.clone().or_else(in_public).unwrap_or(wanted)
            }
            _ => wanted,
        };
        if recorded.as_ref() != Some(&accepted) {
            context.registry.accept_module(&accepted).await?;
            context.state.modules.accept(accepted);
        }
    }
    Ok(())
}

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
