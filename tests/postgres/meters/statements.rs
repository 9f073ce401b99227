//! The effect of each kind of statement on a counter, and the error that the application gets.

use tenantry::{
    api::reason::Reason,
    domain::{access::AccessLevel, usage::entitlements::Entitlements},
    postgres::tenant::{
        credentials::generate_password,
        seed::{AdminSeed, OneTimeSecret, Seed},
    },
};

use super::{Limited, check, entitlements, reported, run, state};
use crate::servers::SERVERS;

/// A statement and the number of users after it; `None` if the limit of 3 refuses it.
const STEPS: &[(&str, Option<i64>)] = &[
    ("INSERT INTO users (email) VALUES ('a@x.example'), ('b@x.example')", Some(2)),
    ("INSERT INTO users (email) VALUES ('c@x.example'), ('d@x.example')", None),
    ("INSERT INTO users (email) SELECT 'z@x.example' WHERE false", Some(2)),
    ("BEGIN; INSERT INTO users (email) VALUES ('c@x.example'); ROLLBACK", Some(2)),
    (
        "BEGIN; SAVEPOINT s; INSERT INTO users (email) VALUES ('c@x.example'); ROLLBACK TO s;
         INSERT INTO users (email) VALUES ('d@x.example'); COMMIT",
        Some(3),
    ),
    ("INSERT INTO users (email) VALUES ('a@x.example') ON CONFLICT DO NOTHING", Some(3)),
    (
        "INSERT INTO users (email) VALUES ('a@x.example'), ('b@x.example') ON CONFLICT (email) DO UPDATE SET name = 'x'",
        Some(3),
    ),
    (
        "INSERT INTO users (email) VALUES ('a@x.example'), ('e@x.example') ON CONFLICT (email) DO UPDATE SET name = 'x'",
        None,
    ),
    ("UPDATE users SET name = 'y'", Some(3)),
    ("UPDATE users SET id = gen_random_uuid() WHERE email = 'a@x.example'", Some(3)),
    // An insert and a delete in one statement, in either order.
    (
        "WITH gone AS (DELETE FROM users WHERE email = 'a@x.example' RETURNING 1)
         INSERT INTO users (email) SELECT 'f@x.example' FROM gone",
        Some(3),
    ),
    (
        "WITH gone AS (DELETE FROM users WHERE email = 'b@x.example')
         INSERT INTO users (email) VALUES ('g@x.example')",
        Some(3),
    ),
    (
        "WITH came AS (INSERT INTO users (email) VALUES ('h@x.example'))
         DELETE FROM users WHERE email = 'f@x.example'",
        Some(3),
    ),
    (
        "WITH gone AS (DELETE FROM users WHERE email = 'g@x.example')
         INSERT INTO users (email) VALUES ('i@x.example'), ('j@x.example')",
        None,
    ),
    (
        "MERGE INTO users u USING (VALUES ('g@x.example'), ('k@x.example')) AS v (email) ON u.email = v.email
         WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (email) VALUES (v.email)",
        Some(3),
    ),
    (
        "MERGE INTO users u USING (VALUES ('k@x.example'), ('l@x.example'), ('m@x.example')) AS v (email)
         ON u.email = v.email
         WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (email) VALUES (v.email)",
        None,
    ),
    // Earlier deletions in the same transaction free exactly as many rows.
    (
        "BEGIN; DELETE FROM users WHERE email = 'k@x.example'; INSERT INTO users (email) VALUES ('n@x.example'); COMMIT",
        Some(3),
    ),
    (
        "BEGIN; DELETE FROM users WHERE email = 'n@x.example';
         INSERT INTO users (email) VALUES ('o@x.example'), ('p@x.example'); COMMIT",
        None,
    ),
    ("DELETE FROM users WHERE email = 'none@x.example'", Some(3)),
    ("DELETE FROM users WHERE email = 'n@x.example'", Some(2)),
    ("DELETE FROM users", Some(0)),
];

#[tokio::test]
async fn every_kind_of_statement_is_counted() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_statements", &[("users", Some(3))]).await;
        let mut session = limited.session().await;
        let mut now = 0;
        for (statement, expected) in STEPS {
            let outcome = state(run(&mut session, *statement).await);
            assert_eq!(outcome, if expected.is_some() { "" } else { "TNLIM" }, "{statement}");
            run(&mut session, "ROLLBACK").await.unwrap();
            now = expected.unwrap_or(now);
            check(&mut session, "users", "users", now).await;
        }
    }
}

#[tokio::test]
async fn error_names_the_limit_and_the_amounts() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_refused", &[("users", Some(5))]).await;
        let mut session = limited.session().await;
        let five = "INSERT INTO users (email) SELECT n || '@x.example' FROM generate_series(1, 5) AS n";
        run(&mut session, five).await.unwrap();
        let error = run(&mut session, "INSERT INTO users (email) VALUES ('f@x.example')").await.unwrap_err();
        let error = reported(&error);
        assert_eq!(error.code(), "TNLIM");
        assert_eq!(error.message(), "limit \"users\" reached: 5 of 5 in use, 1 more refused");
        assert_eq!(error.constraint(), Some("users"));
        assert_eq!((error.schema(), error.table()), (Some("public"), Some("users")));
        assert!(error.hint().unwrap().contains("users"), "{error:?}");

        // A limit below the usage: reads and deletes are allowed, growth is refused.
        assert_eq!(limited.apply(&[("users", Some(2))]).await["users"], 5);
        run(&mut session, "SELECT * FROM users; UPDATE users SET name = 'x'").await.unwrap();
        let error = run(&mut session, "INSERT INTO users (email) VALUES ('f@x.example'), ('g@x.example')");
        let error = error.await.unwrap_err();
        assert_eq!(reported(&error).message(), "limit \"users\" reached: 5 of 2 in use, 2 more refused");
        for left in [4, 3, 2, 1] {
            let one = format!("DELETE FROM users WHERE email = '{}@x.example'", left + 1);
            run(&mut session, one).await.unwrap();
            check(&mut session, "users", "users", left).await;
            let again = run(&mut session, "INSERT INTO users (email) VALUES ('f@x.example')").await;
            assert_eq!(state(again), if left == 1 { "" } else { "TNLIM" }, "{left} left");
        }

        // The limit is raised, unlimited, removed, and all limits are removed.
        for (limits, allowed) in [
            (&[("users", Some(3))][..], true),
            (&[("users", None)], true),
            (&[], true),
            (&[("users", Some(0))], false),
        ] {
            limited.apply(limits).await;
            let insert = "INSERT INTO users (email) VALUES (gen_random_uuid() || '@y.example')";
            assert_eq!(state(run(&mut session, insert).await).is_empty(), allowed, "{limits:?}");
        }
    }
}

#[tokio::test]
async fn updates_that_move_rows_are_counted() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_moves", &[("users", None), ("projects", Some(2))]).await;
        let mut session = limited.session().await;
        for (statement, expected) in [
            ("INSERT INTO projects (name) VALUES ('a'), ('b')", Some(2)),
            ("INSERT INTO projects (name, archived_at) VALUES ('c', now()), ('d', now())", Some(2)),
            ("INSERT INTO projects (name) VALUES ('e')", None),
            ("UPDATE projects SET archived_at = NULL WHERE name = 'c'", None),
            // One row enters, one leaves.
            (
                "UPDATE projects SET archived_at = CASE WHEN name = 'a' THEN now() END WHERE name IN ('a', 'c')",
                Some(2),
            ),
            ("UPDATE projects SET name = name || '!'", Some(2)),
            ("UPDATE projects SET archived_at = now()", Some(0)),
            ("DELETE FROM projects WHERE name = 'd!'", Some(0)),
            ("UPDATE projects SET archived_at = NULL", None),
            ("UPDATE projects SET archived_at = NULL WHERE name IN ('a!', 'b!')", Some(2)),
            ("DELETE FROM projects", Some(0)),
            // By an upsert, and by a foreign key.
            (
                "INSERT INTO users (id, email) VALUES ('00000000-0000-0000-0000-000000000001', 'a@x.example');
                 INSERT INTO projects (id, name, owner_id) SELECT id, 'p', id FROM users",
                Some(1),
            ),
            (
                "INSERT INTO projects (id, name) SELECT id, 'q' FROM users
                 ON CONFLICT (id) DO UPDATE SET archived_at = now()",
                Some(0),
            ),
            ("DELETE FROM users; UPDATE projects SET archived_at = NULL", Some(1)),
        ] {
            let outcome = state(run(&mut session, statement).await);
            assert_eq!(outcome, if expected.is_some() { "" } else { "TNLIM" }, "{statement}");
            if let Some(expected) = expected {
                check(&mut session, "projects WHERE archived_at IS NULL", "projects", expected).await;
            }
        }
    }
}

#[tokio::test]
async fn deletes_with_less_access_are_counted() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_shrinks", &[("users", Some(2))]).await;
        let two = "INSERT INTO users (email) VALUES ('a@x.example'), ('b@x.example')";
        run(&mut limited.session().await, two).await.unwrap();
        limited.apply(&[("users", Some(0))]).await;
        let placement = &limited.tenant.placement;
        limited.server.set_access(placement, AccessLevel::ShrinkOnly).await.unwrap();
        let mut session = limited.session().await;
        run(&mut session, "DELETE FROM users WHERE email = 'a@x.example'").await.unwrap();
        check(&mut session, "users", "users", 1).await;
    }
}

#[tokio::test]
async fn admins_over_the_limit_are_refused_with_a_reason() {
    let admins = |count: usize| -> Vec<AdminSeed> {
        let admin = |number| AdminSeed {
            email: format!("{number}@x.example"),
            name: None,
            offer: OneTimeSecret::ResetToken(generate_password()),
            expires_at: jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1),
        };
        (0..count).map(admin).collect()
    };
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_six_admins", &[("users", Some(5))]).await;
        let seed = async |count, limits: Option<&Entitlements>| {
            let seed = Seed {
                settings: Default::default(),
                admins: admins(count),
                demo_data: false,
                credentials_only: false,
            };
            limited.server.seed(&limited.tenant.placement, &seed, limits).await
        };
        let error = seed(6, None).await.unwrap_err();
        assert_eq!((error.reason(), error.sql_state().as_deref()), (Reason::LimitReached, Some("TNLIM")));
        assert!(error.is_permanent());
        assert_eq!(
            error.to_string(),
            "seed the database: limit \"users\" reached: 5 of 5 in use, 1 more refused [TNLIM]"
        );
        for _ in 0..2 {
            let usage = seed(5, None).await.unwrap().usage;
            assert_eq!(usage, [("projects".to_owned(), 0), ("users".to_owned(), 5)].into());
        }
        // Limits that come with a seed apply to it.
        let six = entitlements(&[("users", Some(6))]);
        let error = seed(7, Some(&six)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "seed the database: limit \"users\" reached: 6 of 6 in use, 1 more refused [TNLIM]"
        );
        assert_eq!(seed(6, Some(&six)).await.unwrap().usage["users"], 6);
    }
}
