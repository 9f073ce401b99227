//! The operator is killed after every effect of the grant and of the end of a support access. What the Secret holds at the end
//! works, or nothing is left of it, and each access has each of its activity rows once.

use kube::{
    Api,
    api::{DeleteParams, PostParams},
    runtime::conditions::is_deleted,
};
use serde_json::json;
use tenantry::api::{
    API_VERSION,
    support_access::{SupportAccess, SupportState},
};
use tenantry_dev::interposer::Moment;
use tenantry_test_support::{Options, World, login};

use super::{disturbance::killed_at, support_access::policy_is_in_force};

/// More than there are effects.
const MOST_EFFECTS: usize = 200;
const NAME: &str = "crash-support";

/// Requests an access as the cluster's administrator, and waits until it is granted.
async fn request(world: &World, name: &str) -> SupportAccess {
    let user = ["auth", "whoami", "--output=jsonpath={.status.userInfo.username}"];
    let user = world.kubectl().run(&user).await.unwrap();
    let object = json!({"apiVersion": API_VERSION, "kind": "SupportAccess", "metadata": {"name": name},
        "spec": {"tenant": NAME, "reason": "a crash", "requestedBy": user.trim()}});
    let object = serde_json::from_value(object).unwrap();
    let accesses = accesses(world);
    accesses.create(&PostParams::default(), &object).await.unwrap();
    let is_granted = |object: Option<&SupportAccess>| {
        object
            .and_then(|object| object.status.as_ref())
            .is_some_and(|status| status.state == Some(SupportState::Granted))
    };
    let wait = world.fleet.until(format!("support access {name} is granted"));
    wait.object(&accesses, name, is_granted).await.unwrap()
}

/// Deletes an access, and waits until it is gone.
async fn delete(world: &World, object: &SupportAccess) {
    let (accesses, name) = (accesses(world), object.metadata.name.as_deref().unwrap());
    accesses.delete(name, &DeleteParams::default()).await.unwrap();
    let uid = object.metadata.uid.as_deref().unwrap();
    world.fleet.until("the support access is deleted").object(&accesses, name, is_deleted(uid)).await;
}

fn accesses(world: &World) -> Api<SupportAccess> {
    Api::namespaced(world.fleet.client.clone(), NAME)
}

/// A URL with what a Secret holds, past the proxies, which let nothing through while the operator is dead.
async fn secret_url(world: &World, secret: &str) -> String {
    let key = async |key| world.fleet.secret(secret, key).await;
    let (login, password) = (key("username").await, key("password").await);
    world.installation.postgres().url(&login, &password, "tenant_crash_support")
}

async fn rows(world: &World, object: &SupportAccess) -> Vec<String> {
    let mut registry = world.superuser("tenantry_system").await;
    sqlx::query_scalar("SELECT action FROM activity WHERE correlation_id::text = $1 ORDER BY id")
        .bind(object.metadata.uid.as_deref())
        .fetch_all(&mut registry)
        .await
        .unwrap()
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn support_access_killed_at_any_effect_is_completed_or_removed() {
    let options = Options { interposed: true, no_background_checks: true, ..Options::default() };
    let world = &World::with(NAME, options).await;
    world.apply(NAME, json!({})).await;
    world.fleet.ready(NAME).await;
    policy_is_in_force(world).await;
    for kills_in_grant in [true, false] {
        let mut points = 0;
        for number in 1..MOST_EFFECTS {
            let point = Some((number, Moment::After));
            let name = format!("look-{kills_in_grant}-{number}");
            let made = async { drop(request(world, &name).await) };
            let killed = killed_at(world, point.filter(|_| kills_in_grant), made, async || {}).await;
            let object = accesses(world).get(&name).await.unwrap();
            let url = secret_url(world, &format!("{name}-support")).await;
            login(&url).await.expect("what the Secret of the access holds works");
            let role = object.status.as_ref().unwrap().login.clone().unwrap();
            let ended = delete(world, &object);
            let killed_at_end = killed_at(world, point.filter(|_| !kills_in_grant), ended, async || {}).await;
            assert!(login(&url).await.is_err() && !world.role_exists(&role).await);
            assert!(world.fleet.secrets.get_opt(&format!("{name}-support")).await.unwrap().is_none());
            let mut found = rows(world, &object).await;
            found.retain(|action| action != "SupportAccessUsed");
            assert_eq!(found, ["SupportAccessRequested", "SupportAccessGranted", "SupportAccessEnded"]);
            if killed.or(killed_at_end).is_none() {
                break;
            }
            points += 1;
        }
        println!("in the grant: {kills_in_grant}; killed at {points} points");
        assert!(points > 2, "{points}");
    }
}
