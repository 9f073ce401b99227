//! An object that may be impossible to decode. The API server accepts objects that this version of the operator cannot read:
//! a time that is out of range, settings that are nested too deeply, a value of a newer version. One of them must not fail
//! the list of all.
//!
//! Unlike kube's `DeserializeGuard`, it reads the metadata of an object at any depth of nesting.

use std::{borrow::Cow, fmt::Debug};

use kube::{Resource, api::ObjectMeta};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::value::RawValue;

use super::json_path;

/// An object, or why it cannot be decoded.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Box<InvalidObject>>);

/// The rest of an object that cannot be decoded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct InvalidObject {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Why it cannot be decoded, and where. It does not contain the object.
    pub error: String,
    /// The tenant in its status, which only a Tenant has.
    pub tenant: StatusTenant,
}

/// What `status.tenantId` of an object that cannot be decoded says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusTenant {
    /// It has none: the Tenant was not registered.
    None,
    /// The id.
    Id(String),
    /// It cannot be read either.
    Unreadable,
}

/// Other fields are skipped without limits to their nesting: managedFields too, which repeat the nesting of a spec.
#[derive(Deserialize)]
struct MetadataOnly {
    metadata: Identity,
}

/// The part of a Tenant's status that says which tenant it is.
#[derive(Deserialize)]
struct StatusOnly {
    status: Option<StatusId>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusId {
    tenant_id: Option<String>,
}

/// The part of the metadata that is needed of an object that cannot be decoded.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    generation: Option<i64>,
    resource_version: Option<String>,
}

impl From<Identity> for ObjectMeta {
    fn from(identity: Identity) -> Self {
        let Identity { name, namespace, uid, generation, resource_version } = identity;
        Self { name, namespace, uid, generation, resource_version, ..Self::default() }
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let error = match serde_json::from_str(json.get()) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => describe(&error, json.get()),
        };
        let MetadataOnly { metadata } = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        let tenant = status_tenant(json.get());
        Ok(Self(Err(Box::new(InvalidObject { metadata: metadata.into(), error, tenant }))))
    }
}

fn status_tenant(json: &str) -> StatusTenant {
    match serde_json::from_str::<StatusOnly>(json) {
        Ok(StatusOnly { status }) => {
            status.and_then(|status| status.tenant_id).map_or(StatusTenant::None, StatusTenant::Id)
        }
        Err(_) => StatusTenant::Unreadable,
    }
}

/// The error without its position, which says nothing to a reader of YAML, but with the field.
fn describe(error: &serde_json::Error, json: &str) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    match json_path::field_at(json, error.line(), error.column()) {
        Some(field) => format!("{what}, at field {field}"),
        None => what.to_owned(),
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::{Value, json};

    use super::*;
    use crate::api::tenant::Tenant;

    fn tenant(name: &str, more: Value) -> Value {
        let mut spec = json!({"slug": name, "displayName": name, "plan": "starter"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": name, "namespace": "customers", "uid": format!("uid-{name}")}, "spec": spec})
    }

    fn nested(depth: usize) -> String {
        format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
    }

    #[test]
    fn invalid_object_does_not_fail_the_list() {
        let late = json!({"validity": {"notAfter": "9999-12-31T23:59:59Z"}});
        let deep = serde_json::to_string(&tenant("deep", json!({"settings": {"x": "DEEP"}}))).unwrap();
        // The API server repeats the nesting in the managed fields.
        let managed = format!("\"metadata\":{{\"managedFields\":[{{\"fieldsV1\":{}}}],", nested(300));
        let deep = deep.replace("\"DEEP\"", &nested(300)).replace("\"metadata\":{", &managed);
        let list = format!(
            r#"{{"apiVersion":"tenantry.dev/v1alpha1","kind":"TenantList","metadata":{{"resourceVersion":"7"}},"items":[{},{},{deep}]}}"#,
            tenant("late", late),
            tenant("good", json!({})),
        );
        let list: ObjectList<Guarded<Tenant>> = serde_json::from_str(&list).unwrap();
        let names: Vec<_> = list.items.iter().map(|item| item.meta().name.clone().unwrap()).collect();
        assert_eq!(names, ["late", "good", "deep"]);
        assert_eq!(list.items.iter().map(|item| item.0.is_ok()).collect::<Vec<_>>(), [false, true, false]);
        let error = &list.items[0].0.as_ref().unwrap_err().error;
        assert!(
            error.ends_with(", at field spec.validity.notAfter") && !error.contains("starter"),
            "{error}"
        );
        let deep = list.items[2].0.as_ref().unwrap_err();
        assert_eq!(deep.metadata.uid.as_deref(), Some("uid-deep"));
        // The managed fields name no field that a user wrote.
        assert_eq!(deep.error, "recursion limit exceeded");
    }

    #[test]
    fn tenant_in_the_status_is_read_nevertheless() {
        for (status, expected) in [
            (None, StatusTenant::None),
            (Some(json!({"state": "Provisioning"})), StatusTenant::None),
            (Some(json!({"tenantId": "6f0c"})), StatusTenant::Id("6f0c".into())),
            (Some(json!({"tenantId": 7})), StatusTenant::Unreadable),
        ] {
            let mut object = tenant("deep", json!({"settings": {"x": "DEEP"}}));
            if let Some(status) = status {
                object["status"] = status;
            }
            let object = object.to_string().replace("\"DEEP\"", &nested(300));
            let Guarded(Err(invalid)) = serde_json::from_str::<Guarded<Tenant>>(&object).unwrap() else {
                panic!("{object}")
            };
            assert_eq!(invalid.tenant, expected);
            assert_eq!(invalid.error, "recursion limit exceeded, at field spec.settings.x.a.a.a …");
        }
    }

    #[test]
    fn invalid_object_does_not_fail_the_watch() {
        let offset = json!({"trial": {"endsAt": "2030-01-01T00:00:00-99:59"}});
        // As the API server sends it: the type comes first.
        let event = format!(r#"{{"type":"MODIFIED","object":{}}}"#, tenant("acme", offset));
        let event: WatchEvent<Guarded<Tenant>> = serde_json::from_str(&event).unwrap();
        let WatchEvent::Modified(Guarded(Err(invalid))) = event else { panic!("{event:?}") };
        assert_eq!(invalid.metadata.name.as_deref(), Some("acme"));
    }
}
