//! The operator is killed, or its servers are away, after every effect of a change of the slug. Meanwhile the tenant has one slug,
//! and works; in the end it has the new one, the former one is reserved, and the change is on record once.

use serde_json::{Value, json};
use tenantry::api::tenant::Tenant;
use tenantry_dev::interposer::Moment;
use tenantry_test_support::{Options, World, is_ready, login};

use kube::runtime::wait::Condition;

use super::disturbance::{Disturbance, disturbed_at};

/// More than there are effects.
const MOST_EFFECTS: usize = 100;

/// A URL with what the Secret holds, past the proxies, which let nothing through while the operator is dead.
async fn secret_url(world: &World) -> String {
    let key = async |key| world.fleet.secret("renamed-db", key).await;
    let (login, password) = (key("username").await, key("password").await);
    world.installation.postgres().url(&login, &password, "tenant_renamed")
}

/// The slug in force, those that are reserved, and how many changes are on record.
async fn recorded(world: &World) -> (String, Vec<String>, i64) {
    sqlx::query_as(
        "SELECT t.slug, (SELECT array_agg(h.slug ORDER BY h.slug) FROM slug_history h WHERE h.reserved),
             (SELECT count(*) FROM activity WHERE action = 'SlugChanged')
         FROM tenants t",
    )
    .fetch_one(&mut world.superuser("tenantry_system").await)
    .await
    .unwrap()
}

/// One change, which is disturbed after an effect. Returns the effect, or none if there were fewer.
async fn rename(world: &World, disturbance: Disturbance, number: usize, changes: i64) -> Option<String> {
    let (before, ..) = recorded(world).await;
    let to = if before == "renamed" { "renamed-again" } else { "renamed" };
    let spec: Value = json!({"slug": to, "stateReason": format!("change {changes}")});
    let uri = secret_url(world).await;
    let settled = async {
        world.apply("renamed", spec).await;
        let ready = is_ready();
        let done = move |tenant: Option<&Tenant>| {
            ready.matches_object(tenant)
                && tenant
                    .is_some_and(|tenant| tenant.status.as_ref().is_some_and(|status| status.slug.is_none()))
        };
        world.fleet.wait("renamed", "renamed", done).await;
    };
    let works_under_one = async || {
        login(&uri).await.expect("what the Secret holds works");
        let (slug, _, on_record) = recorded(world).await;
        assert_eq!(on_record, if slug == before { changes - 1 } else { changes });
    };
    let point = Some((number, Moment::After));
    let effect = disturbed_at(world, disturbance, point, settled, works_under_one).await;
    let reserved = ["renamed", "renamed-again"].map(str::to_owned).to_vec();
    assert_eq!(recorded(world).await, (to.to_owned(), reserved, changes), "after {effect:?}");
    assert_eq!(secret_url(world).await, uri);
    login(&uri).await.expect("what the Secret holds works");
    effect
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn slug_changes_once_wherever_the_operator_is_killed() {
    slug_changes_once("crash-slug", Disturbance::Kill).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn slug_changes_once_whenever_the_servers_are_away() {
    slug_changes_once("outage-slug", Disturbance::Outage).await;
}

async fn slug_changes_once(name: &'static str, disturbance: Disturbance) {
    let options = Options { interposed: true, no_background_checks: true, ..Options::default() };
    let world = &World::with(name, options).await;
    world.apply("renamed", json!({})).await;
    world.fleet.ready("renamed").await;
    let mut points = 0;
    for number in 1..MOST_EFFECTS {
        let changes = i64::try_from(number).unwrap();
        if rename(world, disturbance, number, changes).await.is_none() {
            break;
        }
        points += 1;
    }
    println!("{disturbance:?} at {points} points");
    assert!(points > 2, "{points}");
}
