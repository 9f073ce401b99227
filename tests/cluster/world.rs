//! What the tests of one run share.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{conditions, wait::await_condition};
use kube::{Client, ResourceExt};
use tenantry_dev::{ControlPlane, Environment, EnvironmentOptions};

/// The control plane, PostgreSQL and the operator, with our definitions, the plans and the server `default`. All of
/// it ends with the process.
pub static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let tenantry = env!("CARGO_BIN_EXE_tenantry").into();
    Environment::start_blocking(EnvironmentOptions { tenantry, ..Default::default() }).unwrap()
});

/// The control plane of the run.
pub async fn plane() -> &'static ControlPlane {
    ENVIRONMENT.control_plane()
}

/// Installs a definition and waits until its kind is served.
pub async fn install(client: &Client, crd: &CustomResourceDefinition) -> kube::Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = crd.name_any();
    crds.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(crd)).await?;
    await_condition(crds, &name, conditions::is_crd_established()).await.unwrap();
    Ok(())
}

/// A new namespace, and its name.
pub async fn namespace(client: &Client, name: &str) -> String {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    name.to_owned()
}
