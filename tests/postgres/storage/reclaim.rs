//! The room of what tenants deleted is given back, at a price that fits what there is to be had.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use sqlx::{Connection, Executor, PgConnection};
use tenantry::{
    domain::access::AccessLevel,
    postgres::{
        server::Server,
        vacuum::{Packing, Reclaimed},
    },
};
use tenantry_dev::Postgres;

use crate::servers::{SERVERS, Tenant, config, ready, refusal};

use super::{ALL, MB, counted, fill, furnish, sample};

/// A tenant that may read and delete, with full tables.
struct Full {
    postgres: &'static Postgres,
    server: Server,
    tenant: Tenant,
    session: PgConnection,
    packing: Packing,
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
        server.set_access(tenant.id, &tenant.database, &tenant.login, shrink).await.unwrap();
        let session = tenant.session(postgres).await.unwrap();
        Self { postgres, server, tenant, session, packing: Packing::default() }
    }

    async fn delete(&mut self, table: &str, which: &str) {
        counted(&mut self.session, format!("DELETE FROM {table} WHERE {which}")).await;
    }

    async fn used(&self) -> i64 {
        sample(&self.server, &self.tenant, None, true).await.bytes.unwrap()
    }

    async fn reclaim(&mut self, target: i64) -> Reclaimed {
        let Tenant { id, database, .. } = &self.tenant;
        self.server.reclaim(*id, database, &ALL, target, &mut self.packing, &|| true).await.unwrap()
    }

    /// What changes when a table is written anew.
    async fn file(&self, table: &str) -> u32 {
        let file = "SELECT relfilenode::bigint FROM pg_class WHERE relname = $1";
        let mut administrator = self.postgres.connect(&self.tenant.database).await.unwrap();
        let file: i64 = sqlx::query_scalar(file).bind(table).fetch_one(&mut administrator).await.unwrap();
        u32::try_from(file).unwrap()
    }

    async fn check_closed(&self) {
        let Tenant { id, database, login, .. } = &self.tenant;
        let facts = self.server.observe(*id, database, login).await.unwrap();
        assert_eq!(facts.access(), Some(AccessLevel::ShrinkOnly));
        assert!(!facts.database.unwrap().migrator_may_connect);
    }
}

#[tokio::test]
async fn a_tenant_that_may_only_shrink_reads_and_deletes_and_gets_its_room_back() {
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

        // The older half: what is free is not at the end.
        full.delete("papers", "id <= 15 * 1024").await;
        let file = full.file("papers").await;
        let half = full.reclaim(16 * MB).await;
        assert_eq!(half.bytes_before, before);
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
async fn nothing_is_written_anew_for_little_or_nothing() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_stingy", &[("papers", 20)]).await;
        let file = full.file("papers").await;
        let nothing = full.reclaim(MB).await;
        assert!(nothing.vacuumed.is_empty() && nothing.rewritten.is_empty() && !nothing.again, "{nothing:?}");
        let used = full.used().await;
        for id in 0..3 {
            full.delete("papers", &format!("id = {}", 100 + id)).await;
            // However near the target is.
            let one = full.reclaim(used - 100).await;
            assert!(one.rewritten.is_empty(), "{one:?}");
        }
        assert_eq!(full.file("papers").await, file);
        // Under the target, there is nothing to do at all, and nobody goes there.
        full.delete("papers", "true").await;
        let opened = full.server.sessions_opened();
        let under = full.reclaim(100 * MB).await;
        assert_eq!((under.vacuumed.len(), full.server.sessions_opened()), (0, opened));
    }
}

#[tokio::test]
async fn who_has_full_access_again_finds_no_table_locked() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_upgraded", &[("papers", 8), ("notes", 8)]).await;
        for table in ["papers", "notes"] {
            full.delete(table, "id % 2 = 0").await;
        }
        let files = (full.file("papers").await, full.file("notes").await);
        let Tenant { id, database, .. } = &full.tenant;
        let asked = AtomicUsize::new(0);
        // After the first table.
        let is_wanted = || asked.fetch_add(1, Ordering::Relaxed) == 0;
        let done = full.server.reclaim(*id, database, &ALL, MB, &mut full.packing, &is_wanted).await.unwrap();
        assert_eq!((done.vacuumed.len(), done.rewritten.len(), done.again), (1, 0, true), "{done:?}");
        assert_eq!((full.file("papers").await, full.file("notes").await), files);
        full.check_closed().await;
    }
}

#[tokio::test]
async fn a_table_written_anew_is_left_alone_until_more_is_deleted() {
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
        let Tenant { id, database, login, .. } = &full.tenant;
        full.server.set_access(*id, database, login, AccessLevel::ReadWrite).await.unwrap();
        // A few rows that take nearly everything, in between.
        let long =
            "INSERT INTO papers SELECT -id, repeat('y', 200000) FROM generate_series(1, 100) AS g (id)";
        counted(&mut full.session, long).await;
        full.server.set_access(*id, database, login, AccessLevel::ShrinkOnly).await.unwrap();
        full.session = full.tenant.session(postgres).await.unwrap();
        let before = full.used().await;
        assert!(before > 20 * MB, "{before}");
        full.delete("papers", "id BETWEEN -80 AND -1").await;
        let done = full.reclaim(8 * MB).await;
        assert_eq!(done.rewritten, ["public.papers"], "{done:?}");
        assert!(done.bytes_after < 8 * MB, "{done:?}");
        // Nothing more is expected of the same rows.
        let again = full.reclaim(0).await;
        assert!(again.rewritten.is_empty(), "{again:?}");
    }
}

#[tokio::test]
async fn a_table_that_the_tenant_has_locked_is_skipped_and_holds_nobody_up() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_locking", &[("papers", 8), ("letters", 6)]).await;
        full.delete("papers", "id % 2 = 0").await;
        full.delete("letters", "id % 2 = 0").await;
        let mut holding = full.tenant.session(postgres).await.unwrap();
        holding.execute("BEGIN; SELECT FROM papers LIMIT 1").await.unwrap();
        let mut reading = full.tenant.session(postgres).await.unwrap();
        let watched = full.tenant.database.clone();
        let read = async {
            let mut administrator = postgres.connect(&watched).await.unwrap();
            let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'papers'::regclass
                         AND mode = 'AccessExclusiveLock' AND NOT granted)";
            while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut administrator).await.unwrap() {}
            let start = Instant::now();
            reading.execute("SELECT count(*) FROM papers").await.unwrap();
            start.elapsed()
        };
        let (done, held_up) = tokio::join!(full.reclaim(MB), read);
        println!("PostgreSQL {}: a read was held up for {held_up:?}", postgres.binaries().major);
        assert!(held_up < Duration::from_secs(5), "{held_up:?}");
        assert_eq!(done.skipped_locked, ["public.papers"], "{done:?}");
        assert_eq!(done.rewritten, ["public.letters"]);
        assert!(done.again && done.failed.is_empty());

        // A lock that keeps everybody out, which DELETE is enough for, keeps also the question for its size waiting.
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
async fn what_an_old_transaction_may_still_look_at_is_not_written_anew() {
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
        old.close().await.unwrap();
        let free = full.reclaim(5 * MB).await;
        assert_eq!(free.rewritten, ["public.papers"], "{free:?}");
        assert!(!free.again && free.bytes_after < 5 * MB, "{free:?}");
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_written_anew_is_reported_and_keeps_no_other_from_it() {
    for postgres in &*SERVERS {
        let mut full = Full::new(postgres, "tenant_broken", &[("papers", 8), ("letters", 4)]).await;
        let mut administrator = postgres.connect(&full.tenant.database).await.unwrap();
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
        // It is not tried again for the same rows.
        let again = full.reclaim(0).await;
        assert!(again.failed.is_empty() && !again.again, "{again:?}");
        full.check_closed().await;
    }
}

#[tokio::test]
async fn tenants_of_one_server_take_turns() {
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
        // The first one has to wait for a while.
        let mut holding = one.tenant.session(postgres).await.unwrap();
        holding.execute("BEGIN; SELECT FROM papers LIMIT 1").await.unwrap();
        let mut administrator = postgres.connect("postgres").await.unwrap();
        let visitors = "SELECT count(DISTINCT datname) FROM pg_stat_activity
                        WHERE application_name = 'turns' AND usename = 'tenantry_migrator'";
        let mut most = 0_i64;
        let both = async { tokio::join!(one.reclaim(0), two.reclaim(0)) };
        let mut both = std::pin::pin!(both);
        let (first, second) = loop {
            tokio::select! {
                done = &mut both => break done,
                now = sqlx::query_scalar(visitors).fetch_one(&mut administrator) => most = most.max(now.unwrap()),
            }
        };
        assert_eq!(most, 1);
        assert_eq!((first.rewritten.len(), first.skipped_locked.len(), second.rewritten.len()), (1, 1, 2));
    }
}
