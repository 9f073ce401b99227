//! What the API server accepts and refuses, and in which words. Nothing here needs the operator.

mod database_server;
mod display;
mod hold;
mod plan;
mod round_trip;
mod slug;
mod stored;
mod tenant;
mod tenant_update;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, CustomResourceExt, Error, Resource, ResourceExt};
use serde_json::{Value, json};
use tenantry::api;

/// Why the API server refused an object: the field and what it says about it.
#[derive(Debug)]
struct Cause {
    field: String,
    message: String,
}

/// Objects of one kind, as JSON.
struct Objects {
    api: Api<DynamicObject>,
    kind: String,
}

impl Objects {
    fn namespaced<K: Resource<DynamicType = ()>>(client: &Client, namespace: &str) -> Self {
        let resource = ApiResource::erase::<K>(&());
        Self { api: Api::namespaced_with(client.clone(), namespace, &resource), kind: resource.kind }
    }

    fn cluster<K: Resource<DynamicType = ()>>(client: &Client) -> Self {
        let resource = ApiResource::erase::<K>(&());
        Self { api: Api::all_with(client.clone(), &resource), kind: resource.kind }
    }

    fn object(&self, name: &str, spec: &Value) -> DynamicObject {
        let object = json!({
            "apiVersion": api::API_VERSION, "kind": self.kind, "metadata": {"name": name}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    /// Creates an object for real.
    async fn create(&self, name: &str, spec: &Value) -> Value {
        let created = self.api.create(&PostParams::default(), &self.object(name, spec)).await;
        created.unwrap_or_else(|error| panic!("{spec}: {error}")).data
    }

    /// Asks whether an object could be created.
    async fn try_create(&self, name: &str, spec: &Value) -> Result<Value, Vec<Cause>> {
        let params = PostParams { dry_run: true, ..Default::default() };
        verdict(self.api.create(&params, &self.object(name, spec)).await)
    }

    /// Asks whether an object could be changed by a merge patch of its spec.
    async fn try_change(&self, name: &str, spec: &Value) -> Result<Value, Vec<Cause>> {
        let params = PatchParams { dry_run: true, ..Default::default() };
        verdict(self.api.patch(name, &params, &Patch::Merge(json!({"spec": spec}))).await)
    }
}

fn verdict(answer: kube::Result<DynamicObject>) -> Result<Value, Vec<Cause>> {
    match answer {
        Ok(object) => Ok(object.data),
        Err(Error::Api(status)) if status.code == 422 => {
            let causes = status.details.map(|details| details.causes).unwrap_or_default();
            Err(causes
                .into_iter()
                // Said once more whenever the shape is wrong, about nothing in particular.
                .filter(|cause| !cause.message.contains("some validation rules were not checked"))
                .map(|cause| Cause { field: cause.field, message: cause.message })
                .collect())
        }
        Err(error) => panic!("{error}"),
    }
}

/// Asserts that there is one objection, about this field, in these words.
#[track_caller]
fn assert_refused(what: &Value, verdict: Result<Value, Vec<Cause>>, field: &str, words: &str) {
    match verdict {
        Ok(_) => panic!("{what} was accepted; {field} should have been refused"),
        Err(causes) => {
            let [cause] = &causes[..] else { panic!("{what}: one cause was expected, not {causes:#?}") };
            assert_eq!(cause.field, field, "{what}: {}", cause.message);
            assert!(cause.message.contains(words), "{what}: {:?} lacks {words:?}", cause.message);
        }
    }
}

#[track_caller]
fn assert_accepted(what: &Value, verdict: Result<Value, Vec<Cause>>) {
    if let Err(causes) = verdict {
        panic!("{what} was refused: {causes:#?}");
    }
}

/// `base` with the fields of `changes` on top; null removes.
fn with(base: &Value, changes: &Value) -> Value {
    let mut spec = base.clone();
    let fields = spec.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    spec
}

/// The least that a Tenant must say.
fn tenant() -> Value {
    json!({"slug": "acme", "displayName": "Acme Corp", "plan": "starter", "deletionPolicy": "Retain"})
}

/// So many limits.
fn limits(count: usize) -> Value {
    (0..count).map(|n| (format!("limit{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into()
}

/// So many gates with names as long as they may be.
fn gates(count: usize) -> Value {
    (0..count).map(|n| json!({"name": format!("g{n:0>62}")})).collect()
}

/// The definition of a kind in a group of a test's own: no operator sees its objects, and nobody else's test does.
fn definition_in<K: CustomResourceExt>(group: &str) -> CustomResourceDefinition {
    let mut crd = api::crds().into_iter().find(|crd| crd.name_any() == K::crd_name()).unwrap();
    crd.metadata.name = Some(format!("{}.{group}", crd.spec.names.plural));
    crd.spec.group = group.to_owned();
    crd.spec.names.short_names = None;
    crd.spec.names.categories = None;
    crd
}
