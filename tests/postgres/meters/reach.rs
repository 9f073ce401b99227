//! Ways in which a tenant's login may try to evade its limits.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::domain::access::AccessLevel;

use super::{Limited, check, run, state};
use crate::servers::SERVERS;

/// Refused at every access level with an SQLSTATE of a missing right or object.
const REFUSED: &[&str] = &[
    "INSERT INTO tenantry.limits VALUES ('users', 99)",
    "UPDATE tenantry.limits SET maximum = 99",
    "DELETE FROM tenantry.limits",
    "INSERT INTO tenantry.counters VALUES ('mine', 0)",
    "UPDATE tenantry.counters SET used = 0",
    "DELETE FROM tenantry.counters",
    "DELETE FROM tenantry.meters",
    "UPDATE tenantry.plan SET features = '{sso}'",
    "UPDATE tenantry.entitlements SET plan = 'enterprise'",
    "INSERT INTO tenantry.entitlements (plan) VALUES ('enterprise')",
    "TRUNCATE tenantry.limits",
    "TRUNCATE users",
    "MERGE INTO tenantry.limits l USING (VALUES (1)) AS v ON true WHEN MATCHED THEN UPDATE SET maximum = 99",
    "COPY tenantry.limits FROM STDIN",
    "SELECT tenantry.meter('users', 'users', 'false')",
    "SELECT tenantry.recount('users')",
    "SELECT tenantry.count_rows('users')",
    "SELECT tenantry.add_usage('users', -99, 'users')",
    "SELECT tenantry.is_within('users', 99)",
    "SELECT tenantry.family('users')",
    "ALTER TABLE users DISABLE TRIGGER ALL",
    "ALTER TABLE users DISABLE TRIGGER tenantry_users_insert",
    "DROP TRIGGER tenantry_users_insert ON users",
    "ALTER TRIGGER tenantry_users_insert ON users RENAME TO t",
    "CREATE TRIGGER t AFTER INSERT ON users FOR EACH STATEMENT EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TRIGGER t BEFORE UPDATE ON tenantry.counters FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE r AS ON UPDATE TO tenantry.counters DO INSTEAD NOTHING",
    "CREATE TABLE more () INHERITS (users)",
    "CREATE TEMP TABLE counters (name text, used bigint)",
    "SET session_replication_role = replica",
    "ALTER ROLE CURRENT_USER SET session_replication_role = replica",
    "ALTER ROLE CURRENT_USER CONNECTION LIMIT -1",
    "ALTER FUNCTION tenantry.add_usage SECURITY DEFINER",
    "CREATE OR REPLACE FUNCTION tenantry.add_usage(text, bigint, regclass) RETURNS void LANGUAGE sql AS ''",
    "DO 'BEGIN PERFORM tenantry.recount(''users''); END'",
    "SELECT FROM tenantry.limits FOR KEY SHARE",
    "SELECT FROM tenantry.plan FOR UPDATE",
    "SELECT FROM tenantry.counters FOR SHARE",
];

/// All lock modes beyond ACCESS SHARE, which any SELECT takes; from 16 on, some need other rights.
const LOCK_MODES: [&str; 7] = [
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
];

#[tokio::test]
async fn no_access_level_changes_limits_counters_or_triggers() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_reach", &[("users", Some(1))]).await;
        let placement = &limited.tenant.placement;
        for level in [AccessLevel::ReadWrite, AccessLevel::ShrinkOnly, AccessLevel::ReadOnly] {
            limited.server.set_access(placement, level).await.unwrap();
            let mut session = limited.session().await;
            for statement in REFUSED {
                let refused = state(run(&mut session, *statement).await);
                // 55000: a view that cannot be updated.
                assert!(["42501", "55000"].contains(&&*refused), "{level}, {statement}: {refused}");
            }
            for (mode, table) in LOCK_MODES.iter().flat_map(|mode| {
                ["limits", "counters", "meters", "plan", "entitlements"].map(|table| (mode, table))
            }) {
                let lock = format!("BEGIN; LOCK TABLE tenantry.{table} IN {mode} MODE");
                assert_eq!(state(run(&mut session, lock).await), "42501", "{level}: {table} {mode}");
                run(&mut session, "ROLLBACK").await.unwrap();
            }
            // The application may read these.
            let (plan, limits): (String, String) =
                sqlx::query_as("SELECT plan, limits::text FROM tenantry.entitlements")
                    .fetch_one(&mut session)
                    .await
                    .unwrap();
            assert_eq!((&*plan, &*limits), ("test", "{\"users\": 1}"));
        }
    }
}

/// The location of a counter's row is kept in a setting that the tenant may change.
#[tokio::test]
async fn settings_of_the_tenant_do_not_corrupt_counters() {
    for postgres in &*SERVERS {
        let limited =
            Limited::new(postgres, "tenant_settings", &[("users", Some(4)), ("projects", None)]).await;
        let mut session = limited.session().await;
        let places: Vec<String> = sqlx::query_scalar("SELECT ctid::text FROM tenantry.counters")
            .fetch_all(&mut session)
            .await
            .unwrap();
        let places = places.into_iter().chain(["(9,9)".into(), "(0,0)".into(), "nonsense".into()]);
        let mut added = 0;
        for place in places {
            run(&mut session, format!("SET tenantry.counter_users = '{place}'; BEGIN")).await.unwrap();
            let insert = "INSERT INTO users (email) VALUES (gen_random_uuid() || '@x.example')";
            match state(run(&mut session, insert).await).as_str() {
                "" => added += 1,
                // Only its own statement fails.
                "22P02" => assert_eq!(place, "nonsense"),
                other => panic!("{place}: {other}"),
            }
            run(&mut session, "COMMIT").await.unwrap();
            check(&mut session, "users", "users", added).await;
        }
        assert_eq!((added, limited.used("projects").await), (4, 0));
        run(&mut session, "SET tenantry.counter_users = '(0,1)'; SET search_path = public").await.unwrap();
        let more = "INSERT INTO users (email) VALUES ('more@x.example')";
        assert_eq!(state(run(&mut session, more).await), "TNLIM");
    }
}

#[tokio::test]
async fn tenant_lock_does_not_delay_a_change_of_limits() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_locks", &[("users", Some(9))]).await;
        let mut held: Vec<PgConnection> = Vec::new();
        for (index, level) in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"].iter().enumerate() {
            let mut session = limited.session().await;
            let seen = format!(
                "BEGIN ISOLATION LEVEL {level};
                 SELECT * FROM tenantry.limits, tenantry.plan, tenantry.counters, tenantry.entitlements;
                 LOCK TABLE tenantry.limits, tenantry.plan, tenantry.counters, tenantry.meters, tenantry.entitlements
                     IN ACCESS SHARE MODE;
                 SELECT pg_advisory_lock({index}), pg_advisory_xact_lock(7, {index})"
            );
            session.execute(AssertSqlSafe(seen)).await.unwrap();
            held.push(session);
        }
        // One session also locks the counter; the table itself is locked in the strongest available mode.
        let strongest = "INSERT INTO users (email) VALUES ('a@x.example'); SELECT * FROM users FOR UPDATE;
                         LOCK TABLE users IN ROW EXCLUSIVE MODE";
        run(&mut held[1], strongest).await.unwrap();
        let begun = Instant::now();
        assert_eq!(limited.apply(&[("users", Some(1))]).await["users"], 0);
        assert_eq!(limited.used("users").await, 0);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        run(&mut held[1], "COMMIT").await.unwrap();
        assert_eq!(limited.used("users").await, 1);
    }
}
