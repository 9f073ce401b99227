//! The CustomResourceDefinitions, as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::{database_server::DatabaseServer, plan::TenantPlan, tenant::Tenant, tenant_hold::TenantHold};

/// The definitions of all kinds, as they must be installed. `Tenant::crd()` and its like are the raw material: they
/// lack what the derive cannot say.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [Tenant::crd(), TenantPlan::crd(), TenantHold::crd(), DatabaseServer::crd()]
        .into_iter()
        .map(finish)
        .collect()
}

/// The definitions as files: the name and the YAML of each.
pub fn crd_files() -> Vec<(String, String)> {
    crds().iter().map(|crd| (format!("{}.yaml", crd.spec.names.plural), yaml(crd))).collect()
}

/// All definitions as one YAML stream, for `kubectl apply -f -`.
pub fn crds_yaml() -> String {
    crd_files().into_iter().map(|(_, yaml)| format!("---\n{yaml}")).collect()
}

fn yaml(crd: &CustomResourceDefinition) -> String {
    let text = serde_saphyr::to_string(crd).expect("a definition is plain data, which YAML can always say");
    format!("# Generated from src/api by `tenantry crds`: change it there.\n{text}")
}

fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        forbid_null(root);
        // GitOps tools take an object without a status for finished; with this one they wait for the first visit. A
        // plan is only looked up, not visited: it is finished when it is stored.
        if crd.spec.names.kind != "TenantPlan"
            && let Some(status) = root.properties.as_mut().and_then(|properties| properties.get_mut("status"))
        {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
    crd
}

/// No field is nullable: absent means unset.
fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(words) = &mut schema.enum_ {
        words.retain(|word| !word.0.is_null());
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        forbid_null(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        forbid_null(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        forbid_null(values);
    }
}
