//! An API server that fails, throttles, is slow or does not respond.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::json;

use tenantry_dev::{
    PostgresOptions,
    interposer::{ApiFault, Fault},
};
use tenantry_test_support::World;

use crate::reasons::{goes_on, waits, workflow};

#[tokio::test]
async fn failing_or_throttling_api_server_is_reported_until_it_recovers() {
    let world = World::interposed("throttling", PostgresOptions::default()).await;
    let proxy = world.installation.interposer().unwrap().api();
    let secrets = |path: &str| path.contains("/namespaces/throttling/secrets");
    let rest = Duration::from_secs(7);
    world.apply("before", json!({})).await;
    world.fleet.ready("before").await;
    let troubles = [
        ("throttled", ApiFault::Throttle { retry_after: rest }, "Throttled"),
        ("failing", ApiFault::Fail(StatusCode::INTERNAL_SERVER_ERROR), "KubernetesApiUnreachable"),
        ("hanging", Fault::Hang.into(), "KubernetesApiUnreachable"),
    ];
    for (name, trouble, reason) in troubles {
        proxy.set_for(secrets, trouble);
        world.apply(name, json!({})).await;
        // The first step that asks for a Secret.
        let stopped = waits(&world.fleet, name, "Seed", reason).await;
        if reason == "Throttled" {
            let failed =
                workflow(&stopped).steps.into_iter().find_map(|step| step.message.and(step.finished_at));
            let pause = workflow(&stopped).next_attempt_at.unwrap().0.duration_since(failed.unwrap().0);
            assert!(pause.as_secs_f64() >= rest.as_secs_f64(), "{pause}");
        }
        proxy.set(Fault::Pass);
        goes_on(&world.fleet, name, &stopped).await;
    }
}

#[tokio::test]
async fn operator_survives_throttling_and_slow_api_server() {
    let world = World::interposed("throttling-all", PostgresOptions::default()).await;
    let proxy = world.installation.interposer().unwrap().api();
    let process = || world.installation.operator().service().record().unwrap().pid;
    let running = process();
    world.apply("before", json!({})).await;
    world.fleet.ready("before").await;
    // Everything but the Lease: a leader that cannot renew it ends (`outages.rs`), and how long the test takes is open.
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let throttled = move |path: &str| {
        counted.fetch_add(usize::from(path.contains("/tenants/throttled")), Ordering::Relaxed);
        !path.contains("/leases")
    };
    proxy.set_for(throttled, ApiFault::Throttle { retry_after: Duration::from_secs(1) });
    world.apply("throttled", json!({})).await;
    world.until("it was tried", async || asked.load(Ordering::Relaxed) >= 5).await;
    proxy.set(Fault::Pass);
    world.fleet.ready("throttled").await;

    proxy.set(Fault::Delay(Duration::from_millis(400)));
    world.apply("slow", json!({})).await;
    let slow = workflow(&world.fleet.ready("slow").await);
    assert_eq!((slow.attempt, process()), (1, running));
}
