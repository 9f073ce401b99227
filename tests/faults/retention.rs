//! What is outdated is removed from the registry again and again while a process leads.

use serde_json::json;
use sqlx::AssertSqlSafe;
use tenantry_test_support::{Options, World};

#[tokio::test]
async fn outdated_rows_are_removed_in_every_period() {
    let arguments = vec!["--test-retention-interval=1".to_owned()];
    let world = World::with("retention", Options { arguments, ..Options::default() }).await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    let mut registry = world.superuser("tenantry_system").await;
    for round in 1..=2 {
        let old = format!(
            "INSERT INTO workflows (tenant_id, kind, holder, claim, started_at, finished_at, outcome)
             SELECT id, 'Repair', 'old-{round}', 0, at, at, 'Succeeded'
             FROM tenants, generate_series(now() - interval '1500 days', now() - interval '1400 days', '1 day') AS at"
        );
        sqlx::query(AssertSqlSafe(old)).execute(&mut registry).await.unwrap();
        let is_removed = "SELECT NOT EXISTS (SELECT FROM workflows WHERE holder LIKE 'old-%') AND $1 <= (
                              SELECT count(*) FROM activity WHERE action = 'OutdatedRowsRemoved')";
        world
            .until("they are removed, and that is recorded", async || {
                world.holds_number("tenantry_system", is_removed, round).await
            })
            .await;
    }
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM workflows").fetch_one(&mut registry).await.unwrap();
    assert!(kept > 0, "its own workflow is kept");
}
