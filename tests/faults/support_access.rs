//! Support accesses from their request to their end, with users of their own: who may request and approve, what the login can
//! do while its tenant is suspended, and that it ends: at its time, when its object or its tenant is deleted, and when its
//! object vanished while no operator ran.

use http::{HeaderName, HeaderValue};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::{
    API_VERSION,
    support_access::{SupportAccess, SupportState},
    tenant_status::Access,
};
use tenantry_test_support::{World, login};

/// An operator, and what users may do with support accesses in its namespace.
struct Stage {
    world: World,
}

impl Stage {
    async fn new(name: &'static str) -> Self {
        let world = World::new(name).await;
        let bind = |user: &str, role: &str| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": format!("{user}-{role}"), "namespace": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]})
        };
        // Ada may approve what others requested, and henry may change objects and approve none.
        let patches = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "tests-patch-support"},
            "rules": [{"apiGroups": ["tenantry.dev"], "resources": ["supportaccesses"], "verbs": ["get", "patch"]}]});
        let bindings = [
            patches,
            bind("ada", "tenantry-support"),
            bind("ada", "tenantry-support-approver"),
            bind("grace", "tenantry-support-approver"),
            bind("henry", "tests-patch-support"),
        ];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": bindings});
        world.kubectl().apply(&list.to_string()).await.unwrap();
        policy_is_in_force(&world).await;
        Self { world }
    }

    /// The support accesses, as a user sees them.
    async fn accesses_of(&self, user: &'static str) -> Api<SupportAccess> {
        let kubeconfig = Kubeconfig::read_from(self.world.plane().kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        let header = HeaderName::from_static("impersonate-user");
        config.headers.push((header, HeaderValue::from_static(user)));
        Api::namespaced(Client::try_from(config).unwrap(), self.world.name)
    }

    /// Requests an access, as a user.
    async fn request(&self, user: &'static str, name: &str, changes: Value) -> kube::Result<SupportAccess> {
        let mut spec = json!({"tenant": self.world.name, "reason": "ticket 4711", "requestedBy": user});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let object = json!({"apiVersion": API_VERSION, "kind": "SupportAccess",
            "metadata": {"name": name}, "spec": spec});
        let object = serde_json::from_value(object).unwrap();
        self.accesses_of(user).await.create(&PostParams::default(), &object).await
    }

    async fn approve(&self, user: &'static str, name: &str, as_user: &str) -> kube::Result<SupportAccess> {
        let patch = Patch::Merge(json!({"spec": {"approvedBy": as_user}}));
        self.accesses_of(user).await.patch(name, &PatchParams::default(), &patch).await
    }

    fn accesses(&self) -> Api<SupportAccess> {
        Api::namespaced(self.world.fleet.client.clone(), self.world.name)
    }

    /// Waits until an access is so far.
    async fn state(&self, name: &str, state: SupportState) -> SupportAccess {
        let is_so = move |object: Option<&SupportAccess>| {
            object.and_then(|object| object.status.as_ref()).is_some_and(|status| status.state == Some(state))
        };
        let wait = self.world.fleet.until(format!("support access {name} is {state}"));
        wait.object(&self.accesses(), name, is_so).await.unwrap()
    }

    /// A session of an access.
    async fn session(&self, name: &str) -> sqlx::Result<sqlx::PgConnection> {
        login(&self.world.fleet.secret(&format!("{name}-support"), "uri").await).await
    }

    /// The activity rows of an access: action and actor.
    async fn rows(&self, object: &SupportAccess) -> Vec<(String, String)> {
        let mut registry = self.world.superuser("tenantry_system").await;
        let id = uuid::Uuid::try_parse(object.metadata.uid.as_deref().unwrap()).unwrap();
        sqlx::query_as("SELECT action, actor FROM activity WHERE correlation_id = $1 ORDER BY id")
            .bind(id)
            .fetch_all(&mut registry)
            .await
            .unwrap()
    }

    /// The login is gone, and its Secret.
    async fn nothing_is_left(&self, object: &SupportAccess) {
        let role = object.status.as_ref().unwrap().login.clone().unwrap();
        let secret = format!("{}-support", object.metadata.name.as_ref().unwrap());
        self.world
            .until("nothing is left of the support access", async || {
                !self.world.role_exists(&role).await
                    && self.world.fleet.secrets.get_opt(&secret).await.unwrap().is_none()
            })
            .await;
    }
}

/// Waits until the policy is older than what the operator wants it to be.
pub async fn policy_is_in_force(world: &World) {
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(world.fleet.client.clone());
    world
        .until("the policy of support accesses is in force", async || {
            let binding = bindings.get("tenantry-support-access").await.unwrap();
            let created = binding.metadata.creation_timestamp.unwrap().0;
            jiff::Timestamp::now().duration_since(created).as_secs() > 6
        })
        .await;
}

fn refusal(outcome: kube::Result<SupportAccess>) -> String {
    match outcome {
        Err(kube::Error::Api(answer)) => answer.message.clone(),
        other => panic!("it was not refused: {other:?}"),
    }
}

fn rows(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(action, actor)| ((*action).to_owned(), (*actor).to_owned())).collect()
}

#[tokio::test]
async fn approved_access_reads_a_suspended_tenant_until_its_time() {
    let stage = Stage::new("support").await;
    let world = &stage.world;
    world.apply("support", json!({})).await;
    world.fleet.ready("support").await;
    let suspended = json!({"state": "Suspended", "stateReason": "unpaid", "suspension": {"mode": "Blocked"}});
    world.apply("support", suspended).await;
    world.fleet.access("support", Access::Blocked).await;

    for (spec, text) in [
        (json!({"requestedBy": "grace"}), "must be your own name: ada"),
        (json!({"approval": "Required", "approvedBy": "grace"}), "must be left out of a new SupportAccess"),
        (json!({"approvedBy": "grace"}), "must be left out unless approval is Required"),
        (json!({"durationSeconds": 28801}), "28800"),
        (json!({"reason": " "}), "reason must not be empty"),
    ] {
        let message = refusal(stage.request("ada", "refused", spec).await);
        assert!(message.contains(text), "{text}: {message}");
    }
    stage.request("ada", "look", json!({"approval": "Required"})).await.unwrap();
    let waiting = stage.state("look", SupportState::WaitingForApproval).await;
    assert_eq!(stage.rows(&waiting).await, rows(&[("SupportAccessRequested", "ada")]));
    for (user, as_user, text) in [
        ("ada", "ada", "another user than requestedBy"),
        ("ada", "grace", "must be your own name: ada"),
        ("grace", "henry", "must be your own name: grace"),
        ("henry", "henry", "you need the verb approve"),
    ] {
        let message = refusal(stage.approve(user, "look", as_user).await);
        assert!(message.contains(text), "{user} as {as_user}: {message}");
    }
    assert!(world.fleet.secrets.get_opt("look-support").await.unwrap().is_none());
    stage.approve("grace", "look", "grace").await.unwrap();
    let granted = stage.state("look", SupportState::Granted).await;
    let status = granted.status.clone().unwrap();
    let (from, until) = (status.granted_at.unwrap().0, status.expires_at.unwrap().0);
    assert_eq!(
        (until.duration_since(from).as_secs(), status.secret_name.as_deref()),
        (3600, Some("look-support"))
    );
    assert!(refusal(stage.approve("grace", "look", "henry").await).contains("cannot be changed"));

    let mut session = stage.session("look").await.unwrap();
    session.execute("SELECT * FROM users; SELECT user_id, kind FROM user_credentials").await.unwrap();
    for sql in ["SELECT secret_hash FROM user_credentials", "DELETE FROM users"] {
        let sql = sqlx::AssertSqlSafe(format!("SET default_transaction_read_only = off; {sql}"));
        assert!(session.execute(sql).await.is_err());
    }
    assert!(world.fleet.login("support").await.is_err(), "the tenant stays suspended");
    world
        .until("the first use is recorded", async || {
            let found = stage.accesses().get("look").await.unwrap();
            found.status.unwrap().first_used_at.is_some()
        })
        .await;

    world.set_clock_ahead(1800);
    session.execute("SELECT 1").await.unwrap();
    world.set_clock_ahead(3700);
    let ended = stage.state("look", SupportState::Ended).await;
    assert!(session.execute("SELECT 1").await.is_err(), "its session is ended");
    assert!(ended.status.as_ref().unwrap().ended_at.is_some());
    stage.nothing_is_left(&ended).await;
    let expected = [
        ("SupportAccessRequested", "ada"),
        ("SupportAccessGranted", "grace"),
        ("SupportAccessUsed", "ada"),
        ("SupportAccessEnded", "tenantry"),
    ];
    assert_eq!(stage.rows(&ended).await, rows(&expected));
    world.event("look", "AccessEnded", "its time was over").await;
}

#[tokio::test]
async fn access_ends_with_its_object_its_tenant_and_after_the_operator_was_away() {
    let stage = Stage::new("support-ends").await;
    let world = &stage.world;
    world.apply("support-ends", json!({})).await;
    world.fleet.ready("support-ends").await;

    // Deleted: at once.
    stage.request("ada", "deleted", json!({})).await.unwrap();
    let deleted = stage.state("deleted", SupportState::Granted).await;
    let mut session = stage.session("deleted").await.unwrap();
    stage.accesses_of("ada").await.delete("deleted", &DeleteParams::default()).await.unwrap();
    stage.nothing_is_left(&deleted).await;
    assert!(session.execute("SELECT 1").await.is_err());
    world
        .until("the object is gone", async || stage.accesses().get_opt("deleted").await.unwrap().is_none())
        .await;
    let found = stage.rows(&deleted).await;
    assert_eq!(found.last().unwrap().0, "SupportAccessEnded");
    assert!(found.iter().any(|(action, _)| action == "SupportAccessUsed"), "{found:?}");

    // A lost Secret: another password, the same end.
    stage.request("ada", "away", json!({"durationSeconds": 600})).await.unwrap();
    let away = stage.state("away", SupportState::Granted).await;
    let old = world.fleet.secret("away-support", "uri").await;
    world.fleet.secrets.delete("away-support", &DeleteParams::default()).await.unwrap();
    world
        .until("the Secret is made again", async || {
            world.fleet.secrets.get_opt("away-support").await.unwrap().is_some()
                && stage.session("away").await.is_ok()
        })
        .await;
    assert!(login(&old).await.is_err());

    // Its object vanishes while no operator runs: PostgreSQL has its end, and the next operator takes it away.
    let role = away.status.as_ref().unwrap().login.clone().unwrap();
    world.installation.operator().stop().await.unwrap();
    let until =
        "SELECT rolvaliduntil BETWEEN now() AND now() + interval '10 min' FROM pg_roles WHERE rolname = $1";
    assert!(world.holds("postgres", until, &role).await);
    let unguarded = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    stage.accesses().patch("away", &PatchParams::default(), &unguarded).await.unwrap();
    stage.accesses().delete("away", &DeleteParams::default()).await.unwrap();
    world.installation.operator().start().await.unwrap();
    world.until("the login is taken away", async || !world.role_exists(&role).await).await;
    world
        .until("the end is recorded", async || {
            stage.rows(&away).await.last().is_some_and(|(action, _)| action == "SupportAccessEnded")
        })
        .await;

    // Its tenant is deleted; one that is requested then is refused.
    stage.request("ada", "leaving", json!({})).await.unwrap();
    stage.state("leaving", SupportState::Granted).await;
    let mut session = stage.session("leaving").await.unwrap();
    world.fleet.delete("support-ends").await;
    let leaving = stage.state("leaving", SupportState::Ended).await;
    assert!(session.execute("SELECT 1").await.is_err());
    stage.nothing_is_left(&leaving).await;
    stage.request("ada", "late", json!({})).await.unwrap();
    stage.state("late", SupportState::Pending).await;
}
