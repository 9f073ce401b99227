//! What the registry keeps, and what it removes.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::{
    domain::{identity::TenantId, retention::Retention},
    registry::{Registry, Removed},
};
use uuid::Uuid;

use crate::system::{System, created, refused, tenant};

/// A tenant with a history of a year and more.
async fn with_history(registry: &Registry, session: &mut PgConnection) -> Uuid {
    let TenantId(id) = created(registry, &tenant("old")).await.id;
    for statement in [
        // By day: a success, a failure that was repaired, and a failure.
        "INSERT INTO workflows (tenant_id, kind, holder, claim, started_at, finished_at, outcome, failures)
         SELECT '{id}', 'Repair', 'x', 0, at, at, outcome, failures
         FROM generate_series(now() - interval '399 days 1 hour', now(), '1 day') AS at,
             (VALUES ('Succeeded', 0), ('Succeeded', 2), ('Failed', 1)) AS o (outcome, failures)",
        "INSERT INTO workflow_steps (workflow_id, name, state, attempts)
         SELECT id, 'Verify', 'Succeeded', 1 FROM workflows",
        "INSERT INTO activity (tenant_id, at, action, actor)
         SELECT '{id}', now() - interval '500 days' + n * interval '1 day', 'Noted', 'x' FROM generate_series(1, 499) n",
        "INSERT INTO usage_by_day (tenant_id, day, name, minimum, maximum, last, samples)
         SELECT '{id}', current_date - n, 'users', 1, 1, 1, 1 FROM generate_series(0, 999) n",
    ] {
        session.execute(AssertSqlSafe(statement.replace("{id}", &id.to_string()))).await.unwrap();
    }
    id
}

async fn count(session: &mut PgConnection, what: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {what}")))
        .fetch_one(session)
        .await
        .unwrap()
}

/// Removes until nothing is left to be removed.
async fn remove(registry: &Registry, keep: &Retention) -> Removed {
    let tenants = registry.tenants_after(None).await.unwrap();
    let mut all = Removed::default();
    for _ in 0..20 {
        let removed = registry.remove_outdated(&tenants, keep, Timestamp::now()).await.unwrap();
        if removed.is_nothing() {
            return all;
        }
        all = all.and(removed);
    }
    panic!("it never ends: {all:?}");
}

#[tokio::test]
async fn successes_go_first_and_activity_is_archived() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let mut session = system.session().await;
        let before = with_history(&registry, &mut session).await;
        let keep = Retention::default();
        let written = count(&mut session, "activity").await;
        let removed = remove(&registry, &keep).await;

        assert_eq!(count(&mut session, "workflows WHERE failures = 0").await, 30);
        // Both kinds of failures together, and no more than the number that a tenant keeps.
        assert_eq!(count(&mut session, "workflows WHERE failures > 0").await, 200);
        assert_eq!(
            count(&mut session, "workflow_steps").await,
            count(&mut session, "workflows").await,
            "steps go with their workflow"
        );
        assert_eq!(count(&mut session, "activity WHERE at < now() - interval '400 days'").await, 0);
        let (kept, archived) =
            (count(&mut session, "activity").await, count(&mut session, "activity_archive").await);
        assert_eq!((removed.archived, kept + archived), (archived, written));
        assert_eq!(count(&mut session, "usage_by_day").await, 801);
        assert_eq!(remove(&registry, &keep).await, Removed::default());

        // By number.
        let few = Retention { activity_per_tenant: Some(10), workflows_per_tenant: Some(5), ..keep };
        remove(&registry, &few).await;
        assert_eq!(count(&mut session, "workflows").await, 10);
        let of_tenant = format!("activity WHERE tenant_id = '{before}'");
        assert_eq!(count(&mut session, &of_tenant).await, 10);
        assert_eq!(
            count(&mut session, "activity").await + count(&mut session, "activity_archive").await,
            written
        );
    }
}

#[tokio::test]
async fn for_ever_is_for_ever_and_last_and_open_workflows_stay() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let mut session = system.session().await;
        let id = with_history(&registry, &mut session).await;
        let for_ever = Retention {
            workflow_days: None,
            failed_workflow_days: None,
            workflows_per_tenant: None,
            activity_days: None,
            activity_per_tenant: None,
            usage_days: None,
        };
        assert_eq!(remove(&registry, &for_ever).await, Removed::default());

        session.execute("DELETE FROM workflow_steps").await.unwrap();
        session
            .execute("DELETE FROM workflows WHERE started_at > now() - interval '390 days'")
            .await
            .unwrap();
        let open = "INSERT INTO workflows (tenant_id, kind, holder, claim, started_at)
                    VALUES ($1, 'Update', 'x', 0, now() - interval '398 days')";
        sqlx::query(open).bind(id).execute(&mut session).await.unwrap();
        remove(&registry, &Retention::default()).await;
        assert_eq!(count(&mut session, "workflows WHERE finished_at IS NULL").await, 1);
        assert_eq!(count(&mut session, "workflows WHERE finished_at IS NOT NULL").await, 1, "the last one");
    }
}

#[tokio::test]
async fn activity_is_removed_only_when_archive_has_it() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let mut session = system.session().await;
        created(&registry, &tenant("kept")).await;
        assert_eq!(refused(&mut session, "DELETE FROM activity").await, "TN003");
        let another = "INSERT INTO activity_archive (id, tenant_id, at, action, actor, reason, details, correlation_id)
                       SELECT id, tenant_id, at, action, 'another', reason, details, correlation_id FROM activity";
        assert_eq!(refused(&mut session, another).await, "TN003");
        assert_eq!(refused(&mut session, "UPDATE activity SET actor = 'another'").await, "TN003");
        assert_eq!(refused(&mut session, "TRUNCATE activity").await, "TN003");
    }
}
