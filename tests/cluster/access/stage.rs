//! The users, each with one role, and the objects on which they act.

use std::fmt;

use futures::{StreamExt, stream};
use http::{Method, Request};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};
use tenantry::api::{
    API_VERSION, FINALIZER,
    tenant_account::{TenantAccount, TenantAccountSpec},
};
use tenantry_test_support::{Fleet, objects, shared_operator::ENVIRONMENT};

use super::acts::Act;

/// A column of the table.
pub struct Role {
    /// The ClusterRole.
    pub name: &'static str,
    /// Bound for all namespaces, and not for that of the stage only.
    everywhere: bool,
}

/// In the order of the columns.
pub const ROLES: [Role; 8] = [
    Role { name: "tenantry-platform-operator", everywhere: true },
    Role { name: "tenantry-support", everywhere: true },
    Role { name: "tenantry-support-approver", everywhere: true },
    Role { name: "tenantry-billing", everywhere: true },
    Role { name: "tenantry-tenant-admin", everywhere: false },
    Role { name: "view", everywhere: false },
    Role { name: "edit", everywhere: false },
    Role { name: "admin", everywhere: false },
];

/// How many requests run at once.
const AT_ONCE: usize = 8;

/// What became of an act.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Forbidden,
    /// Neither: the request itself is wrong.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("yes"),
            Self::Forbidden => f.write_str("no"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// A namespace with objects, and users.
pub struct Stage {
    pub fleet: Fleet,
    namespace: &'static str,
}

impl Stage {
    pub async fn set(namespace: &'static str) -> Self {
        let fleet = Fleet::new(namespace).await;
        let bindings: Vec<Value> = ROLES.iter().map(|role| binding(namespace, role)).collect();
        let kubectl = ENVIRONMENT.control_plane().kubectl();
        kubectl.apply(&objects::list(&bindings).to_string()).await.unwrap();

        // The operator leaves them as they are.
        let paused = json!({"paused": true, "deletionPolicy": "Retain",
            "offboarding": {"gracePeriodSeconds": 2_592_000}});
        let adopting = json!({"paused": true, "adopt": {"database": "shop"}});
        let mut target = objects::tenant("target", paused);
        target["metadata"]["finalizers"] = json!([FINALIZER]);
        let adopting = objects::tenant("adopting", adopting);
        for tenant in [target, adopting] {
            let tenant = serde_json::from_value(tenant).unwrap();
            fleet.tenants.create(&PostParams::default(), &tenant).await.unwrap();
        }
        for (name, trigger) in [("billing", "PaymentFailure"), ("security", "SecurityIncident")] {
            let mut hold = objects::hold(name, "target", json!({"trigger": trigger}));
            hold["metadata"]["finalizers"] = json!([FINALIZER]);
            let hold = serde_json::from_value(hold).unwrap();
            fleet.holds.create(&PostParams::default(), &hold).await.unwrap();
        }
        let accounts = Api::namespaced(fleet.client.clone(), namespace);
        let account = TenantAccount::new("account", TenantAccountSpec::default());
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let stage = Self { fleet, namespace };
        stage.request_access().await;
        stage
    }

    /// A support access of another user, which waits for an approval.
    async fn request_access(&self) {
        let requester = self.fleet.by(ENVIRONMENT.control_plane(), "requester").await;
        let access = json!({"apiVersion": API_VERSION, "kind": "SupportAccess",
            "metadata": {"name": "waiting", "finalizers": [FINALIZER]},
            "spec": {"tenant": "target", "reason": "ticket 4711", "requestedBy": "requester",
                "approval": "Required"}});
        let path = format!("/apis/{API_VERSION}/namespaces/{}/supportaccesses", self.namespace);
        let request = Request::post(path).header("Content-Type", "application/json");
        let request = request.body(access.to_string().into_bytes()).unwrap();
        requester.client.request::<Value>(request).await.unwrap();
    }

    /// What becomes of each act, for each role.
    pub async fn try_all(&self, acts: &[Act], dry: bool) -> Vec<Vec<Outcome>> {
        let mut clients = Vec::new();
        for role in &ROLES {
            let mut config = ENVIRONMENT.control_plane().config().await.unwrap();
            config.auth_info.impersonate = Some(user(self.namespace, role));
            clients.push(Client::try_from(config).unwrap());
        }
        let cells = acts.iter().flat_map(|act| ROLES.iter().zip(&clients).map(move |with| (act, with)));
        let tried = stream::iter(cells)
            .map(|(act, (role, client))| self.attempt(client, role, act, dry))
            .buffered(AT_ONCE);
        let outcomes: Vec<Outcome> = tried.collect().await;
        let mut outcomes = outcomes.into_iter();
        acts.iter().map(|_| outcomes.by_ref().take(ROLES.len()).collect()).collect()
    }

    async fn attempt(&self, client: &Client, role: &Role, act: &Act, dry: bool) -> Outcome {
        let own = |text: &str| {
            text.replace("NAMESPACE", self.namespace)
                .replace("USER", &user(self.namespace, role))
                .replace("ROLE", role.name.trim_start_matches("tenantry-"))
        };
        let dry = if dry && act.method != Method::GET { "?dryRun=All" } else { "" };
        let format = if act.method == Method::PATCH { "merge-patch+json" } else { "json" };
        let body = if act.body.is_null() { String::new() } else { own(&act.body.to_string()) };
        let request = Request::builder()
            .method(act.method.clone())
            .uri(own(&act.path) + dry)
            .header("Content-Type", format!("application/{format}"))
            .body(body.into_bytes())
            .unwrap();
        match client.request::<Value>(request).await {
            Ok(_) => Outcome::Done,
            Err(kube::Error::Api(answer)) if answer.code == 403 => Outcome::Forbidden,
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

/// The user who has a role, in each test another.
fn user(namespace: &str, role: &Role) -> String {
    format!("{namespace}-{}", role.name)
}

fn binding(namespace: &str, role: &Role) -> Value {
    let name = user(namespace, role);
    let group = "rbac.authorization.k8s.io";
    let mut binding = json!({"apiVersion": format!("{group}/v1"),
        "kind": if role.everywhere { "ClusterRoleBinding" } else { "RoleBinding" },
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role.name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": name}]});
    if !role.everywhere {
        binding["metadata"]["namespace"] = json!(namespace);
    }
    binding
}
