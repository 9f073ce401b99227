//! The duration of suspensions.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use sqlx::Executor;
use tenantry::domain::access::AccessLevel;

use crate::servers::{Tenant, ready, set_up, start};

const TENANTS: usize = 50;
const SESSIONS: usize = 5;
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_busy_tenants_are_suspended_within_seconds() {
    for major in [15, 18] {
        let settings = vec![("max_connections".to_owned(), "300".to_owned())];
        let postgres = set_up(start(major, settings).await).await;
        let server = ready(&postgres).await;
        let tenants: Vec<Tenant> =
            (0..TENANTS).map(|number| Tenant::new(&format!("tenant_pace_{number}"))).collect();
        let mut sessions = Vec::new();
        for tenant in &tenants {
            tenant.provision(&server, 1).await;
            for _ in 0..SESSIONS {
                let mut session = tenant.session(&postgres).await.unwrap();
                session.execute("BEGIN; DELETE FROM users").await.unwrap();
                sessions.push(session);
            }
        }
        let start = Instant::now();
        let mut each: Vec<Duration> = futures::stream::iter(&tenants)
            .map(async |tenant| {
                let start = Instant::now();
                server.set_access(&tenant.placement, AccessLevel::Blocked).await.map(|()| start.elapsed())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
            .unwrap();
        let all = start.elapsed();
        each.sort();
        println!(
            "PostgreSQL {major}: {TENANTS} tenants with {SESSIONS} sessions each blocked in {all:?}, {AT_ONCE} at once: \
             each {:?} in the middle, {:?} at most",
            each[TENANTS / 2],
            each[TENANTS - 1]
        );
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'tenant\\_pace\\_%'",
        )
        .fetch_one(&mut postgres.connect("postgres").await.unwrap())
        .await
        .unwrap();
        assert_eq!(left, 0);
        for tenant in &tenants {
            server.verify_refused(&tenant.placement, &tenant.password).await.unwrap();
        }
        // On an idle machine, it is two seconds or three.
        assert!(all < Duration::from_secs(60), "{all:?}");
    }
}
