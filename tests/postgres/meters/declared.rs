//! Meters that modules declare: on tables with rows, with partitions, several for one limit, repeatedly.

use super::{Limited, check, reported, run, state};
use crate::servers::SERVERS;

#[tokio::test]
async fn existing_rows_are_counted_when_a_meter_is_declared() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_declared", &[("seats", Some(4))]).await;
        let table = "CREATE TABLE seats (id int, free boolean, used bigint, name text, limit_name text);
                     INSERT INTO seats SELECT n, n > 3 FROM generate_series(1, 5) AS n;";
        let declare = "SELECT tenantry.meter('seats', 'seats', 'NOT free -- those that are taken')";
        limited.migrate(&format!("{table} {declare}")).await.unwrap();
        let taken = "seats WHERE NOT free";
        let mut session = limited.session().await;
        check(&mut session, taken, "seats", 3).await;
        run(&mut session, "INSERT INTO seats VALUES (6, false), (7, true), (8, NULL)").await.unwrap();
        check(&mut session, taken, "seats", 4).await;
        assert_eq!(state(run(&mut session, "UPDATE seats SET free = false").await), "TNLIM");
        // Repeated, and after a rename: nothing is counted twice.
        limited.migrate(declare).await.unwrap();
        limited.migrate("ALTER TABLE seats RENAME TO places").await.unwrap();
        limited.migrate("SELECT tenantry.meter('seats', 'places', 'NOT free')").await.unwrap();
        run(&mut session, "DELETE FROM places WHERE id IN (1, 4, 8)").await.unwrap();
        check(&mut session, "places WHERE NOT free", "seats", 3).await;
        // Without the condition, all rows count, and the triggers for the condition are dropped.
        limited.migrate("SELECT tenantry.meter('seats', 'places')").await.unwrap();
        check(&mut session, "places", "seats", 5).await;
        run(&mut session, "UPDATE places SET free = NOT free").await.unwrap();
        check(&mut session, "places", "seats", 5).await;
        assert_eq!(state(run(&mut session, "INSERT INTO places VALUES (9, true)").await), "TNLIM");
        limited.migrate("TRUNCATE places").await.unwrap();
        check(&mut session, "places", "seats", 0).await;
    }
}

#[tokio::test]
async fn partitions_are_counted_by_every_name() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_partitions", &[("parts", Some(5))]).await;
        limited
            .migrate(
                "CREATE TABLE parts (day int, note text) PARTITION BY RANGE (day);
                 CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
                 CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (day);
                 CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES FROM (10) TO (15);
                 CREATE TABLE apart (note text, day int);
                 INSERT INTO apart (day) VALUES (21), (22);
                 SELECT tenantry.meter('parts', 'parts')",
            )
            .await
            .unwrap();
        let mut session = limited.session().await;
        let mut now = 0;
        for (statement, expected) in [
            ("INSERT INTO parts VALUES (1), (11)", Some(2)),
            ("INSERT INTO parts_1 VALUES (2)", Some(3)),
            ("INSERT INTO parts_2a VALUES (12)", Some(4)),
            ("INSERT INTO parts_2 VALUES (13), (14)", None),
            ("INSERT INTO parts_1 VALUES (3), (4)", None),
            ("INSERT INTO parts VALUES (3), (14)", None),
            // Rows move to another partition, and back.
            ("UPDATE parts SET day = 12 WHERE day = 1", Some(4)),
            ("UPDATE parts SET day = day - 10 WHERE day > 10", Some(4)),
            ("DELETE FROM parts_1 WHERE day = 1", Some(3)),
            ("DELETE FROM parts WHERE day = 9", Some(3)),
        ] {
            let outcome = state(run(&mut session, statement).await);
            assert_eq!(outcome, if expected.is_some() { "" } else { "TNLIM" }, "{statement}");
            now = expected.unwrap_or(now);
            check(&mut session, "parts", "parts", now).await;
        }
        let attach = "ALTER TABLE parts ATTACH PARTITION apart FOR VALUES FROM (20) TO (30)";
        let again = "SELECT tenantry.meter('parts', 'parts')";
        limited.migrate(&format!("{attach}; {again}")).await.unwrap();
        check(&mut session, "parts", "parts", 5).await;
        assert_eq!(state(run(&mut session, "INSERT INTO apart (day) VALUES (23)").await), "TNLIM");
        limited.migrate(&format!("ALTER TABLE parts DETACH PARTITION apart; {again}")).await.unwrap();
        run(&mut session, "DELETE FROM apart").await.unwrap();
        check(&mut session, "parts", "parts", 3).await;
        run(&mut session, "INSERT INTO parts VALUES (13)").await.unwrap();
        for (truncate, left) in [("parts_2", 3), ("parts", 0)] {
            limited.migrate(&format!("TRUNCATE {truncate}")).await.unwrap();
            check(&mut session, "parts", "parts", left).await;
        }
    }
}

#[tokio::test]
async fn cascaded_deletes_are_counted() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_cascade", &[("members", Some(6))]).await;
        limited
            .migrate(
                "CREATE TABLE teams (id int PRIMARY KEY);
                 CREATE TABLE members (team int REFERENCES teams ON DELETE CASCADE ON UPDATE CASCADE, name text);
                 CREATE TABLE notes () INHERITS (members);
                 SELECT tenantry.meter('members', 'members')",
            )
            .await
            .unwrap();
        let mut session = limited.session().await;
        run(&mut session, "INSERT INTO teams VALUES (1), (2), (3)").await.unwrap();
        run(&mut session, "INSERT INTO members SELECT id FROM teams, generate_series(1, 2)").await.unwrap();
        assert_eq!(state(run(&mut session, "INSERT INTO notes VALUES (1)").await), "TNLIM");
        run(&mut session, "DELETE FROM teams WHERE id IN (1, 2)").await.unwrap();
        check(&mut session, "members", "members", 2).await;
        run(&mut session, "UPDATE teams SET id = 4; INSERT INTO notes VALUES (4)").await.unwrap();
        check(&mut session, "members", "members", 3).await;
        run(&mut session, "BEGIN; DELETE FROM teams; ROLLBACK").await.unwrap();
        check(&mut session, "members", "members", 3).await;
        // A child table that is not a partition has no foreign key, and keeps its rows.
        limited.migrate("TRUNCATE teams CASCADE").await.unwrap();
        check(&mut session, "members", "members", 1).await;
    }
}

#[tokio::test]
async fn tables_and_limits_are_many_to_many() {
    for postgres in &*SERVERS {
        let limits = [("seats", Some(4)), ("guests", Some(1))];
        let limited = Limited::new(postgres, "tenant_several", &limits).await;
        limited
            .migrate(
                "CREATE TABLE staff (id int, gone boolean NOT NULL DEFAULT false);
                 CREATE TABLE visitors (id int, is_guest boolean);
                 INSERT INTO visitors VALUES (1, true), (2, false);
                 SELECT tenantry.meter('seats', 'visitors');
                 SELECT tenantry.meter('seats', 'staff', 'NOT gone');
                 SELECT tenantry.meter('guests', 'visitors', 'is_guest')",
            )
            .await
            .unwrap();
        let mut session = limited.session().await;
        let mut check = async |statement: &str, refused: Option<&str>, seats: i64, guests: i64| {
            match (run(&mut session, statement).await, refused) {
                (Ok(()), None) => {}
                (Err(error), Some(limit)) => {
                    let error = reported(&error);
                    assert_eq!((error.code(), error.constraint()), ("TNLIM", Some(limit)), "{statement}");
                }
                (outcome, _) => panic!("{statement}: {outcome:?}"),
            }
            let used = (limited.used("seats").await, limited.used("guests").await);
            assert_eq!(used, (seats, guests), "{statement}");
        };
        check("SELECT 1", None, 2, 1).await;
        check("INSERT INTO staff VALUES (1), (2)", None, 4, 1).await;
        check("INSERT INTO staff VALUES (3)", Some("seats"), 4, 1).await;
        check("INSERT INTO visitors VALUES (3, false)", Some("seats"), 4, 1).await;
        check("UPDATE visitors SET is_guest = true", Some("guests"), 4, 1).await;
        check("UPDATE staff SET gone = true WHERE id = 1", None, 3, 1).await;
        check("INSERT INTO staff VALUES (4)", None, 4, 1).await;
        // Rows move to the other table, in one statement.
        let join = "WITH gone AS (DELETE FROM visitors WHERE NOT is_guest RETURNING id)
                    INSERT INTO staff SELECT id FROM gone";
        check(join, None, 4, 1).await;
        let drop = "DROP TABLE visitors; SELECT tenantry.meter('seats', 'staff', 'NOT gone')";
        limited.migrate(drop).await.unwrap();
        check("DELETE FROM staff WHERE id = 4", None, 2, 0).await;
    }
}

#[tokio::test]
async fn inconsistent_meter_is_refused() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_wrong", &[]).await;
        let tables = "CREATE TABLE whole (a int) PARTITION BY LIST (a);
                      CREATE TABLE part PARTITION OF whole DEFAULT; CREATE VIEW seen AS SELECT * FROM whole;";
        for (declare, message) in [
            ("SELECT tenantry.meter('Users', 'whole')", "starts with a lower-case letter"),
            ("SELECT tenantry.meter('my users', 'whole')", "starts with a lower-case letter"),
            ("SELECT tenantry.meter(repeat('a', 41), 'whole')", "at most 40 letters"),
            ("SELECT tenantry.meter('users', 'whole', 'b > 1')", "column \"b\" does not exist"),
            ("SELECT tenantry.meter('p', 'whole'), tenantry.meter('p', 'part')", "would count twice"),
            ("SELECT tenantry.meter('p', 'part'), tenantry.meter('p', 'whole')", "would count twice"),
            ("SELECT tenantry.meter('users', 'seen')", "is a view"),
        ] {
            let error = limited.migrate(&format!("{tables} {declare}")).await.unwrap_err().to_string();
            assert!(error.contains(message), "{declare}: {error}");
        }
        check(&mut limited.session().await, "users", "users", 0).await;
    }
}
