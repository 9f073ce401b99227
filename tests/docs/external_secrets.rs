//! The objects of `docs/external-secrets.md`: an API server with the real CRDs of the External Secrets Operator takes them.

use serde_json::Value;
use tenantry_dev::{ControlPlane, ControlPlaneOptions, tools};

use crate::shell::{page, yaml_blocks};

#[test]
fn operator_gets_the_secrets_that_its_installation_names() {
    let document = page("external-secrets.md");
    let blocks = yaml_blocks(&document);
    let all: Vec<Value> =
        blocks.iter().flat_map(|it| serde_saphyr::from_multiple::<Value>(it).unwrap()).collect();
    let written = |name: &str| {
        let found = all.iter().find(|object| object["spec"]["target"]["name"] == name);
        &found.unwrap_or_else(|| panic!("no ExternalSecret writes {name}"))["spec"]
    };
    let install = page("install.md");
    for name in ["db-admin", "tenantry-registry", "db-ca"] {
        assert!(install.contains(&format!("create secret generic {name} ")), "docs/install.md: {name}");
        assert_eq!(written(name)["target"]["deletionPolicy"], "Retain", "{name}");
    }
    let content = |name: &str| &written(name)["target"]["template"]["data"];
    let login: Vec<&String> = content("db-admin").as_object().unwrap().keys().collect();
    assert_eq!(login, ["password", "username"]);
    assert!(
        content("tenantry-registry")["url"].as_str().unwrap().contains("sslrootcert=/etc/tenantry/registry/")
    );
    assert_eq!(written("db-ca")["data"][0]["secretKey"], "ca.crt");
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn external_secrets_operator_knows_every_field() {
    let crds = tools::find("external-secrets").await.unwrap().display().to_string();
    let plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let kubectl = plane.kubectl();
    kubectl.run(&["apply", "--server-side", "-f", &crds]).await.unwrap();
    kubectl.run(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await.unwrap();
    for namespace in ["customers", "shop", "tenantry-system"] {
        kubectl.run(&["create", "namespace", namespace]).await.unwrap();
    }
    let document = page("external-secrets.md");
    let blocks = yaml_blocks(&document);
    let [_, push, _, operator] = blocks[..] else { panic!("{blocks:?}") };
    let strictly = ["apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", "-"];
    for block in &blocks {
        kubectl.run_with(&strictly, block).await.unwrap();
    }
    for (block, right, wrong) in [
        (push, "remoteKey", "remotekey"),
        (push, "deletionPolicy: Delete", "deletionPolicy: Drop"),
        (operator, "creationPolicy: Owner", "creationPolicy: Mine"),
    ] {
        let error = kubectl.run_with(&strictly, &block.replace(right, wrong)).await.unwrap_err().to_string();
        let word = wrong.split(' ').next_back().unwrap();
        assert!(error.contains(word), "{error}");
    }
}
