//! The CustomResourceDefinitions as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::{
    database_server::DatabaseServer, plan::TenantPlan, support_access::SupportAccess, tenant::Tenant,
    tenant_account::TenantAccount, tenant_hold::TenantHold, tenant_module::TenantModule,
};

/// The CRDs of all kinds, as they are installed. `Tenant::crd()` and the like lack what the derive cannot express.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [
        Tenant::crd(),
        TenantPlan::crd(),
        TenantHold::crd(),
        DatabaseServer::crd(),
        TenantModule::crd(),
        SupportAccess::crd(),
        TenantAccount::crd(),
    ]
    .into_iter()
    .map(finish)
    .collect()
}

/// The CRDs as files: the name and the YAML of each.
pub fn crd_files() -> Vec<(String, String)> {
    crds().iter().map(|crd| (format!("{}.yaml", crd.spec.names.plural), yaml(crd))).collect()
}

/// All CRDs as one YAML stream, for `kubectl apply -f -`.
pub fn crds_yaml() -> String {
    crd_files().into_iter().map(|(_, yaml)| format!("---\n{yaml}")).collect()
}

fn yaml(crd: &CustomResourceDefinition) -> String {
    let text = serde_saphyr::to_string(crd).expect("a CRD is plain data, which YAML can always represent");
    format!("# Generated from src/api by `tenantry crds`: change it there.\n{text}")
}

fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        forbid_null(root);
        // GitOps tools consider an object without a status finished; with this default they wait for its first
        // reconcile. A TenantPlan is finished when it is stored: its tenants follow.
        if crd.spec.names.kind != "TenantPlan"
            && let Some(status) = root.properties.as_mut().and_then(|properties| properties.get_mut("status"))
        {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
    crd
}

/// Makes every field non-nullable: absent means unset.
fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
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

#[cfg(test)]
mod tests {
    use crate::api::{
        database_server::*, plan::*, support_access::*, tenant::*, tenant_account::*, tenant_hold::*,
        tenant_lifecycle::*, tenant_module::*, tenant_status::*,
    };

    macro_rules! assert_serialized {
        ($($type:ident),+ $(,)?) => {$(
            for value in $type::ALL {
                let json = serde_json::to_value(value).unwrap();
                assert_eq!(json, value.as_str(), "{}", stringify!($type));
                assert_eq!(serde_json::from_value::<$type>(json).unwrap(), *value);
                assert_eq!(value.to_string(), value.as_str());
            }
        )+};
    }

    #[test]
    fn string_enums_serialize_as_declared() {
        assert_serialized!(
            DesiredState,
            SuspensionMode,
            SuspensionTrigger,
            OffboardingTrigger,
            DeletionPolicy,
            AdminCredential,
            Isolation,
            OnFailure,
            TenantState,
            Access,
            WorkflowKind,
            StepState,
            HoldMode,
            TenantHoldMode,
            TrialEndAction,
            Engine,
            TlsMode,
            SslMode,
            ModuleSourceKind,
            ModuleState,
            SupportApproval,
            SupportState,
            RequestState,
        );
    }
}
