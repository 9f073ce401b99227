//! An API server that fails, throttles, is slow or hangs: told by reasons of their own, and outlasted.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tenantry::api::conditions::reason;
use tenantry_dev::{
    PostgresOptions,
    interposer::{ApiTrouble, Trouble},
};

use crate::{reasons::workflow, world::World};

#[tokio::test]
async fn an_api_server_that_fails_or_throttles_is_waited_for() {
    let world = World::interposed("throttling", PostgresOptions::default()).await;
    let proxy = world.installation.interposer().unwrap().api();
    let secrets = |path: &str| path.contains("/namespaces/throttling/secrets");
    let rest = Duration::from_secs(7);
    world.apply("before", json!({})).await;
    world.fleet.ready("before").await;
    let troubles = [
        ("throttled", ApiTrouble::Throttle { retry_after: rest }, reason::THROTTLED),
        ("failing", ApiTrouble::Fail(StatusCode::INTERNAL_SERVER_ERROR), reason::KUBERNETES_API_UNREACHABLE),
        ("hanging", Trouble::Hang.into(), reason::KUBERNETES_API_UNREACHABLE),
    ];
    for (name, trouble, reason) in troubles {
        proxy.set_for(secrets, trouble);
        world.apply(name, json!({})).await;
        // The first step that asks for a Secret.
        let stopped = world.fleet.waits(name, "Seed", reason).await;
        if reason == reason::THROTTLED {
            let failed =
                workflow(&stopped).steps.into_iter().find_map(|step| step.message.and(step.finished_at));
            let pause = workflow(&stopped).next_attempt_at.unwrap().0.duration_since(failed.unwrap().0);
            assert!(pause.as_secs_f64() >= rest.as_secs_f64(), "{pause}");
        }
        proxy.set(Trouble::Pass);
        world.fleet.goes_on(name, &stopped).await;
    }
}

#[tokio::test]
async fn an_api_server_that_throttles_everything_or_is_slow_ends_no_operator() {
    let world = World::interposed("throttling-all", PostgresOptions::default()).await;
    let proxy = world.installation.interposer().unwrap().api();
    let process = || world.installation.operator().service().record().unwrap().pid;
    let running = process();
    world.apply("before", json!({})).await;
    world.fleet.ready("before").await;
    let asked = proxy.totals().requests;
    proxy.set(ApiTrouble::Throttle { retry_after: Duration::from_secs(1) });
    world.apply("throttled", json!({})).await;
    world.until("it was tried", async || proxy.totals().requests >= asked + 5).await;
    proxy.set(Trouble::Pass);
    world.fleet.ready("throttled").await;

    proxy.set(Trouble::Delay(Duration::from_millis(400)));
    world.apply("slow", json!({})).await;
    let slow = workflow(&world.fleet.ready("slow").await);
    assert_eq!((slow.attempt, process()), (1, running));
}
