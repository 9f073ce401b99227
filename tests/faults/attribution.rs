//! Several users change a tenant, before the operator sees the first change or one after the other: each transition is named for
//! the change that led to it, and each reason goes with its own.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tenantry::api::{
    LABEL_ACCOUNTS,
    tenant_account::TenantAccount,
    tenant_status::{Access, TenantStatus},
};
use tenantry_test_support::{
    Options, World,
    users::{LoggedActivity, activity, actors},
};

struct Stage {
    world: World,
}

impl Stage {
    async fn new(name: &'static str) -> Self {
        let options = Options { own_plane: true, records_users: true, ..Options::default() };
        Self { world: World::with(name, options).await }
    }

    async fn make(&self, names: &[&str]) {
        for name in names {
            self.world.apply(name, json!({})).await;
        }
        for name in names {
            self.world.fleet.ready(name).await;
        }
    }

    /// A user's change of a Tenant's spec.
    async fn change(&self, user: &str, name: &str, spec: Value) {
        let fleet = self.world.fleet.by(self.world.plane(), user).await;
        let patch = Patch::Merge(json!({"spec": spec}));
        fleet.tenants.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn access(&self, name: &str, access: Access) -> TenantStatus {
        self.world.fleet.access(name, access).await.status.unwrap()
    }

    async fn log(&self, slug: &str) -> Vec<LoggedActivity> {
        activity(&mut self.world.superuser("tenantry_system").await, slug).await
    }

    /// The actor of the last row of this action, once the log has so many.
    async fn actor(&self, slug: &str, action: &str, rows: usize) -> String {
        let wait = self.world.fleet.until(format!("{slug} has {rows} rows {action}"));
        wait.observe(async || {
            let found = actors(&self.log(slug).await, &[action]);
            if found.len() == rows { Ok(found.last().unwrap().1.clone()) } else { Err(found) }
        })
        .await
    }
}

fn reasons(log: &[LoggedActivity], action: &str) -> Vec<(String, Option<String>)> {
    let rows = log.iter().filter(|row| row.action == action);
    rows.map(|row| (row.actor.clone(), row.reason.clone())).collect()
}

#[tokio::test]
async fn changes_that_are_seen_together_keep_their_users_and_reasons() {
    let stage = Stage::new("attribution").await;
    let operator = stage.world.installation.operator();
    stage.make(&["attr-both", "attr-reversed", "attr-gate", "attr-many"]).await;
    operator.stop().await.unwrap();
    let suspended = |reason: &str| json!({"state": "Suspended", "stateReason": reason});
    stage.change("bob", "attr-both", suspended("bob suspends")).await;
    stage.change("alice", "attr-both", json!({"slug": "attr-new", "stateReason": "alice renames"})).await;
    stage.change("bob", "attr-reversed", json!({"slug": "attr-newer", "stateReason": "bob renames"})).await;
    stage.change("alice", "attr-reversed", json!({"state": "Suspended"})).await;
    stage.change("bob", "attr-gate", json!({"gates": [{"name": "contract", "done": false}]})).await;
    stage.change("alice", "attr-gate", json!({"stateReason": "a note"})).await;
    stage.change("bob", "attr-many", suspended("bob did it")).await;
    stage.change("alice", "attr-many", json!({"plan": "free"})).await;
    for n in 0..12 {
        stage.change("alice", "attr-many", json!({"displayName": format!("Many {n}")})).await;
    }
    operator.start().await.unwrap();
    for name in ["attr-both", "attr-reversed", "attr-many"] {
        stage.access(name, Access::Blocked).await;
    }
    assert_eq!(stage.actor("attr-new", "Suspended", 1).await, "bob");
    assert_eq!(stage.actor("attr-newer", "Suspended", 1).await, "alice");
    assert_eq!(stage.actor("attr-many", "Suspended", 1).await, "unknown (not recorded)");
    let given = |reason: &str| Some(reason.to_owned());
    let log = stage.log("attr-new").await;
    let expected = [("bob".to_owned(), None), ("alice".to_owned(), given("alice renames"))];
    assert_eq!(reasons(&log, "Updated"), expected);
    assert_eq!(reasons(&log, "SlugChanged"), [("alice".to_owned(), given("alice renames"))]);
    let suspensions = reasons(&log, "Suspended");
    assert!(
        suspensions.iter().all(|(_, why)| !why.as_deref().unwrap_or_default().contains("renames")),
        "{log:#?}"
    );
    let log = stage.log("attr-newer").await;
    assert_eq!(
        reasons(&log, "Updated"),
        [("bob".to_owned(), given("bob renames")), ("alice".to_owned(), None)]
    );
    let suspensions = reasons(&log, "Suspended");
    assert!(
        suspensions.iter().all(|(_, why)| !why.as_deref().unwrap_or_default().contains("renames")),
        "{log:#?}"
    );
    // Every change has its row, or is in the row of those that are not recorded.
    let log = stage.log("attr-many").await;
    let updates = actors(&log, &["Updated"]);
    assert_eq!(updates.len(), 11, "{log:#?}");
    assert_eq!(updates[0].1, "unknown (not recorded)");
}

#[tokio::test]
async fn changes_that_lead_to_no_other_state_are_named_for_none() {
    let stage = Stage::new("attribution-up").await;
    stage.make(&["attr-hold", "attr-mode"]).await;
    for name in ["attr-hold", "attr-mode"] {
        let bob = stage.world.fleet.by(stage.world.plane(), "bob").await;
        bob.apply_hold(name, name, json!({"mode": "Blocked"})).await;
        stage.access(name, Access::Blocked).await;
        assert_eq!(stage.actor(name, "Suspended", 1).await, "bob");
    }
    let rename = json!({"slug": "attr-held", "stateReason": "alice renames"});
    stage.change("alice", "attr-hold", rename).await;
    stage.actor("attr-held", "SlugChanged", 1).await;
    stage.change("alice", "attr-mode", json!({"suspension": {"mode": "ReadOnly"}})).await;
    stage.actor("attr-mode", "Updated", 1).await;
    for (name, slug) in [("attr-hold", "attr-held"), ("attr-mode", "attr-mode")] {
        stage.world.fleet.delete_hold(name).await;
        let status = stage.access(name, Access::ReadWrite).await;
        assert_eq!(stage.actor(slug, "Resumed", 1).await, "unknown (deletion)");
        assert_ne!(status.state_updated_by.as_deref(), Some("alice"));
    }
}

#[tokio::test]
async fn plan_that_a_customer_gives_back_is_changed_by_the_customer() {
    let stage = Stage::new("attribution-plan").await;
    let world = &stage.world;
    let allow = format!("{LABEL_ACCOUNTS}=true");
    world.kubectl().run(&["label", "namespace", world.name, &allow]).await.unwrap();
    world.fleet.apply_plan("attr-small", json!({"selfService": {"plans": ["attr-large"]}})).await;
    world.fleet.apply_plan("attr-large", json!({"limits": {"users": 50}})).await;
    let tenant = json!({"plan": "attr-small", "accountNamespace": world.name});
    world.apply("attr-plan", tenant).await;
    world.fleet.ready("attr-plan").await;
    stage.change("alice", "attr-plan", json!({"displayName": "Alice's"})).await;
    let owner = world.fleet.by(world.plane(), "owner").await;
    let accounts = Api::<TenantAccount>::namespaced(owner.client.clone(), world.name);
    world
        .until("the account is there", async || accounts.get_opt("attr-plan").await.unwrap().is_some())
        .await;
    for (rows, request) in [(1, json!({"plan": "attr-large"})), (2, Value::Null)] {
        let patch = Patch::Merge(json!({"spec": {"planRequest": request}}));
        accounts.patch("attr-plan", &PatchParams::default(), &patch).await.unwrap();
        assert_eq!(stage.actor("attr-plan", "PlanChanged", rows).await, "owner");
    }
}
