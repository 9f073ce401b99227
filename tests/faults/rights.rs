//! The operator's rights: what it used, by the API server's audit log, is what the chart grants.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    core::v1::Namespace,
    rbac::v1::{ClusterRole, PolicyRule, Role},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Request},
};
use serde_json::json;
use tenantry::api::{
    API_VERSION, LABEL_ACCOUNTS, LABEL_TENANT_ID, tenant_account::TenantAccount, tenant_module::TenantModule,
};
use tenantry_dev::InstalledWebhook;
use tenantry_test_support::{
    Options, World,
    audit::{AuditedRequest, requests},
    objects,
};

/// What is not used here: an Event about an object of the cluster that is the same as one of the last minutes, and what an
/// operator without --module-selector does with the objects of the modules that ship with it, as that of `make up` does.
/// (Applying an object that does not exist requires create, and is logged as patch.)
const RARE: [&str; 3] = [
    "patch events.k8s.io/events in default",
    "create tenantry.dev/tenantmodules",
    "patch tenantry.dev/tenantmodules",
];

/// One verb on one resource, of one name or of all.
struct Grant {
    namespace: Option<String>,
    group: String,
    resource: String,
    verb: String,
    name: Option<String>,
}

impl Grant {
    fn allows(&self, request: &AuditedRequest) -> bool {
        let within = |grant: &Option<String>, requested: &Option<String>| {
            grant.is_none() || grant.as_ref() == requested.as_ref()
        };
        within(&self.namespace, &request.namespace)
            && within(&self.name, &request.name)
            && (&self.group, &self.resource, &self.verb) == (&request.group, &request.resource, &request.verb)
    }

    fn text(&self) -> String {
        let name = self.name.iter().map(|name| format!(" {name}"));
        let namespace = self.namespace.iter().map(|namespace| format!(" in {namespace}"));
        let place: String = name.chain(namespace).collect();
        format!("{} {}/{}{place}", self.verb, self.group, self.resource)
    }
}

/// The grants of these rules.
fn grants(namespace: Option<&str>, rules: Option<Vec<PolicyRule>>) -> Vec<Grant> {
    let mut grants = Vec::new();
    for rule in rules.into_iter().flatten() {
        let names: Vec<Option<String>> = match rule.resource_names {
            Some(names) => names.into_iter().map(Some).collect(),
            None => vec![None],
        };
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    grants.extend(names.iter().map(|name| Grant {
                        namespace: namespace.map(str::to_owned),
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                        name: name.clone(),
                    }));
                }
            }
        }
    }
    grants
}

/// All that the operator of a world may do.
async fn granted(world: &World) -> Vec<Grant> {
    let client = world.fleet.client.clone();
    let release = format!("tenantry:{}-system", world.name);
    let role = Api::<ClusterRole>::all(client.clone()).get(&release).await.unwrap();
    assert!(role.aggregation_rule.is_none());
    let mut all = grants(None, role.rules);
    let own = format!("{}-system", world.name);
    for (namespace, name) in [
        (own.as_str(), "tenantry".to_owned()),
        (world.name, format!("{release}:tenants")),
        ("default", format!("{release}:events")),
    ] {
        let role = Api::<Role>::namespaced(client.clone(), namespace).get(&name).await.unwrap();
        all.extend(grants(Some(namespace), role.rules));
    }
    all
}

/// Applies a Tenant that cannot be decoded: the Event about it is repeated when it changes.
async fn apply_undecodable(world: &World, display_name: &str) {
    let nested = (0..200).fold(json!(1), |inner, _| json!({"a": inner}));
    let spec = json!({"displayName": display_name, "settings": {"deep": nested}});
    let request = Request::new(world.fleet.tenants.resource_url());
    let apply = Patch::Apply(objects::tenant("rights-deep", spec));
    let request = request.patch("rights-deep", &PatchParams::apply("tests").force(), &apply).unwrap();
    world.fleet.client.request_text(request).await.unwrap();
}

/// Applies a TenantModule, whose source does not exist, so that its status is written.
async fn apply_module(world: &World) {
    let modules = Api::<TenantModule>::all(world.fleet.client.clone());
    let module = json!({"apiVersion": API_VERSION, "kind": "TenantModule",
        "metadata": {"name": "rights", "labels": {"tenantry.dev/test": world.name}},
        "spec": {"source": {"configMaps": [{"name": "absent"}]}}});
    modules.patch("rights", &PatchParams::apply("tests").force(), &Patch::Apply(module)).await.unwrap();
}

/// Applies a TenantModule with a Job, for which there is no kubelet: it runs until another version takes its place.
async fn apply_tool(world: &World, version: &str) {
    let modules = Api::<TenantModule>::all(world.fleet.client.clone());
    let module = json!({"apiVersion": API_VERSION, "kind": "TenantModule",
        "metadata": {"name": "rights-tool", "labels": {"tenantry.dev/test": world.name}},
        "spec": {"source": {"job": {"image": "registry.example/shop:1"}}, "version": version}});
    modules.patch("rights-tool", &PatchParams::apply("tests").force(), &Patch::Apply(module)).await.unwrap();
}

/// Requests a support access, for which the operator looks for the policy.
async fn request_support_access(world: &World) {
    let kubectl = world.kubectl();
    let user = ["auth", "whoami", "--output=jsonpath={.status.userInfo.username}"];
    let user = kubectl.run(&user).await.unwrap();
    let access = json!({"apiVersion": API_VERSION, "kind": "SupportAccess",
        "metadata": {"name": "rights", "namespace": world.name},
        "spec": {"tenant": "rights-a", "reason": "rights", "requestedBy": user.trim()}});
    kubectl.apply(&access.to_string()).await.unwrap();
}

/// Allows accounts in the world's own namespace, and removes the label of the one that the operator creates there.
async fn use_account(world: &World) {
    let kubectl = world.kubectl();
    let allow = format!("{LABEL_ACCOUNTS}=true");
    kubectl.run(&["label", "namespace", world.name, &allow]).await.unwrap();
    let accounts = Api::<TenantAccount>::namespaced(world.fleet.client.clone(), world.name);
    let labels = async || accounts.get_opt("rights-a").await.unwrap().map(|found| found.metadata.labels);
    let is_labelled =
        async || labels().await.flatten().is_some_and(|found| found.contains_key(LABEL_TENANT_ID));
    world.until("the account is created", is_labelled).await;
    let remove = json!({"metadata": {"labels": {LABEL_TENANT_ID: null}}});
    accounts.patch("rights-a", &PatchParams::default(), &Patch::Merge(remove)).await.unwrap();
    world.until("the label is back", is_labelled).await;
}

#[tokio::test]
async fn rights_used_are_rights_granted() {
    let options = Options {
        breaker: Some(1),
        own_plane: true,
        webhook: InstalledWebhook::Stamps,
        // Its certificate is renewed meanwhile.
        arguments: vec!["--test-webhook-lifetime=45".to_owned()],
        ..Options::default()
    };
    let world = World::with("rights", options).await;
    let granted = granted(&world).await;
    for grant in &granted {
        assert!(![&grant.group, &grant.resource, &grant.verb].contains(&&"*".to_owned()), "{}", grant.text());
        let secrets_of_the_cluster = grant.namespace.is_none() && grant.resource == "secrets";
        assert!(!secrets_of_the_cluster, "{}", grant.text());
    }

    let account = json!({"offboarding": {"gracePeriodSeconds": 0}, "accountNamespace": world.name});
    world.apply("rights-a", account.clone()).await;
    apply_undecodable(&world, "one").await;
    world.fleet.ready("rights-a").await;
    use_account(&world).await;
    apply_module(&world).await;
    request_support_access(&world).await;
    apply_tool(&world, "1").await;
    world.fleet.apply_hold("rights-hold", "rights-a", json!({})).await;
    world.fleet.hold_reason("rights-hold", "Verified").await;
    world.fleet.delete_hold("rights-hold").await;
    apply_undecodable(&world, "two").await;
    // Another plan has other limits, which the Secret shows.
    let mut free = account;
    free["plan"] = json!("free");
    world.apply("rights-a", free).await;
    world.fleet.ready("rights-a").await;
    world.fleet.delete("rights-a").await;
    // Too many: the breaker opens, which is an Event about the CRD.
    for name in ["rights-b", "rights-c"] {
        world.apply(name, json!({})).await;
        world.fleet.ready(name).await;
        world.fleet.delete(name).await;
    }

    let used = || requests(world.plane(), "rights-system");
    let creates_job = |request: &AuditedRequest| (&*request.resource, &*request.verb) == ("jobs", "create");
    world.until("a Job is created", async || used().iter().any(creates_job)).await;
    apply_tool(&world, "2").await;
    let wait = world.fleet.until("everything that is granted is used");
    wait.observe(async || {
        let used = used();
        let unused = granted.iter().filter(|grant| !used.iter().any(|request| grant.allows(request)));
        let unused: Vec<String> =
            unused.map(Grant::text).filter(|grant| !RARE.contains(&grant.as_str())).collect();
        if unused.is_empty() { Ok(()) } else { Err(unused) }
    })
    .await;
    // Refused, or granted by a role that is not the chart's.
    let used = used();
    let others: BTreeSet<&AuditedRequest> =
        used.iter().filter(|request| !granted.iter().any(|grant| grant.allows(request))).collect();
    assert!(others.is_empty() && used.iter().all(|request| request.allowed), "{others:#?}");
}

/// The Role is deleted with its namespace, before the finalizers of the Tenants there are released.
#[tokio::test]
async fn namespace_is_deleted_with_its_tenants_and_its_role() {
    let world = World::new("rights-ns").await;
    world.apply("rights-ns", json!({"offboarding": {"gracePeriodSeconds": 0}})).await;
    let tenant = world.fleet.ready("rights-ns").await;
    let namespaces = Api::<Namespace>::all(world.fleet.client.clone());
    namespaces.delete(world.name, &DeleteParams::default()).await.unwrap();
    world.fleet.deleted("rights-ns", &tenant).await;
    world.until_status("rights-ns", "deprovisioned").await;
    assert!(!world.database_exists("tenant_rights_ns").await);
    world
        .until("the namespace is deleted", async || namespaces.get_opt(world.name).await.unwrap().is_none())
        .await;
    // It does not make the operator unready for the others.
    world.installation.operator().stop().await.unwrap();
    world.installation.operator().start().await.unwrap();
}
