//! Transactions whose snapshot is older than the limits.

use sqlx::Connection;

use super::{Limited, check, run, state};
use crate::servers::SERVERS;

const ONE: &str = "INSERT INTO users (email) VALUES (gen_random_uuid() || '@x.example')";

#[tokio::test]
async fn old_snapshot_does_not_grow_by_old_limits() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_snapshot", &[("users", Some(9))]).await;
        for level in ["REPEATABLE READ", "SERIALIZABLE"] {
            for has_written in [false, true] {
                // A limit is lowered, and added where there was none.
                for before in [&[("users", Some(9))][..], &[]] {
                    limited.apply(before).await;
                    let mut session = limited.session().await;
                    let begin = format!("BEGIN ISOLATION LEVEL {level}; SELECT FROM users");
                    run(&mut session, begin).await.unwrap();
                    if has_written {
                        run(&mut session, ONE).await.unwrap();
                    }
                    limited.apply(&[("users", Some(0))]).await;
                    run(&mut session, "SELECT * FROM users; SAVEPOINT here").await.unwrap();
                    assert_eq!(state(run(&mut session, ONE).await), "40001", "{level} {before:?}");
                    // Deletions are allowed, and its earlier statements count as earlier.
                    run(&mut session, "ROLLBACK TO here; DELETE FROM users; COMMIT").await.unwrap();
                    check(&mut session, "users", "users", 0).await;
                    session.close().await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn current_snapshot_grows_by_current_limits() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_present", &[("users", Some(3))]).await;
        let mut session = limited.session().await;
        for level in ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
            run(&mut session, format!("BEGIN ISOLATION LEVEL {level}")).await.unwrap();
            for _ in 0..3 {
                run(&mut session, ONE).await.unwrap();
            }
            assert_eq!(state(run(&mut session, ONE).await), "TNLIM", "{level}");
            run(&mut session, "ROLLBACK").await.unwrap();
        }
        // Read committed: a change applies from the next statement on.
        run(&mut session, "BEGIN").await.unwrap();
        run(&mut session, ONE).await.unwrap();
        limited.apply(&[("users", Some(1))]).await;
        assert_eq!(state(run(&mut session, ONE).await), "TNLIM");
        run(&mut session, "ROLLBACK").await.unwrap();
        // The same limits again change nothing, and open transactions continue.
        run(&mut session, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM users").await.unwrap();
        limited.apply(&[("users", Some(1))]).await;
        run(&mut session, ONE).await.unwrap();
        run(&mut session, "COMMIT").await.unwrap();
        check(&mut session, "users", "users", 1).await;
    }
}
