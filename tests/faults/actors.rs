//! Who changed a tenant while no operator ran; and where nothing records it.

use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use sqlx::PgConnection;
use tenantry::api::{ANNOTATION_CHANGES, plan::TenantPlan, tenant_status::Access};
use tenantry_dev::ControlPlane;
use tenantry_test_support::{
    Fleet, Options, World,
    users::{activity, actors},
};

async fn by(fleet: &Fleet, plane: &ControlPlane, user: &str) -> Fleet {
    fleet.by(plane, user).await
}

/// Waits for these rows of the test's plans, and returns their actors.
async fn plan_log(world: &World, registry: &mut PgConnection, expected: &[(&str, &str)]) -> Vec<String> {
    let expected: Vec<_> =
        expected.iter().map(|(name, action)| ((*name).to_owned(), (*action).to_owned())).collect();
    let wait = world.fleet.until("the changes of plans are logged");
    wait.observe(async || {
        let rows: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT name, action, actor FROM object_activity WHERE name LIKE 'actors-%' ORDER BY name, id",
        )
        .fetch_all(&mut *registry)
        .await
        .unwrap();
        let (found, users): (Vec<_>, Vec<_>) =
            rows.into_iter().map(|(name, action, user)| ((name, action), user)).unzip();
        if found == expected { Ok(users) } else { Err(found) }
    })
    .await
}

#[tokio::test]
async fn changes_without_an_operator_are_attributed_when_it_is_back() {
    let options = Options { own_plane: true, records_users: true, ..Options::default() };
    let world = World::with("actors", options).await;
    let (fleet, plane) = (&world.fleet, world.plane());
    world.apply("actors-back", json!({})).await;
    fleet.ready("actors-back").await;
    fleet.apply_plan("actors-gone", json!({})).await;
    let mut registry = world.superuser("tenantry_system").await;
    plan_log(&world, &mut registry, &[("actors-gone", "Created")]).await;
    world.installation.operator().stop().await.unwrap();
    Api::<TenantPlan>::all(fleet.client.clone())
        .delete("actors-gone", &DeleteParams::default())
        .await
        .unwrap();
    by(fleet, plane, "erin").await.apply_plan("actors-made", json!({})).await;
    let merge = PatchParams::default();
    for (user, spec) in [
        ("alice", json!({"displayName": "First"})),
        ("bob", json!({"displayName": "Second", "state": "Suspended", "stateReason": "unpaid"})),
        ("carol", json!({"plan": "free"})),
    ] {
        let patch = Patch::Merge(json!({"spec": spec}));
        by(fleet, plane, user).await.tenants.patch("actors-back", &merge, &patch).await.unwrap();
    }
    // One that is created meanwhile.
    let other = json!({"server": world.name, "offboarding": null});
    by(fleet, plane, "dave").await.apply("actors-new", other).await;
    world.installation.operator().start().await.unwrap();
    fleet.access("actors-back", Access::Blocked).await;
    fleet.ready("actors-new").await;

    let log = plan_log(
        &world,
        &mut registry,
        &[("actors-gone", "Created"), ("actors-gone", "Deleted"), ("actors-made", "Created")],
    )
    .await;
    assert_eq!((log[1].as_str(), log[2].as_str()), ("unknown (deletion)", "erin"));
    let log = activity(&mut registry, "actors-back").await;
    let updates: Vec<_> = log.iter().filter(|row| row.action == "Updated").collect();
    let users: Vec<_> = updates.iter().map(|row| row.actor.as_str()).collect();
    assert_eq!(users, ["alice", "bob", "carol"], "{log:#?}");
    // The first display name was overwritten: what it was is not known any more, and is not invented.
    assert_eq!(updates[0].details["fields"]["displayName"], json!({"from": "actors-back"}));
    assert_eq!(updates[1].details["fields"]["displayName"], json!({"to": "Second"}));
    assert_eq!(actors(&log, &["Suspended"])[0].1, "bob");
    let created = activity(&mut registry, "actors-new").await;
    assert_eq!(actors(&created, &["Created"])[0].1, "dave");

    // The policies are deleted: from now on the annotation says nothing, whatever is written there.
    let kubectl = world.kubectl();
    let kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings,mutatingadmissionpolicies,mutatingadmissionpolicybindings";
    kubectl.run(&["delete", kinds, "--all"]).await.unwrap();
    let forged = json!({"metadata": {"annotations": {ANNOTATION_CHANGES: "0 * root"}}});
    let forge = async || {
        let patch = Patch::Merge(&forged);
        fleet
            .tenants
            .patch("actors-new", &PatchParams { dry_run: true, ..merge.clone() }, &patch)
            .await
            .is_ok()
    };
    world.until("the policies are not in force", forge).await;
    // This process would believe for some minutes that they are.
    world.installation.operator().stop().await.unwrap();
    world.installation.operator().start().await.unwrap();
    let generation = fleet.tenants.get("actors-new").await.unwrap().metadata.generation.unwrap() + 1;
    let forged = json!({
        "metadata": {"annotations": {ANNOTATION_CHANGES: format!("{generation} state,stateReason root")}},
        "spec": {"state": "Suspended", "stateReason": "forged"},
    });
    fleet.tenants.patch("actors-new", &merge, &Patch::Merge(&forged)).await.unwrap();
    let status = fleet.access("actors-new", Access::Blocked).await.status.unwrap();
    assert_eq!(status.state_updated_by.as_deref(), Some("unknown (no admission policy)"));
    let log = activity(&mut registry, "actors-new").await;
    assert_eq!(actors(&log, &["Updated"])[0].1, "unknown (no admission policy)", "{log:#?}");
    world.event("actors-new", "Suspended", "changed by unknown (no admission policy)").await;
    fleet.tenants.delete("actors-new", &DeleteParams::default()).await.unwrap();
    world.until_status("actors-new", "deprovisioning").await;
    let log = activity(&mut registry, "actors-new").await;
    assert_eq!(actors(&log, &["DeprovisioningBegun"])[0].1, "unknown (deletion)");
}
