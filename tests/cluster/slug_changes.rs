//! Changes of a tenant's slug: who may, what stays, and what another tenant cannot have.

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::{
    conditions::{READY, REGISTERED, find_condition},
    tenant::Tenant,
    tenant_status::{Access, TenantState, TenantStatus},
};
use tenantry_test_support::{
    Fleet,
    shared_operator::{ENVIRONMENT, superuser},
    users::activity,
};

/// Gives a user these verbs on the Tenants of the fleet's namespace.
async fn grant(fleet: &Fleet, user: &str, verbs: &[&str]) {
    let namespace = fleet.tenants.namespace().unwrap();
    let name = format!("{user}-{}", verbs[0]);
    let role = json!({
        "metadata": {"name": name},
        "rules": [{"apiGroups": ["tenantry.dev"], "resources": ["tenants"], "verbs": verbs}],
    });
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    let role: Role = serde_json::from_value(role).unwrap();
    let binding: RoleBinding = serde_json::from_value(binding).unwrap();
    let client = fleet.client.clone();
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &role).await.unwrap();
    Api::namespaced(client, namespace).create(&PostParams::default(), &binding).await.unwrap();
}

/// The same tenants, by a user with the rights that were granted.
async fn with_rights_of(fleet: &Fleet, user: &str) -> Fleet {
    let mut config = ENVIRONMENT.control_plane().config().await.unwrap();
    config.auth_info.impersonate = Some(user.to_owned());
    let namespace = fleet.tenants.namespace().unwrap();
    Fleet::of(Client::try_from(config).unwrap(), namespace, fleet.log().to_owned())
}

fn slug(slug: &str, reason: &str) -> Value {
    json!({"slug": slug, "stateReason": reason})
}

fn status(tenant: Option<&Tenant>) -> TenantStatus {
    tenant.and_then(|tenant| tenant.status.clone()).unwrap_or_default()
}

/// The slug of the tenant with this id, in the registry.
async fn registered_slug(id: &str) -> String {
    sqlx::query_scalar("SELECT slug FROM tenants WHERE id = $1::uuid")
        .bind(id)
        .fetch_one(&mut superuser("tenantry_system").await)
        .await
        .unwrap()
}

#[tokio::test]
async fn slug_needs_the_verb_and_a_new_reason_and_everything_else_stays() {
    let fleet = Fleet::new("slug-verb").await;
    fleet.apply("slug-verb", json!({})).await;
    let before = status(Some(&fleet.ready("slug-verb").await));
    let uri = fleet.secret("slug-verb-db", "uri").await;
    let mut session = fleet.login("slug-verb").await.unwrap();
    grant(&fleet, "clerk", &["get", "update", "patch"]).await;
    let clerk = with_rights_of(&fleet, "clerk").await;
    let may_update = async || clerk.try_apply("slug-verb", json!({"displayName": "Verb"})).await.is_ok();
    fleet.until("the clerk may update").is_true(may_update).await;

    let refused = async |fleet: &Fleet, changes: Value| {
        let refused = fleet.try_apply("slug-verb", changes).await;
        refused.expect_err("the slug was changed").to_string()
    };
    let renamed = slug("slug-verb-new", "new brand");
    let error = refused(&clerk, renamed.clone()).await;
    assert!(error.contains("you need the verb rename on this Tenant"), "{error}");
    // Who may, gives a reason, and another one than is there.
    let error = refused(&fleet, json!({"slug": "slug-verb-new"})).await;
    assert!(error.contains("slug can be changed only together with stateReason"), "{error}");
    grant(&fleet, "clerk", &["rename"]).await;
    let may_rename = async || clerk.try_apply("slug-verb", renamed.clone()).await.is_ok();
    fleet.until("the clerk may rename").is_true(may_rename).await;
    let error = refused(&clerk, slug("slug-verb-newer", "new brand")).await;
    assert!(error.contains("slug can be changed only together with stateReason"), "{error}");
    let after = status(Some(&fleet.ready("slug-verb").await));

    assert_eq!(after.tenant_id, before.tenant_id);
    assert_eq!((after.database.as_deref(), after.slug), (Some("tenant_slug_verb"), None));
    assert_eq!(fleet.secret("slug-verb-db", "uri").await, uri);
    session.execute("SELECT 1").await.unwrap();
    fleet.login("slug-verb").await.unwrap();
    let log = activity(&mut superuser("tenantry_system").await, "slug-verb-new").await;
    let changed: Vec<_> = log.iter().filter(|row| row.action == "SlugChanged").collect();
    assert_eq!(changed.len(), 1, "{log:#?}");
    assert_eq!((changed[0].actor.as_str(), changed[0].reason.as_deref()), ("clerk", Some("new brand")));
    assert_eq!(changed[0].details, json!({"from": "slug-verb", "to": "slug-verb-new"}));
    let updated = log.iter().rfind(|row| row.action == "Updated").unwrap();
    assert_eq!(updated.reason.as_deref(), Some("new brand"));
    let fields = json!({"from": "slug-verb", "to": "slug-verb-new"});
    assert_eq!(updated.details["fields"]["slug"], fields);
    // A commit that is reverted is a change like any other.
    let error = refused(&fleet, slug("slug-verb", "new brand")).await;
    assert!(error.contains("slug can be changed only together with stateReason"), "{error}");
    fleet.apply("slug-verb", slug("slug-verb", "the brand stays")).await;
    fleet.ready("slug-verb").await;
    assert_eq!(registered_slug(&before.tenant_id.unwrap()).await, "slug-verb");
    let refused =
        refused(&fleet, json!({"slug": "gone", "state": "Deprovisioned", "stateReason": "left"})).await;
    assert!(refused.contains("slug cannot be changed while state is Deprovisioned"), "{refused}");
}

#[tokio::test]
async fn reason_of_the_change_is_not_that_of_the_suspension() {
    let fleet = Fleet::new("slug-suspended").await;
    let suspended = |more: Value| {
        let mut all = json!({"state": "Suspended", "stateReason": "unpaid"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    fleet.apply("slug-susp", suspended(json!({}))).await;
    fleet.access("slug-susp", Access::Blocked).await;
    fleet.apply("slug-susp", suspended(slug("slug-susp-new", "new brand"))).await;
    let ready = fleet.access("slug-susp", Access::Blocked).await;
    let id = status(Some(&ready)).tenant_id.unwrap();
    assert_eq!(registered_slug(&id).await, "slug-susp-new");
    let mut registry = superuser("tenantry_system").await;
    let reason: String = sqlx::query_scalar("SELECT status_reason FROM tenants WHERE id = $1::uuid")
        .bind(&id)
        .fetch_one(&mut registry)
        .await
        .unwrap();
    assert_eq!(reason, "spec.state is Suspended (Blocked): unpaid");
    let log = activity(&mut registry, "slug-susp-new").await;
    let actions: Vec<&str> = log.iter().map(|row| row.action.as_str()).collect();
    assert!(!actions.contains(&"SuspensionChanged") && !actions.contains(&"Suspended"), "{actions:?}");
    // A tenant that leaves has neither as its reason.
    fleet.delete("slug-susp").await;
    let receipt: (String, Option<String>) =
        sqlx::query_as("SELECT slug, reason FROM deletion_receipts WHERE tenant_id = $1::uuid")
            .bind(&id)
            .fetch_one(&mut registry)
            .await
            .unwrap();
    assert_eq!(receipt, ("slug-susp-new".to_owned(), None));
}

#[tokio::test]
async fn taken_slug_leaves_the_tenant_as_it_is_until_it_is_free() {
    let fleet = Fleet::new("slug-taken").await;
    for name in ["slug-one", "slug-two"] {
        fleet.apply(name, json!({})).await;
    }
    for name in ["slug-one", "slug-two"] {
        fleet.ready(name).await;
    }
    // A swap is refused, in whatever order: both slugs have an owner.
    fleet.apply("slug-one", slug("slug-two", "swap")).await;
    fleet.apply("slug-two", slug("slug-one", "swap")).await;
    for name in ["slug-one", "slug-two"] {
        let tenant = fleet.reason(name, REGISTERED, "SlugTaken").await;
        let status = status(Some(&tenant));
        assert_eq!((status.state, status.access), (Some(TenantState::Active), Some(Access::ReadWrite)));
        assert_eq!(status.slug.as_deref(), Some(name));
        let message = &find_condition(&status.conditions, READY).unwrap().message;
        assert!(message.contains(&format!("this tenant keeps its slug {name:?}")), "{message}");
        fleet.login(name).await.unwrap();
    }
    // Everything else is done nevertheless.
    let more = json!({"slug": "slug-two", "stateReason": "swap", "state": "Suspended"});
    fleet.apply("slug-one", more).await;
    let is_blocked = |tenant: Option<&Tenant>| status(tenant).access == Some(Access::Blocked);
    fleet.wait("slug-one", "blocked", is_blocked).await;
    // The one gives up, and has its slug; the other waits for a former slug of it, and gets that when it is deprovisioned.
    fleet.apply("slug-one", slug("slug-three", "another one")).await;
    let one = fleet.ready("slug-one").await;
    assert_eq!(registered_slug(&status(Some(&one)).tenant_id.unwrap()).await, "slug-three");
    let is_reserved = |tenant: Option<&Tenant>| {
        let conditions = status(tenant).conditions;
        find_condition(&conditions, REGISTERED)
            .is_some_and(|found| found.message.contains("it is a former slug of Tenant slug-taken/slug-one"))
    };
    fleet.wait("slug-two", "reported as reserved", is_reserved).await;
    fleet.apply("slug-new", json!({"slug": "slug-one"})).await;
    fleet.reason("slug-new", REGISTERED, "SlugTaken").await;
    fleet.tenants.delete("slug-new", &DeleteParams::default()).await.unwrap();
    fleet.delete("slug-one").await;
    let two = fleet.ready("slug-two").await;
    assert_eq!(registered_slug(&status(Some(&two)).tenant_id.unwrap()).await, "slug-one");
}

#[tokio::test]
async fn tenant_that_was_refused_at_first_gets_another_slug() {
    let fleet = Fleet::new("slug-first").await;
    fleet.apply("slug-first", json!({})).await;
    fleet.ready("slug-first").await;
    fleet.apply("slug-second", json!({"slug": "slug-first"})).await;
    fleet.reason("slug-second", REGISTERED, "SlugTaken").await;
    fleet.apply("slug-second", slug("slug-second", "the other was taken")).await;
    let second = fleet.ready("slug-second").await;
    // Its names are those of the slug that it was registered with.
    assert_eq!(status(Some(&second)).database.as_deref(), Some("tenant_slug_second"));
}

#[tokio::test]
async fn deletion_right_after_the_change_keeps_it() {
    let fleet = Fleet::new("slug-deleted").await;
    let kept = json!({"offboarding": {"gracePeriodSeconds": 3600}});
    fleet.apply("slug-deleted", kept.clone()).await;
    let id = status(Some(&fleet.ready("slug-deleted").await)).tenant_id.unwrap();
    // While it is paused, the change waits; the deletion does not.
    let mut renamed = slug("slug-deleted-new", "new brand");
    renamed["offboarding"] = kept["offboarding"].clone();
    let mut paused = renamed.clone();
    paused["paused"] = json!(true);
    fleet.apply("slug-deleted", paused).await;
    fleet.reason("slug-deleted", READY, "Paused").await;
    assert_eq!(registered_slug(&id).await, "slug-deleted");
    fleet.delete("slug-deleted").await;
    assert_eq!(registered_slug(&id).await, "slug-deleted-new");
    // The former manifest is not that of the tombstone, and gets nothing of it.
    fleet.apply("slug-deleted", kept).await;
    fleet.reason("slug-deleted", REGISTERED, "SlugTaken").await;
    fleet.delete("slug-deleted").await;
    fleet.apply("slug-deleted", renamed).await;
    let restored = fleet.ready("slug-deleted").await;
    assert_eq!(status(Some(&restored)).tenant_id, Some(id));
}
