//! `/health` and the metrics of an installation in which something fails, and that they turn back by themselves.

use serde_json::{Value, json};
use tenantry_dev::Stop;
use tenantry_test_support::World;

/// Waits until `/health` has this status and these reasons.
async fn health_is(world: &World, status: (u16, &str), reasons: &[&str]) {
    let wait = world.fleet.until(format!("/health is {status:?} because of {reasons:?}"));
    wait.observe(async || {
        let (http, body) =
            world.installation.operator().get("/health").await.map_err(|error| error.to_string())?;
        let page: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        let found: Vec<&str> =
            page["causes"].as_array().unwrap().iter().filter_map(|cause| cause["reason"].as_str()).collect();
        let is_so = (http, page["status"].as_str()) == (status.0, Some(status.1)) && found == reasons;
        if is_so { Ok(()) } else { Err(body) }
    })
    .await;
}

/// Waits for a line of the metrics.
async fn exports(world: &World, line: &str) {
    exports_one(world, line, |found| found == line).await;
}

/// Waits for a line of the metrics for which this is true.
async fn exports_one(world: &World, what: &str, is_it: impl Fn(&str) -> bool) {
    world
        .until(&format!("the metrics have {what}"), async || {
            let metrics = world.installation.operator().metrics().await;
            metrics.is_ok_and(|text| text.lines().any(&is_it))
        })
        .await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn health_names_what_fails_and_turns_back() {
    let world = World::new("alerts-health").await;
    world.apply("alerts-first", json!({})).await;
    world.fleet.ready("alerts-first").await;
    health_is(&world, (200, "ready"), &[]).await;
    exports(&world, "tenantry_active_tenants 1.0").await;
    exports(&world, "tenantry_registry_tenants{status=\"active\"} 1.0").await;
    let server = format!(
        "tenantry_database_servers{{server=\"{}\",condition=\"Ready\",reason=\"Connected\"}} 1.0",
        world.name
    );
    exports(&world, &server).await;
    exports(&world, "tenantry_plan_tenants{plan=\"starter\",state=\"Current\"} 1.0").await;

    // The slug belongs to the first.
    let tenant = world.apply("alerts-second", json!({"slug": "alerts-first"})).await;
    health_is(&world, (200, "degraded"), &["Failed"]).await;
    exports(&world, "tenantry_tenants{state=\"Failed\",condition=\"Stalled\",reason=\"SlugTaken\"} 1.0")
        .await;
    // Once for each attempt.
    let failures = "tenantry_provision_step_failures_total{step=\"Register\",reason=\"SlugTaken\"} ";
    exports_one(&world, failures, |line| line.starts_with(failures)).await;
    world.fleet.delete("alerts-second").await;
    world.fleet.deleted("alerts-second", &tenant).await;
    health_is(&world, (200, "ready"), &[]).await;

    let second = world.second_server("alerts-health-2").await;
    exports(
        &world,
        "tenantry_database_servers{server=\"alerts-health-2\",condition=\"Ready\",reason=\"Connected\"} 1.0",
    )
    .await;
    second.stop(Stop::Fast).await.unwrap();
    health_is(&world, (200, "degraded"), &["ServerNotReady"]).await;
    second.start_again().await.unwrap();
    health_is(&world, (200, "ready"), &[]).await;

    let registry = world.installation.postgres();
    registry.stop(Stop::Fast).await.unwrap();
    exports(&world, "tenantry_registry_up 0.0").await;
    let failed =
        async || world.installation.operator().get("/health").await.is_ok_and(|(http, _)| http == 503);
    world.until("/health is failed", failed).await;
    registry.start_again().await.unwrap();
    exports(&world, "tenantry_registry_up 1.0").await;
    health_is(&world, (200, "ready"), &[]).await;
}
