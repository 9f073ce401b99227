//! Customers as a Helm release: Helm 4 waits for their databases, and uninstalling keeps them.

use tenantry_dev::helm::Helm;
use tenantry_test_support::{Fleet, shared_operator::ENVIRONMENT};

use crate::file;

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn helm_waits_for_customers_and_keeps_them() {
    let fleet = Fleet::new("helm-customers").await;
    let plane = ENVIRONMENT.control_plane();
    let helm = Helm::new(Some(&plane.kubeconfig())).await.unwrap();
    let chart = file("examples/gitops/helm/customers").display().to_string();
    // Other names than those of the chart: other tests of this operator have them.
    let customer = |name: &str| format!(r#"customers.{name}={{"displayName":"{name}","plan":"starter"}}"#);
    let (first, second) = (customer("helm-a"), customer("helm-b"));
    let values = ["customers.acme=null", "customers.globex=null", &first, &second];
    let values: Vec<&str> = values.into_iter().flat_map(|value| ["--set-json", value]).collect();
    let common = ["--namespace", "helm-customers", "--wait", "--timeout", "120s"];
    let run = async |verb: &str, more: &[&str]| {
        helm.run(&[&[verb, "customers", &chart], &common[..], &values, more].concat()).await
    };
    run("install", &[]).await.unwrap();
    for name in ["helm-a", "helm-b"] {
        fleet.login(name).await.unwrap();
    }

    // What a person has to correct fails at once, by its name, and is put back.
    let wrong =
        ["--rollback-on-failure", "--set-json", r#"customers.helm-a.modules=[{"name":"no-such-module"}]"#];
    let error = run("upgrade", &wrong).await.unwrap_err().to_string();
    assert!(error.contains("helm-a") && !error.contains("deadline"), "{error}");
    fleet.ready("helm-a").await;

    // An entry that is removed leaves its customer alone; so does the end of the release.
    run("upgrade", &["--set-json", "customers.helm-b=null"]).await.unwrap();
    fleet.login("helm-b").await.unwrap();
    helm.run(&["uninstall", "customers", "--namespace", "helm-customers", "--wait"]).await.unwrap();
    for name in ["helm-a", "helm-b"] {
        fleet.login(name).await.unwrap();
        let tenant = fleet.tenants.get(name).await.unwrap();
        assert!(tenant.metadata.deletion_timestamp.is_none());
    }
}
