//! Many Tenants with one slug.

use futures::future::join_all;
use serde_json::{Value, json};
use tenantry::api::{
    conditions::{REGISTERED, find_condition},
    tenant::Tenant,
};
use tenantry_test_support::{Fleet, shared_operator::superuser};

const SLUG: &str = "same-slug";

/// The rows of the registry that have the slug, or had it, and the databases of its name on the server. The oids are recorded by
/// the next check of the server, at any time.
async fn left() -> (Vec<Value>, Vec<String>) {
    let rows = sqlx::query_scalar(
        "SELECT to_jsonb(t) - '{updated_at,database_oid,login_oid}'::text[] FROM tenants t
         WHERE slug = $1 OR id IN (SELECT tenant_id FROM slug_history WHERE slug = $1)",
    )
    .bind(SLUG)
    .fetch_all(&mut superuser("tenantry_system").await)
    .await;
    let databases =
        sqlx::query_scalar("SELECT datname FROM pg_database WHERE datname LIKE 'tenant_same_slug%'");
    let databases = databases.fetch_all(&mut superuser("postgres").await).await.unwrap();
    (rows.unwrap(), databases)
}

#[tokio::test]
async fn one_of_fifty_tenants_gets_the_slug_and_the_others_leave_it_alone() {
    let fleets =
        join_all(('a'..='e').map(async |letter| Fleet::new(&format!("same-slug-{letter}")).await)).await;
    let tenants: Vec<(&Fleet, String)> =
        fleets.iter().flat_map(|fleet| (0..10).map(move |n| (fleet, format!("same-{n}")))).collect();
    join_all(tenants.iter().map(|(fleet, name)| fleet.apply(name, json!({"slug": SLUG})))).await;

    /// Ready, or refused because the slug is taken.
    fn outcome(tenant: &Tenant) -> Option<bool> {
        let status = tenant.status.as_ref()?;
        let ready = find_condition(&status.conditions, "Ready")?;
        let registered = find_condition(&status.conditions, REGISTERED)?;
        match (ready.status.as_str(), registered.reason.as_str()) {
            ("True", _) => Some(true),
            (_, "SlugTaken") => Some(false),
            _ => None,
        }
    }
    let ended = join_all(tenants.iter().map(async |(fleet, name)| {
        fleet
            .wait(name, "Ready or refused", |tenant: Option<&Tenant>| tenant.and_then(outcome).is_some())
            .await
    }))
    .await;
    let winners: Vec<usize> = (0..ended.len()).filter(|n| outcome(&ended[*n]) == Some(true)).collect();
    let [winner] = winners[..] else { panic!("{} have the slug", winners.len()) };
    let (home, name) = &tenants[winner];
    let object = format!("{}/{name}", home.tenants.namespace().unwrap());
    for loser in (0..ended.len()).filter(|n| *n != winner) {
        let status = ended[loser].status.as_ref().unwrap();
        let message = &find_condition(&status.conditions, REGISTERED).unwrap().message;
        // Who has it, and nothing else of that tenant.
        assert!(message.contains(&format!("slug {SLUG:?} is taken by Tenant {object}")), "{message}");
        assert!(!message.contains("-db") && !message.contains("tenant_same"), "{message}");
        assert_eq!((&status.tenant_id, &status.database, &status.binding), (&None, &None, &None));
    }

    let before = left().await;
    assert_eq!((before.0.len(), before.1.len()), (1, 1), "{before:?}");
    let mut session = home.login(name).await.unwrap();
    let losers = tenants.iter().enumerate().filter(|(n, _)| *n != winner);
    join_all(losers.map(async |(_, (fleet, name))| fleet.delete(name).await)).await;
    assert_eq!(left().await, before);
    sqlx::query("SELECT 1").execute(&mut session).await.unwrap();
    home.login(name).await.unwrap();
}
