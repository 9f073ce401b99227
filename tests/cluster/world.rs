//! What the tests of one run share.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{conditions, wait::await_condition};
use kube::{Client, ResourceExt};
use tenantry::api;
use tenantry_dev::{ControlPlane, ControlPlaneOptions};
use tokio::sync::OnceCell;

/// The control plane, with our definitions installed. It ends with the process.
pub async fn plane() -> &'static ControlPlane {
    static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
    PLANE
        .get_or_init(|| async {
            let plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
            let client = plane.client().await.unwrap();
            for crd in api::crds() {
                install(&client, &crd).await.unwrap();
            }
            plane
        })
        .await
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
