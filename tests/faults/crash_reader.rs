//! The operator is killed after every effect of the creation and of the end of a reader login. The login itself works all the
//! time; at the end, what the reader login's Secret holds works, or nothing is left of it.

use kube::runtime::wait::Condition;
use serde_json::json;
use tenantry::api::tenant::Tenant;
use tenantry_dev::interposer::Moment;
use tenantry_test_support::{Options, World, is_ready, login};

use super::disturbance::killed_at;

/// More than there are effects.
const MOST_EFFECTS: usize = 200;
const ROLE: &str = "tenant_reported_ro";

/// A URL with what a Secret holds, past the proxies, which let nothing through while the operator is dead.
async fn secret_url(world: &World, secret: &str) -> String {
    let key = async |key| world.fleet.secret(secret, key).await;
    let (login, password) = (key("username").await, key("password").await);
    world.installation.postgres().url(&login, &password, "tenant_reported")
}

/// Asks for a reader login, or for none, and waits until the tenant is Ready with it.
async fn ask_for(world: &World, is_wanted: bool) {
    world.apply("reported", json!({"credentials": {"reader": is_wanted}})).await;
    let ready = is_ready();
    let shown = move |tenant: Option<&Tenant>| {
        let credentials = tenant.and_then(|tenant| tenant.status.as_ref()?.credentials.clone());
        ready.matches_object(tenant) && credentials.is_some_and(|found| found.reader.is_some() == is_wanted)
    };
    world.fleet.wait("reported", "Ready as to its reader login", shown).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn reader_login_killed_at_any_effect_is_completed_or_removed() {
    let options = Options { interposed: true, no_background_checks: true, ..Options::default() };
    let world = &World::with("crash-reader", options).await;
    world.apply("reported", json!({})).await;
    world.fleet.ready("reported").await;
    let own = secret_url(world, "reported-db").await;
    let own_works = async || {
        login(&own).await.expect("the login works");
    };
    for kills_in_creation in [true, false] {
        let mut points = 0;
        for number in 1..MOST_EFFECTS {
            let point = Some((number, Moment::After));
            let made = ask_for(world, true);
            let killed = killed_at(world, point.filter(|_| kills_in_creation), made, own_works).await;
            let reader = secret_url(world, "reported-db-ro").await;
            login(&reader).await.expect("what the Secret of the reader login holds works");
            let ended = ask_for(world, false);
            let killed_at_end =
                killed_at(world, point.filter(|_| !kills_in_creation), ended, own_works).await;
            assert!(login(&reader).await.is_err() && !world.role_exists(ROLE).await);
            assert!(world.fleet.secrets.get_opt("reported-db-ro").await.unwrap().is_none());
            if killed.or(killed_at_end).is_none() {
                break;
            }
            points += 1;
        }
        println!("in the creation: {kills_in_creation}; killed at {points} points");
        assert!(points > 2, "{points}");
    }
}
