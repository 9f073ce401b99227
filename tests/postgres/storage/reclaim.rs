//! The space of deleted rows is reclaimed, at a cost in proportion to the gain.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use sqlx::{Executor, PgConnection};
use tenantry::{
    domain::access::AccessLevel,
    postgres::{
        server::Server,
        tenant::vacuum::{Reclaimed, RowSizes},
    },
};
use tenantry_dev::Postgres;
use tenantry_test_support::Wait;

use crate::servers::{SERVERS, Tenant, access, config, ready, refusal, session_logins};

use super::{ALL, MB, NOTHING, counted, fill, furnish, sample};

/// A tenant with ShrinkOnly access and full tables.
struct Full {
    postgres: &'static Postgres,
    server: Server,
    tenant: Tenant,
    session: PgConnection,
    row_sizes: RowSizes,
}

impl Full {
    async fn new(postgres: &'static Postgres, name: &str, tables: &[(&str, i64)]) -> Self {
        let server = ready(postgres).await;
        let tenant = Tenant::new(name);
        tenant.provision(&server, 1).await;
        let names: Vec<&str> = tables.iter().map(|(name, _)| *name).collect();
        furnish(postgres, &tenant, &names).await;
        let mut session = tenant.session(postgres).await.unwrap();
        for (table, megabytes) in tables {
            counted(&mut session, fill(table, *megabytes)).await;
        }
        let shrink = AccessLevel::ShrinkOnly;
        server.set_access(&tenant.placement, shrink).await.unwrap();
        let session = tenant.session(postgres).await.unwrap();
        Self { postgres, server, tenant, session, row_sizes: RowSizes::default() }
    }

    async fn delete(&mut self, table: &str, which: &str) {
        counted(&mut self.session, format!("DELETE FROM {table} WHERE {which}")).await;
    }

    async fn used(&self) -> i64 {
        sample(&self.server, &self.tenant, None, true).await.bytes.unwrap()
    }

    async fn reclaim(&mut self, target: i64) -> Reclaimed {
        let placement = &self.tenant.placement;
        self.server.reclaim(placement, &ALL, target, &mut self.row_sizes, &|| true).await.unwrap()
    }

    /// The file of a table, which changes when the table is rewritten.
    async fn file(&self, table: &str) -> u32 {
        let file = "SELECT relfilenode::bigint FROM pg_class WHERE relname = $1";
        let mut administrator = self.postgres.connect(&self.tenant.placement.database).await.unwrap();
        let file: i64 = sqlx::query_scalar(file).bind(table).fetch_one(&mut administrator).await.unwrap();
        u32::try_from(file).unwrap()
    }

    async fn check_closed(&self) {
        let facts = self.server.observe(&self.tenant.placement).await.unwrap();
        assert_eq!(access(&facts), Some(AccessLevel::ShrinkOnly));
        assert_eq!(session_logins(self.postgres, &self.tenant.placement.database).await, 0);
    }
}

#[tokio::test]
async fn space_is_reclaimed_with_shrink_only_access() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_over", &[("papers", 30)]).await;
        let session = &mut full.session;
        for refused in [
            "INSERT INTO papers VALUES (0, 'x')",
            "UPDATE papers SET body = 'x'",
            "COPY papers FROM STDIN",
            "TRUNCATE papers",
        ] {
            assert_eq!(refusal(session, refused).await, "42501", "{refused}");
        }
        session.execute("SELECT sum(length(body)) FROM papers").await.unwrap();
        let before = full.used().await;
        assert!(before > 30 * MB, "{before}");

        // The older half: the free space is not at the end of the table.
        full.delete("papers", "id <= 15 * 1024").await;
        let file = full.file("papers").await;
        let half = full.reclaim(16 * MB).await;
        assert!((half.bytes_before - before).abs() < NOTHING, "{before} {half:?}");
        assert!((15 * MB..=16 * MB + MB / 2).contains(&half.bytes_after), "{half:?}");
        assert_eq!(
            (&half.vacuumed[..], &half.rewritten[..]),
            (&["public.papers".to_owned()][..], &["public.papers".to_owned()][..])
        );
        assert_ne!(full.file("papers").await, file);
        full.check_closed().await;

        // The newer half of the rest.
        full.delete("papers", "id > 22 * 1024").await;
        let file = full.file("papers").await;
        let quarter = full.reclaim(9 * MB).await;
        assert!(quarter.bytes_after < 9 * MB && quarter.rewritten.is_empty(), "{quarter:?}");
        assert_eq!(full.file("papers").await, file);
        assert!(!quarter.again && quarter.skipped_locked.is_empty() && quarter.failed.is_empty());
        full.session.execute("SELECT 1 / (count(*) = 7 * 1024)::int FROM papers").await.unwrap();
    }
}

#[tokio::test]
async fn table_is_not_rewritten_for_a_small_gain() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_stingy", &[("papers", 20)]).await;
        let file = full.file("papers").await;
        let nothing = full.reclaim(MB).await;
        assert!(nothing.vacuumed.is_empty() && nothing.rewritten.is_empty() && !nothing.again, "{nothing:?}");
        let used = full.used().await;
        for id in 0..3 {
            full.delete("papers", &format!("id = {}", 100 + id)).await;
            // Even if the target is close.
            let one = full.reclaim(used - 100).await;
            assert!(one.rewritten.is_empty(), "{one:?}");
        }
        assert_eq!(full.file("papers").await, file);
        // Under the target, no session is opened.
        full.delete("papers", "true").await;
        let opened = full.server.sessions_opened();
        let under = full.reclaim(100 * MB).await;
        assert_eq!((under.vacuumed.len(), full.server.sessions_opened()), (0, opened));
    }
}

#[tokio::test]
async fn full_access_stops_a_pass_before_the_next_table() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_upgraded", &[("papers", 8), ("notes", 8)]).await;
        for table in ["papers", "notes"] {
            full.delete(table, "id % 2 = 0").await;
        }
        let files = (full.file("papers").await, full.file("notes").await);
        let placement = &full.tenant.placement;
        let calls = AtomicUsize::new(0);
        // After the first table.
        let is_wanted = || calls.fetch_add(1, Ordering::Relaxed) == 0;
        let done = full.server.reclaim(placement, &ALL, MB, &mut full.row_sizes, &is_wanted).await.unwrap();
        assert_eq!((done.vacuumed.len(), done.rewritten.len(), done.again), (1, 0, true), "{done:?}");
        assert_eq!((full.file("papers").await, full.file("notes").await), files);
        full.check_closed().await;
    }
}

#[tokio::test]
async fn rewritten_table_is_skipped_until_more_is_deleted() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_patient", &[("papers", 10)]).await;
        full.delete("papers", "id % 2 = 0").await;
        let first = full.reclaim(0).await;
        assert_eq!(first.rewritten, ["public.papers"]);
        let file = full.file("papers").await;
        for _ in 0..2 {
            let again = full.reclaim(0).await;
            assert!(again.rewritten.is_empty() && !again.again, "{again:?}");
        }
        assert_eq!(full.file("papers").await, file);
        full.delete("papers", "id % 4 = 1").await;
        let more = full.reclaim(0).await;
        assert_eq!(more.rewritten, ["public.papers"]);
        assert!(more.bytes_after < 4 * MB, "{more:?}");
    }
}

#[tokio::test]
async fn long_values_are_counted_by_their_pieces() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_long", &[("papers", 1)]).await;
        let placement = &full.tenant.placement;
        full.server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
        // A few rows that take most of the space, in between.
        let long =
            "INSERT INTO papers SELECT -id, repeat('y', 200000) FROM generate_series(1, 100) AS g (id)";
        counted(&mut full.session, long).await;
        full.server.set_access(placement, AccessLevel::ShrinkOnly).await.unwrap();
        full.session = full.tenant.session(postgres).await.unwrap();
        let before = full.used().await;
        assert!(before > 20 * MB, "{before}");
        full.delete("papers", "id BETWEEN -80 AND -1").await;
        let done = full.reclaim(8 * MB).await;
        assert_eq!(done.rewritten, ["public.papers"], "{done:?}");
        assert!(done.bytes_after < 8 * MB, "{done:?}");
        // No more gain is expected from the same rows.
        let again = full.reclaim(0).await;
        assert!(again.rewritten.is_empty(), "{again:?}");
    }
}

#[tokio::test]
async fn locked_table_is_skipped_and_delays_no_session() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_locking", &[("papers", 8), ("letters", 6)]).await;
        full.delete("papers", "id % 2 = 0").await;
        full.delete("letters", "id % 2 = 0").await;
        let mut holding = full.tenant.session(postgres).await.unwrap();
        holding.execute("BEGIN; SELECT FROM papers LIMIT 1").await.unwrap();
        let mut reading = full.tenant.session(postgres).await.unwrap();
        // Connected before: the wait is short.
        let mut administrator = postgres.connect(&full.tenant.placement.database).await.unwrap();
        let read = async {
            let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'papers'::regclass
                         AND mode = 'AccessExclusiveLock' AND NOT granted)";
            Wait::until("a rewrite waits for the lock on papers")
                .is_true(async || sqlx::query_scalar(waits).fetch_one(&mut administrator).await.unwrap())
                .await;
            let start = Instant::now();
            reading.execute("SELECT count(*) FROM papers").await.unwrap();
            start.elapsed()
        };
        let (done, held_up) = tokio::join!(full.reclaim(MB), read);
        println!("PostgreSQL {}: a read was held up for {held_up:?}", postgres.binaries().major);
        // The rewrite gives up after two seconds, the other transaction not at all.
        assert!(held_up < Duration::from_secs(30), "{held_up:?}");
        assert_eq!(done.skipped_locked, ["public.papers"], "{done:?}");
        assert_eq!(done.rewritten, ["public.letters"]);
        assert!(done.again && done.failed.is_empty());

        // An exclusive lock, which the DELETE right allows, would also block reading the size.
        full.delete("letters", "id % 4 = 1").await;
        holding.execute("LOCK TABLE papers IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let beside = full.reclaim(MB).await;
        assert_eq!(beside.rewritten, ["public.letters"], "{beside:?}");
        assert_eq!((&beside.skipped_locked[..], beside.again), (&["public.papers".to_owned()][..], true));
        holding.execute("ROLLBACK").await.unwrap();
        let now = full.reclaim(MB).await;
        assert_eq!(now.rewritten, ["public.papers"], "{now:?}");
        full.check_closed().await;
    }
}

#[tokio::test]
async fn rows_needed_by_an_old_transaction_are_not_rewritten() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_looking_back", &[("papers", 8)]).await;
        let mut old = full.tenant.session(postgres).await.unwrap();
        // It has no lock on the table.
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM users LIMIT 1").await.unwrap();
        full.delete("papers", "id % 2 = 0").await;
        let file = full.file("papers").await;
        let held = full.reclaim(5 * MB).await;
        assert!(held.again && held.rewritten.is_empty(), "{held:?}");
        assert_eq!(full.file("papers").await, file);
        // Closed alone, its process might end, and give its snapshot up, a moment later.
        old.execute("COMMIT").await.unwrap();
        let free = full.reclaim(5 * MB).await;
        assert_eq!(free.rewritten, ["public.papers"], "{free:?}");
        assert!(!free.again && free.bytes_after < 5 * MB, "{free:?}");
    }
}

#[tokio::test]
async fn failing_table_is_reported_and_blocks_no_other() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_broken", &[("papers", 8), ("letters", 4)]).await;
        let mut administrator = postgres.connect(&full.tenant.placement.database).await.unwrap();
        let break_it = "
            SET ROLE tenantry_owner;
            CREATE FUNCTION fine(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
            CREATE INDEX ON papers (fine(body));
            CREATE OR REPLACE FUNCTION fine(text) RETURNS int IMMUTABLE LANGUAGE plpgsql
                AS 'BEGIN RAISE ''not any more''; END'";
        administrator.execute(break_it).await.unwrap();
        full.delete("papers", "id % 2 = 0").await;
        full.delete("letters", "id % 2 = 0").await;
        let done = full.reclaim(0).await;
        assert!(done.failed.len() == 1 && done.failed[0].contains("not any more"), "{done:?}");
        assert_eq!(done.rewritten, ["public.letters"]);
        // It is not retried for the same rows.
        let again = full.reclaim(0).await;
        assert!(again.failed.is_empty() && !again.again, "{again:?}");
        full.check_closed().await;
    }
}

#[tokio::test]
async fn tenants_of_one_server_are_vacuumed_one_at_a_time() {
    for postgres in &*SERVERS {
        let mut configured = config(postgres);
        configured.application_name = "turns".into();
        let server = Server::new(configured);
        let mut tenants = Vec::new();
        for name in ["tenant_turn_one", "tenant_turn_two"] {
            let mut full = Full::new(postgres, name, &[("papers", 6), ("letters", 6)]).await;
            full.server = server.clone();
            full.delete("papers", "id % 2 = 0").await;
            full.delete("letters", "id % 2 = 0").await;
            tenants.push(full);
        }
        let [one, two] = &mut tenants[..] else { unreachable!() };
        // The first one has to wait.
        let mut holding = one.tenant.session(postgres).await.unwrap();
        holding.execute("BEGIN; SELECT FROM papers LIMIT 1").await.unwrap();
        let mut administrator = postgres.connect("postgres").await.unwrap();
        // One that was closed is listed as idle until its process has ended.
        let migrators = "SELECT count(DISTINCT datname) FROM pg_stat_activity
                        WHERE application_name = 'turns' AND usename LIKE 'tenantry_migrator_%' AND state = 'active'";
        let mut most = 0_i64;
        let both = async { tokio::join!(one.reclaim(0), two.reclaim(0)) };
        let mut both = std::pin::pin!(both);
        let (first, second) = loop {
            tokio::select! {
                done = &mut both => break done,
                now = sqlx::query_scalar(migrators).fetch_one(&mut administrator) => most = most.max(now.unwrap()),
            }
        };
        assert_eq!(most, 1);
        assert_eq!((first.rewritten.len(), first.skipped_locked.len(), second.rewritten.len()), (1, 1, 2));
    }
}
