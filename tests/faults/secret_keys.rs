//! What another release, or another certificate authority of a server, adds to connection Secrets: tenants that have a Secret
//! get it, with the password that they have; what a release adds, without an Event.

use futures::future::join_all;
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tenantry::api::database_server::DatabaseServer;
use tenantry_dev::{PostgresOptions, certificates::Authority};
use tenantry_test_support::{Options, World, names, objects};

/// Keys that earlier releases did not write.
const NEW: [&str; 3] = ["uri-mounted", "jdbc-uri-mounted", "module-schema.core"];

struct Spread {
    world: World,
    tenants: Vec<String>,
}

impl Spread {
    /// The value of a key of each Secret that has it, by tenant.
    async fn values(&self, key: &str) -> Vec<Option<String>> {
        join_all(self.tenants.iter().map(async |name| {
            let data = self.world.fleet.secrets.get(&format!("{name}-db")).await.unwrap().data.unwrap();
            data.get(key).map(|value| String::from_utf8(value.0.clone()).unwrap())
        }))
        .await
    }

    /// Waits until a key of all these tenants' Secrets is as wanted.
    async fn have(&self, tenants: &[String], key: &str, is_wanted: impl Fn(&str, &str) -> bool) {
        let is_wanted = &is_wanted;
        self.world
            .until(&format!("{key} is in the Secrets of {} tenants", tenants.len()), async || {
                let found = self.values(key).await;
                let mut found = self.tenants.iter().zip(&found).filter(|(name, _)| tenants.contains(name));
                found.all(|(name, value)| value.as_ref().is_some_and(|value| is_wanted(name, value)))
            })
            .await;
    }

    /// Takes the keys away that an earlier release did not write, as if it had written the Secrets.
    async fn forget_new_keys(&self) {
        let gone: serde_json::Map<_, _> = NEW.iter().map(|key| ((*key).to_owned(), json!(null))).collect();
        let patch = Patch::Merge(json!({ "data": gone }));
        for name in &self.tenants {
            let secrets = &self.world.fleet.secrets;
            secrets.patch(&format!("{name}-db"), &PatchParams::default(), &patch).await.unwrap();
        }
    }

    /// Writes the Secret with the server's authority.
    async fn put_authority(&self, certificates: &str) {
        let mut secret = objects::secret("spread-ca", json!({"ca.crt": certificates}));
        secret["metadata"]["namespace"] = json!("spread-system");
        self.world.kubectl().apply(&secret.to_string()).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn keys_of_another_release_and_a_changed_authority_reach_every_secret() {
    let authority = Authority::new("spread").unwrap();
    let tls = Some(authority.server(&["127.0.0.1"]).unwrap());
    let options = Options {
        postgres: PostgresOptions { tls, ..PostgresOptions::default() },
        arguments: vec!["--module-schemas=core=spread_core".to_owned()],
        ..Options::default()
    };
    let spread = Spread { world: World::with("spread", options).await, tenants: names("spread", 8) };
    let (world, tenants) = (&spread.world, &spread.tenants);
    let operator = world.installation.operator();
    join_all(tenants.iter().map(|name| world.apply(name, json!({})))).await;
    join_all(tenants.iter().map(|name| world.fleet.ready(name))).await;
    let passwords = spread.values("password").await;

    // An upgrade. A tenant whose work is paused waits.
    let (paused, others) = tenants.split_first().unwrap();
    world.apply(paused, json!({"paused": true})).await;
    world.fleet.ready(paused).await;
    operator.stop().await.unwrap();
    spread.forget_new_keys().await;
    operator.start().await.unwrap();
    spread.have(others, "module-schema.core", |_, value| value == "spread_core").await;
    spread.have(others, "uri-mounted", |_, value| value.ends_with("?sslmode=disable")).await;
    spread.have(others, "jdbc-uri-mounted", |_, value| value.starts_with("jdbc:postgresql://")).await;
    assert_eq!(spread.values("uri-mounted").await[0], None);
    world.apply(paused, json!({"paused": null})).await;
    spread.have(tenants, "module-schema.core", |_, value| value == "spread_core").await;

    let events = Api::<Event>::namespaced(world.fleet.client.clone(), "spread");
    let events = events.list(&ListParams::default()).await.unwrap();
    let reported: Vec<_> =
        events.iter().filter(|event| event.reason.as_deref() == Some("SecretUpdated")).collect();
    assert!(reported.is_empty(), "{reported:#?}");

    // An authority that is declared while no operator runs, and one that is added while one does.
    operator.stop().await.unwrap();
    spread.put_authority(authority.certificate()).await;
    let servers: Api<DatabaseServer> = Api::all(world.fleet.client.clone());
    let tls = json!({"mode": "VerifyFull", "caSecretRef": {"name": "spread-ca", "key": "ca.crt"}});
    let patch = Patch::Merge(json!({"spec": {"tls": tls}}));
    servers.patch("spread", &PatchParams::default(), &patch).await.unwrap();
    operator.start().await.unwrap();
    spread.have(tenants, "certificates", |_, value| value == authority.certificate()).await;
    let mounted = |name: &str, value: &str| {
        value.ends_with(&format!("?sslmode=verify-full&sslrootcert=/bindings/{name}-db/certificates"))
    };
    spread.have(tenants, "uri-mounted", mounted).await;
    let both = format!("{}{}", Authority::new("next").unwrap().certificate(), authority.certificate());
    spread.put_authority(&both).await;
    spread.have(tenants, "certificates", |_, value| value == both).await;
    world
        .until("no tenant is pending", async || {
            servers.get("spread").await.unwrap().status.unwrap().pending == Some(0)
        })
        .await;

    assert_eq!(spread.values("password").await, passwords);
}
