//! Random statements in several sessions: the counter equals the number of rows.

use std::sync::Arc;

use futures::future::try_join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::PgConnection;

use super::{Limited, check, run, state};
use crate::servers::SERVERS;

const SESSIONS: u64 = 5;
const TRANSACTIONS: usize = 60;
const LIMIT: i64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counter_equals_number_of_rows() {
    for postgres in &*SERVERS {
        let limits = [("items", Some(LIMIT)), ("users", Some(LIMIT))];
        let limited = Limited::new(postgres, "tenant_mixture", &limits).await;
        limited
            .migrate(
                "CREATE TABLE items (id int, done boolean NOT NULL DEFAULT false, owner uuid) PARTITION BY HASH (id);
                 CREATE TABLE items_0 PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE items_1 PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 1);
                 ALTER TABLE items ADD FOREIGN KEY (owner) REFERENCES users ON DELETE CASCADE;
                 SELECT tenantry.meter('items', 'items', 'NOT done')",
            )
            .await
            .unwrap();
        // They block each other all the time: deadlocks are detected sooner than by default.
        let mut admin = postgres.connect("postgres").await.unwrap();
        run(&mut admin, "ALTER ROLE tenant_mixture_app SET deadlock_timeout = '20ms'").await.unwrap();
        let limited = Arc::new(limited);
        let seed = rand::random::<u64>();
        println!("seed {seed}");
        let sessions = (0..SESSIONS).map(|number| {
            let limited = Arc::clone(&limited);
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
                let mut session = limited.session().await;
                for _ in 0..TRANSACTIONS {
                    transaction(&mut session, &mut random).await;
                }
            })
        });
        try_join_all(sessions).await.unwrap();
        let mut session = limited.session().await;
        for (table, limit) in [("users", "users"), ("items WHERE NOT done", "items")] {
            let used = limited.used(limit).await;
            assert!((0..=LIMIT).contains(&used), "{limit}: {used}");
            check(&mut session, table, limit, used).await;
        }
        run(&mut session, "DELETE FROM users; DELETE FROM items").await.unwrap();
        check(&mut session, "users", "users", 0).await;
        check(&mut session, "items", "items", 0).await;
    }
}

/// Some statements, each in a savepoint, at a random isolation level, committed or rolled back.
async fn transaction(session: &mut PgConnection, random: &mut StdRng) {
    let level = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][random.random_range(0..3)];
    run(session, format!("BEGIN ISOLATION LEVEL {level}")).await.unwrap();
    for _ in 0..random.random_range(1..5) {
        run(session, "SAVEPOINT one").await.unwrap();
        let statement = statement(random);
        let outcome = state(run(session, &statement).await);
        // The owner of a new item may be deleted by another session meanwhile.
        let is_orphan = outcome == "23503" && statement.contains("FROM users LIMIT");
        // Concurrent writers get serialization failures and deadlocks.
        let is_expected = is_orphan || ["", "TNLIM", "40001", "40P01"].contains(&&*outcome);
        assert!(is_expected, "{statement}: {outcome}");
        if !outcome.is_empty() || random.random_bool(0.2) {
            run(session, "ROLLBACK TO one").await.unwrap();
        }
    }
    let end = if random.random_bool(0.2) { "ROLLBACK" } else { "COMMIT" };
    let outcome = state(run(session, end).await);
    assert!(["", "40001"].contains(&&*outcome), "{end}: {outcome}");
    run(session, "ROLLBACK").await.unwrap();
}

fn statement(random: &mut StdRng) -> String {
    let (id, many) = (random.random_range(0..60), random.random_range(0..9));
    match random.random_range(0..12) {
        0 | 1 => format!("INSERT INTO items SELECT {id} + n FROM generate_series(1, {many}) AS n"),
        2 => format!("DELETE FROM items WHERE id = {id}"),
        3 => format!("UPDATE items SET done = NOT done WHERE id % 9 = {many}"),
        4 => format!("UPDATE items SET id = id + {many} WHERE id < {id}"),
        5 => format!("DELETE FROM items_{} WHERE id < {id}", many % 2),
        6 => format!("INSERT INTO users (email) VALUES ('{id}@x.example') ON CONFLICT (email) DO UPDATE SET name = 'x'"),
        7 => format!("INSERT INTO items SELECT {id}, false, id FROM users LIMIT {many}"),
        8 => format!("DELETE FROM users WHERE email = '{id}@x.example'"),
        9 => format!(
            "MERGE INTO items i USING (SELECT DISTINCT n FROM generate_series({id}, {id} + {many}) AS n) AS v ON i.id = v.n AND i.done
             WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (v.n)"
        ),
        10 => format!(
            "WITH gone AS (DELETE FROM items WHERE id < {id} RETURNING id) INSERT INTO items SELECT id + 1 FROM gone LIMIT {many}"
        ),
        _ => format!("INSERT INTO users (email) SELECT gen_random_uuid() || '@x.example' FROM generate_series(1, {many})"),
    }
}
