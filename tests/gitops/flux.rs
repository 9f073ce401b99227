//! A real Flux reconciles `examples/gitops`: it waits for databases, reports a failed one by its name, and what it removes
//! comes back with its data.

mod parts;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::tenant_status::Access;
use tenantry_test_support::{
    Fleet, Wait,
    shared_operator::{self, ENVIRONMENT, database_exists, registry_status},
};

use self::parts::Flux;
use crate::text;

/// The tenants of the examples, under the operator and the Flux of a test.
struct Examples {
    flux: Flux,
    fleet: Fleet,
}

impl Examples {
    async fn new() -> Self {
        let client = shared_operator::client().await;
        let installation = ENVIRONMENT.installation();
        let fleet = Fleet::of(client, "customers", installation.operator().log());
        let flux = Flux::start(ENVIRONMENT.control_plane()).await;
        let port = format!("port: {}", installation.postgres().port());
        let server = text("examples/gitops/repository/platform/database-server.yaml");
        let server = server.replace("db.example", "127.0.0.1").replace("port: 5432", &port);
        let server =
            server.replace("{mode: VerifyFull, caSecretRef: {name: db-ca, key: ca.crt}}", "{mode: Disable}");
        flux.put("platform/database-server.yaml", &server).await;
        for name in ["platform/module-notes.yaml", "platform/plan-team.yaml"] {
            flux.put(name, &text(&format!("examples/gitops/repository/{name}"))).await;
        }
        Self { flux, fleet }
    }

    async fn put_customer(&self, name: &str) {
        let path = format!("customers/{name}.yaml");
        self.flux.put(&path, &text(&format!("examples/gitops/repository/{path}"))).await;
    }

    /// What Flux and the operator wrote of a Tenant: its generation, and when Flux applied it last.
    async fn written(&self, name: &str) -> (Option<i64>, Option<Value>) {
        let tenant = self.fleet.tenants.get(name).await.unwrap();
        let managers = tenant.metadata.managed_fields.unwrap();
        let flux = managers.iter().find(|entry| entry.manager.as_deref() == Some("kustomize-controller"));
        (tenant.metadata.generation, flux.map(|entry| json!(entry.time)))
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn flux_reconciles_prunes_and_brings_back() {
    let examples = Examples::new().await;
    let (flux, fleet) = (&examples.flux, &examples.fleet);
    for name in ["acme", "globex"] {
        examples.put_customer(name).await;
    }
    flux.apply(&text("examples/gitops/flux/kustomizations.yaml")).await;
    flux.ready("tenantry-platform").await;
    flux.ready("customers").await;
    // It waited: nothing else is needed before the application starts.
    for name in ["acme", "globex"] {
        let mut session = fleet.login(name).await.unwrap();
        session.execute("INSERT INTO notes (body) VALUES ('kept')").await.unwrap();
    }

    // In steady state, nothing differs from the repository: neither field nor generation changes.
    let before = (examples.written("acme").await, examples.written("globex").await);
    flux.reconcile("customers").await;
    assert_eq!((examples.written("acme").await, examples.written("globex").await), before);
    let applied = flux.last_applied("customers");
    assert!(applied.contains("Tenant/customers/acme") && !applied.contains("configured"), "{applied}");

    // A file that is removed: access ends, and the data stays.
    let uri = fleet.secret("globex-db", "uri").await;
    flux.remove("customers/globex.yaml").await;
    flux.fetch().await;
    let gone = async || fleet.tenants.get_opt("globex").await.unwrap().is_none();
    fleet.until("globex is pruned").is_true(gone).await;
    assert_eq!(registry_status("globex").await.as_deref(), Some("deprovisioning"));
    assert!(database_exists("tenant_globex").await);
    assert!(tenantry_test_support::login(&uri).await.is_err());
    flux.ready("customers").await;

    // The same file again: the customer, with its data.
    examples.put_customer("globex").await;
    flux.fetch().await;
    fleet.access("globex", Access::ReadWrite).await;
    let mut session = fleet.login("globex").await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM notes WHERE body = 'kept'")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(kept, 1);
    flux.ready("customers").await;

    // One that a person has to correct fails the Kustomization at once, by its name.
    let broken = text("examples/gitops/repository/customers/globex.yaml").replace("globex", "initech");
    let broken = broken.replace("plan: team", "plan: team\n  modules: [{name: no-such-module}]");
    flux.put("customers/initech.yaml", &broken).await;
    flux.fetch().await;
    let message = flux.failed("customers").await;
    assert!(message.contains("Tenant/customers/initech status: 'Failed'"), "{message}");
    flux.remove("customers/initech.yaml").await;
    flux.fetch().await;
    flux.ready("customers").await;

    // A protected one is not pruned; nor is any when the Kustomization is deleted.
    flux.remove("customers/acme.yaml").await;
    flux.fetch().await;
    flux.ready("customers").await;
    fleet.login("acme").await.unwrap();
    flux.delete("customers").await;
    for name in ["acme", "globex"] {
        assert!(fleet.tenants.get(name).await.unwrap().metadata.deletion_timestamp.is_none());
    }
    for name in ["acme", "globex"] {
        // Other tests of this process start from no tenant.
        let end = json!({"spec": {"offboarding": {"gracePeriodSeconds": 0}}});
        fleet.tenants.patch(name, &PatchParams::default(), &Patch::Merge(end)).await.unwrap();
        fleet.delete(name).await;
    }
    let closed = async || registry_status("acme").await.as_deref() == Some("deprovisioned");
    Wait::until("acme is gone").is_true(closed).await;
}
