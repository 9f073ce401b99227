//! Eight concurrent sessions, which together add more users than the limit allows.

use std::{fmt::Write, sync::Arc};

use futures::future::try_join_all;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tokio::sync::Barrier;

use super::{Limited, check, run, state};
use crate::servers::SERVERS;

const SESSIONS: usize = 8;
/// Each session adds eight users, in statements of these sizes: the last ones reach the limit, in any order.
const CHUNKS: [usize; 5] = [3, 2, 1, 1, 1];
const LIMIT: i64 = 5;

#[derive(Clone, Copy, Debug)]
enum Way {
    Insert,
    Copy,
    Upsert,
    Merge,
    /// With an older snapshot, retried after each serialization failure.
    RepeatableRead,
    Serializable,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_sessions_reach_exactly_the_limit() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_overlap", &[("users", Some(LIMIT))]).await;
        let limited = Arc::new(limited);
        for way in [Way::Insert, Way::Copy, Way::Upsert, Way::Merge, Way::RepeatableRead, Way::Serializable] {
            let together = Arc::new(Barrier::new(SESSIONS));
            let sessions = (0..SESSIONS).map(|number| {
                tokio::spawn(add_in_rounds(Arc::clone(&limited), way, number, Arc::clone(&together)))
            });
            let added: usize = try_join_all(sessions).await.unwrap().into_iter().sum();
            assert_eq!(added, LIMIT as usize, "{way:?}");
            let mut session = limited.session().await;
            check(&mut session, "users", "users", LIMIT).await;
            run(&mut session, "DELETE FROM users").await.unwrap();
            check(&mut session, "users", "users", 0).await;
        }
    }
}

/// One transaction each, with savepoints, all open at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn long_transactions_with_savepoints_reach_exactly_the_limit() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_savepoints", &[("users", Some(LIMIT))]).await;
        let limited = Arc::new(limited);
        let together = Arc::new(Barrier::new(SESSIONS));
        let sessions = (0..SESSIONS).map(|number| {
            let (limited, together) = (Arc::clone(&limited), Arc::clone(&together));
            tokio::spawn(async move {
                let mut session = limited.session().await;
                run(&mut session, "BEGIN; SELECT FROM users").await.unwrap();
                together.wait().await;
                for user in 0..8 {
                    let insert = format!("INSERT INTO users (email) VALUES ('{user}@{number}.example')");
                    run(&mut session, "SAVEPOINT one").await.unwrap();
                    match state(run(&mut session, insert).await).as_str() {
                        "" => run(&mut session, "RELEASE one").await.unwrap(),
                        "TNLIM" => run(&mut session, "ROLLBACK TO one").await.unwrap(),
                        other => panic!("{other}"),
                    }
                }
                // Every second session rolls back.
                let end = if number % 2 == 0 { "ROLLBACK" } else { "COMMIT" };
                run(&mut session, end).await.unwrap();
            })
        });
        try_join_all(sessions).await.unwrap();
        check(&mut limited.session().await, "users", "users", LIMIT).await;
    }
}

/// Returns the number of added users.
async fn add_in_rounds(limited: Arc<Limited>, way: Way, number: usize, together: Arc<Barrier>) -> usize {
    let mut session = limited.session().await;
    let (mut first, mut added) = (0, 0);
    for size in CHUNKS {
        let emails: Vec<String> =
            (first..first + size).map(|user| format!("{user}@{number}.example")).collect();
        first += size;
        let begin = match way {
            Way::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM users",
            Way::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT FROM users",
            _ => "BEGIN; SELECT FROM users",
        };
        run(&mut session, begin).await.unwrap();
        together.wait().await;
        loop {
            let mut outcome = state(add(&mut session, way, &emails).await);
            if outcome.is_empty() {
                outcome = state(run(&mut session, "COMMIT").await);
            } else {
                run(&mut session, "ROLLBACK").await.unwrap();
            }
            match outcome.as_str() {
                "" => added += size,
                "TNLIM" => {}
                "40001" => {
                    run(&mut session, begin).await.unwrap();
                    continue;
                }
                other => panic!("{way:?}: {other}"),
            }
            break;
        }
    }
    added
}

async fn add(session: &mut PgConnection, way: Way, emails: &[String]) -> sqlx::Result<()> {
    let values = emails.iter().fold(String::new(), |mut text, email| {
        let _ = write!(text, "{}('{email}')", if text.is_empty() { "" } else { ", " });
        text
    });
    let statement = match way {
        Way::Insert | Way::RepeatableRead | Way::Serializable => {
            format!("INSERT INTO users (email) VALUES {values}")
        }
        Way::Upsert => format!(
            "INSERT INTO users (email) VALUES {values} ON CONFLICT (email) DO UPDATE SET name = 'again'"
        ),
        Way::Merge => format!(
            "MERGE INTO users u USING (VALUES {values}) AS v (email) ON u.email = v.email
             WHEN NOT MATCHED THEN INSERT (email) VALUES (v.email) WHEN MATCHED THEN UPDATE SET name = 'again'"
        ),
        Way::Copy => {
            let mut copy = session.copy_in_raw("COPY users (email) FROM STDIN").await?;
            copy.send((emails.join("\n") + "\n").into_bytes()).await?;
            return copy.finish().await.map(drop);
        }
    };
    session.execute(AssertSqlSafe(statement)).await.map(drop)
}
