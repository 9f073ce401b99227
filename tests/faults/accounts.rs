//! Accounts that cost nothing: a tenant that rests with one, and work that does not wait for them.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tenantry::api::{
    LABEL_ACCOUNTS,
    conditions::{ACCOUNT_SHOWN, READY},
    tenant_account::TenantAccount,
};
use tenantry_test_support::{Options, World};

/// Allows accounts in the world's own namespace.
async fn allow_accounts(world: &World) {
    let allow = format!("{LABEL_ACCOUNTS}=true");
    world.kubectl().run(&["label", "namespace", world.name, &allow]).await.unwrap();
}

/// How many reconciles found their Tenant paused.
async fn paused(world: &World) -> u64 {
    let metrics = world.installation.operator().metrics().await.unwrap();
    let counts = metrics.lines().filter_map(|line| {
        line.strip_prefix(r#"tenantry_reconcile_total{result="paused"} "#)?.parse::<u64>().ok()
    });
    counts.sum()
}

#[tokio::test]
async fn paused_tombstone_with_an_edited_account_rests() {
    let world = World::new("acc-rest").await;
    allow_accounts(&world).await;
    let mut spec = json!({"accountNamespace": world.name, "offboarding": {"gracePeriodSeconds": 3600}});
    world.apply("acc-rest", spec.clone()).await;
    world.fleet.ready("acc-rest").await;
    let accounts = Api::<TenantAccount>::namespaced(world.fleet.client.clone(), world.name);
    world.until("the account is there", async || accounts.get_opt("acc-rest").await.unwrap().is_some()).await;
    let edit = Patch::Merge(json!({"spec": {"displayName": "Acme Inc"}}));
    accounts.patch("acc-rest", &PatchParams::default(), &edit).await.unwrap();
    let query = "SELECT EXISTS (SELECT FROM tenants WHERE slug = $1 AND name = 'Acme Inc')";
    let counts = async || world.holds("tenantry_system", query, "acc-rest").await;
    world.until("the new name counts", counts).await;
    world.fleet.delete("acc-rest").await;
    spec["paused"] = json!(true);
    world.apply("acc-rest", spec).await;
    world.fleet.reason("acc-rest", READY, "Paused").await;
    // While others are made.
    for name in ["acc-rest-a", "acc-rest-b", "acc-rest-c"] {
        world.apply(name, json!({})).await;
        world.fleet.ready(name).await;
    }
    let reconciles = paused(&world).await;
    assert!((1..=3).contains(&reconciles), "{reconciles}");
}

#[tokio::test]
async fn tenants_do_not_wait_for_the_accounts() {
    let world = World::with("acc-none", Options { own_plane: true, ..Options::default() }).await;
    allow_accounts(&world).await;
    let operator = world.installation.operator();
    operator.stop().await.unwrap();
    world.kubectl().run(&["delete", "crd", "tenantaccounts.tenantry.dev"]).await.unwrap();
    operator.start().await.unwrap();
    world.apply("acc-none", json!({})).await;
    world.fleet.ready("acc-none").await;
    world.apply("acc-none-own", json!({"accountNamespace": world.name})).await;
    world.fleet.ready("acc-none-own").await;
    world.fleet.reason("acc-none-own", ACCOUNT_SHOWN, "AccountPending").await;
    world.install_crds().await;
    world.fleet.reason("acc-none-own", ACCOUNT_SHOWN, "AccountCurrent").await;
}
