//! The manifests of `examples/gitops` are accepted, and applying one again changes nothing. The tools themselves:
//! `tests/gitops`.

use std::path::Path;

use kube::api::{Patch, PatchParams};
use serde_json::json;
use tenantry_test_support::{Fleet, objects, shared_operator::ENVIRONMENT};

#[tokio::test]
async fn examples_for_gitops_are_accepted() {
    let fleet = Fleet::new("gitops-examples").await;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitops/repository");
    let kubectl = ENVIRONMENT.control_plane().kubectl();
    let directory = repository.display().to_string();
    let apply = ["apply", "--server-side", "--dry-run=server", "--recursive", "-f", &directory];
    // The DatabaseServer of this run has the name of the example's, and another manager.
    let accepted = kubectl.run(&[&apply[..], &["--force-conflicts"]].concat()).await.unwrap();
    for kind in ["databaseserver", "tenantplan", "tenantmodule", "tenant"] {
        assert!(accepted.contains(&format!("{kind}.tenantry.dev/")), "{accepted}");
    }

    // Nothing that the operator writes differs from what a tool applied: a tool needs to ignore no field.
    let tenant = objects::tenant("gitops-again", json!({"admins": [{"email": "a@gitops.example"}]}));
    let params = PatchParams::apply("tool").force();
    let again = async || {
        let patched = fleet.tenants.patch("gitops-again", &params, &Patch::Apply(&tenant)).await;
        patched.unwrap()
    };
    again().await;
    let ready = fleet.ready("gitops-again").await;
    let after = again().await;
    assert_eq!(after.metadata.generation, ready.metadata.generation);
    let applied = |found: &tenantry::api::tenant::Tenant| {
        let entries = found.metadata.managed_fields.clone().unwrap();
        entries.into_iter().find(|entry| entry.manager.as_deref() == Some("tool")).unwrap().time
    };
    assert_eq!(applied(&after), applied(&ready), "the second apply changed a field");
}
