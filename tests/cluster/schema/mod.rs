//! What the API server accepts and refuses, and the messages. Nothing here needs the operator.

mod database_server;
mod display;
mod hold;
mod module;
mod plan;
mod round_trip;
mod slug;
mod stored;
mod tenant;
mod tenant_update;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::conditions;
use kube::{Client, CustomResourceExt, Error, Resource, ResourceExt};
use serde_json::{Value, json};
use tenantry::api;
use tenantry_test_support::Wait;

/// Installs a CRD and waits until its kind is served.
async fn install(client: &Client, crd: &CustomResourceDefinition) -> kube::Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = crd.name_any();
    crds.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(crd)).await?;
    Wait::until(format!("{name} is served")).object(&crds, &name, conditions::is_crd_established()).await;
    Ok(())
}

/// Why the API server refused an object: a field, and the message about it.
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

    /// Creates an object, without dry run.
    async fn create(&self, name: &str, spec: &Value) -> Value {
        let created = self.api.create(&PostParams::default(), &self.object(name, spec)).await;
        created.unwrap_or_else(|error| panic!("{spec}: {error}")).data
    }

    /// Asks whether an object could be created.
    async fn try_create(&self, name: &str, spec: &Value) -> Result<Value, Vec<Cause>> {
        let params = PostParams { dry_run: true, ..Default::default() };
        outcome(self.api.create(&params, &self.object(name, spec)).await)
    }

    /// Asks whether an object could be changed by a merge patch of its spec.
    async fn try_change(&self, name: &str, spec: &Value) -> Result<Value, Vec<Cause>> {
        let params = PatchParams { dry_run: true, ..Default::default() };
        outcome(self.api.patch(name, &params, &Patch::Merge(json!({"spec": spec}))).await)
    }
}

fn outcome(answer: kube::Result<DynamicObject>) -> Result<Value, Vec<Cause>> {
    match answer {
        Ok(object) => Ok(object.data),
        Err(Error::Api(status)) if status.code == 422 => {
            let causes = status.details.map(|details| details.causes).unwrap_or_default();
            Err(causes
                .into_iter()
                // Repeated for every structural error, without a cause.
                .filter(|cause| !cause.message.contains("some validation rules were not checked"))
                .map(|cause| Cause { field: cause.field, message: cause.message })
                .collect())
        }
        Err(error) => panic!("{error}"),
    }
}

/// Asserts that there is one cause, about this field, with this text.
#[track_caller]
fn assert_refused(what: &Value, outcome: Result<Value, Vec<Cause>>, field: &str, words: &str) {
    match outcome {
        Ok(_) => panic!("{what} was accepted; {field} should have been refused"),
        Err(causes) => {
            let [cause] = &causes[..] else { panic!("{what}: one cause was expected, not {causes:#?}") };
            assert_eq!(cause.field, field, "{what}: {}", cause.message);
            assert!(cause.message.contains(words), "{what}: {:?} lacks {words:?}", cause.message);
        }
    }
}

#[track_caller]
fn assert_accepted(what: &Value, outcome: Result<Value, Vec<Cause>>) {
    if let Err(causes) = outcome {
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

/// The smallest valid spec of a Tenant.
fn tenant() -> Value {
    json!({"slug": "acme", "displayName": "Acme Corp", "plan": "starter", "deletionPolicy": "Retain"})
}

/// This many limits.
fn limits(count: usize) -> Value {
    (0..count).map(|n| (format!("limit{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into()
}

/// This many gates, with names of the maximum length.
fn gates(count: usize) -> Value {
    (0..count).map(|n| json!({"name": format!("g{n:0>62}")})).collect()
}

/// The CRD of a kind in a group of a test's own: no operator and no other test watches its objects.
fn definition_in<K: CustomResourceExt>(group: &str) -> CustomResourceDefinition {
    let mut crd = api::crds().into_iter().find(|crd| crd.name_any() == K::crd_name()).unwrap();
    crd.metadata.name = Some(format!("{}.{group}", crd.spec.names.plural));
    crd.spec.group = group.to_owned();
    crd.spec.names.short_names = None;
    crd.spec.names.categories = None;
    crd
}
