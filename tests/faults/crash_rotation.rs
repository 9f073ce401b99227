//! The operator is killed after every effect of a rotation of credentials, and of the end of the overlap. While it is dead and
//! at the end, what the Secret holds works; the previous login works until its overlap is over. (What is so before an effect is
//! what is so after the one before it.)

use kube::{
    api::{Patch, PatchParams},
    runtime::wait::Condition,
};
use serde_json::{Value, json};
use tenantry::api::{ANNOTATION_ROTATE_CREDENTIALS, tenant::Tenant};
use tenantry_dev::interposer::Moment;
use tenantry_test_support::{Options, World, is_ready, login};

use super::disturbance::killed_at;

/// More than there are effects.
const MOST_EFFECTS: usize = 300;

/// A URL with what the Secret holds, past the proxies, which let nothing through while the operator is dead.
async fn secret_url(world: &World) -> String {
    let key = async |key| world.fleet.secret("rotated-db", key).await;
    let (login, password) = (key("username").await, key("password").await);
    world.installation.postgres().url(&login, &password, "tenant_rotated")
}

/// Waits until the tenant is Ready with this login, and with or without another one.
async fn shows(world: &World, login: &str, has_previous: bool) {
    let (login, ready) = (login.to_owned(), is_ready());
    let shown = move |tenant: Option<&Tenant>| {
        let credentials = tenant.and_then(|tenant| tenant.status.as_ref()?.credentials.clone());
        ready.matches_object(tenant)
            && credentials.is_some_and(|found| {
                found.login.as_ref() == Some(&login) && found.previous_login.is_some() == has_previous
            })
    };
    world.fleet.wait("rotated", "with its other login", shown).await;
}

/// One rotation, then the end of its overlap; in one of the two the operator is killed after an effect. Returns the effect, or
/// none if there were fewer.
async fn rotate(world: &World, kills_in_rotation: bool, number: usize) -> Option<String> {
    let point = Some((number, Moment::After));
    let overlap = |seconds: u32| -> Value { json!({"credentials": {"overlapSeconds": seconds}}) };
    world.apply("rotated", overlap(3600)).await;
    world.fleet.ready("rotated").await;
    let before = secret_url(world).await;
    let current = world.fleet.secret("rotated-db", "username").await;
    let other = if current.ends_with("_b") { "tenant_rotated_app" } else { "tenant_rotated_b" };

    let rotated = async {
        let value = format!("{kills_in_rotation} {number}");
        let asked = json!({"metadata": {"annotations": {ANNOTATION_ROTATE_CREDENTIALS: value}}});
        world.fleet.tenants.patch("rotated", &PatchParams::default(), &Patch::Merge(asked)).await.unwrap();
        shows(world, other, true).await;
    };
    let both_work = async || {
        login(&secret_url(world).await).await.expect("what the Secret holds works");
        login(&before).await.expect("the previous login works");
    };
    let killed = killed_at(world, point.filter(|_| kills_in_rotation), rotated, both_work).await;
    both_work().await;
    assert_ne!(secret_url(world).await, before);

    let ended = async {
        world.apply("rotated", overlap(0)).await;
        shows(world, other, false).await;
    };
    let secret_works = async || {
        login(&secret_url(world).await).await.expect("what the Secret holds works");
    };
    let killed_at_end = killed_at(world, point.filter(|_| !kills_in_rotation), ended, secret_works).await;
    secret_works().await;
    assert!(login(&before).await.is_err(), "the previous login is ended");
    assert!(!world.role_exists(&current).await);
    killed.or(killed_at_end)
}

/// Kills after every effect of both.
async fn at_effects(name: &'static str) {
    let options = Options { interposed: true, no_background_checks: true, ..Options::default() };
    let world = &World::with(name, options).await;
    world.apply("rotated", json!({})).await;
    world.fleet.ready("rotated").await;
    for kills_in_rotation in [true, false] {
        let mut points = 0;
        for number in 1..MOST_EFFECTS {
            if rotate(world, kills_in_rotation, number).await.is_none() {
                break;
            }
            points += 1;
        }
        println!("in the rotation: {kills_in_rotation}; killed at {points} points");
        assert!(points > 2, "{points}");
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn rotation_killed_at_any_effect_refuses_no_client() {
    at_effects("crash-rotation").await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn credentials_of_an_age_are_rotated_and_the_previous_login_ends_in_time() {
    // Nothing but the time leads to it: no drift check, no sample.
    let options = Options { no_background_checks: true, ..Options::default() };
    let world = &World::with("rotation-age", options).await;
    world.apply("rotated", json!({"credentials": {"rotateAfterSeconds": 3600, "overlapSeconds": 600}})).await;
    world.fleet.ready("rotated").await;
    let first = secret_url(world).await;
    world.set_clock_ahead(3660);
    shows(world, "tenant_rotated_b", true).await;
    login(&first).await.expect("the previous login works");
    // A new process knows its end from the registry.
    world.installation.operator().stop().await.unwrap();
    world.installation.operator().start().await.unwrap();
    world.set_clock_ahead(4500);
    shows(world, "tenant_rotated_b", false).await;
    assert!(login(&first).await.is_err() && !world.role_exists("tenant_rotated_app").await);
    login(&secret_url(world).await).await.expect("what the Secret holds works");
    world.set_clock_ahead(8000);
    shows(world, "tenant_rotated_app", true).await;
}
