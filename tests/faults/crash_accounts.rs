//! The operator is killed, or its servers are away, after every effect of an edit of a `TenantAccount`. The edit counts once, for
//! the customer who made it.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tenantry::api::{
    LABEL_ACCOUNTS,
    conditions::{READY, find_condition},
    tenant_account::TenantAccount,
};
use tenantry_dev::interposer::Moment;
use tenantry_test_support::{Options, World, users::activity};

use super::disturbance::{Disturbance, disturbed_at};

/// More than there are effects.
const MOST_EFFECTS: usize = 100;
const OWNER: &str = "owner@acme.example";

/// The account, as the customer's administrator sees it.
async fn accounts(world: &World) -> Api<TenantAccount> {
    Api::namespaced(world.fleet.by(world.plane(), OWNER).await.client, world.name)
}

/// Whether the account shows that this edit counts.
fn shows(account: &TenantAccount, name: &str) -> bool {
    account.status.as_ref().is_some_and(|status| {
        let ready = find_condition(&status.conditions, READY);
        status.observed_generation == account.metadata.generation
            && status.display_name.as_deref() == Some(name)
            && ready.is_some_and(|ready| ready.reason == "AccountCurrent")
    })
}

/// The setting in the tenant's database; none also while PostgreSQL is away.
async fn theme(world: &World) -> Option<Value> {
    let mut session = world.installation.postgres().connect("tenant_edited").await.ok()?;
    let query = "SELECT value FROM tenantry.settings WHERE key = 'theme'";
    sqlx::query_scalar(query).fetch_optional(&mut session).await.ok()?
}

/// The customers' edits on record: who made each, and the name that it gave.
async fn recorded(world: &World) -> Vec<(String, Value)> {
    let log = activity(&mut world.superuser("tenantry_system").await, "edited").await;
    let edits = log.into_iter().filter(|row| row.action == "AccountUpdated");
    edits.map(|row| (row.actor, row.details["fields"]["displayName"]["to"].clone())).collect()
}

/// One edit, which is disturbed after an effect. Returns the effect, or none if there were fewer.
async fn edit(world: &World, disturbance: Disturbance, number: usize) -> Option<String> {
    let accounts = accounts(world).await;
    let (name, wanted) = (format!("Acme {number}"), json!(format!("theme-{number}")));
    let settled = async {
        let spec = Patch::Merge(json!({"spec": {"displayName": name, "settings": {"theme": wanted}}}));
        accounts.patch("edited", &PatchParams::default(), &spec).await.unwrap();
        let wait = world.fleet.until(format!("the account shows {name}"));
        let is_shown = |found: Option<&TenantAccount>| found.is_some_and(|account| shows(account, &name));
        wait.object(&accounts, "edited", is_shown).await;
        world.until("the setting is applied", async || theme(world).await.as_ref() == Some(&wanted)).await;
        world.fleet.ready("edited").await;
    };
    let point = Some((number, Moment::After));
    let effect = disturbed_at(world, disturbance, point, settled, async || {}).await;
    let edits: Vec<_> = (1..=number).map(|n| (OWNER.to_owned(), json!(format!("Acme {n}")))).collect();
    assert_eq!(recorded(world).await, edits, "after {effect:?}");
    let query = "SELECT name = 'Acme ' || $1 FROM tenants";
    assert!(world.holds("tenantry_system", query, &number.to_string()).await, "after {effect:?}");
    effect
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn edit_counts_once_wherever_the_operator_is_killed() {
    edit_counts_once("crash-account", Disturbance::Kill).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn edit_counts_once_whenever_the_servers_are_away() {
    edit_counts_once("outage-account", Disturbance::Outage).await;
}

async fn edit_counts_once(name: &'static str, disturbance: Disturbance) {
    let options = Options {
        interposed: true,
        no_background_checks: true,
        own_plane: true,
        records_users: true,
        ..Options::default()
    };
    let world = &World::with(name, options).await;
    let allow = format!("{LABEL_ACCOUNTS}=true");
    world.kubectl().run(&["label", "namespace", name, &allow]).await.unwrap();
    world.fleet.apply_plan("edited", json!({"selfService": {"settings": ["theme"]}})).await;
    world.apply("edited", json!({"plan": "edited", "accountNamespace": name})).await;
    world.fleet.ready("edited").await;
    let accounts = accounts(world).await;
    world.until("the account is there", async || accounts.get_opt("edited").await.unwrap().is_some()).await;
    let mut points = 0;
    for number in 1..MOST_EFFECTS {
        if edit(world, disturbance, number).await.is_none() {
            break;
        }
        points += 1;
    }
    println!("{disturbance:?} at {points} points");
    assert!(points > 2, "{points}");
}
