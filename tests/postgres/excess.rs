//! A tenant's login that uses up what all databases of a server share: without the watch it works, the watch ends it, and
//! usual sessions are left alone.

use jiff::SignedDuration;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::{
    domain::excess::{Bounds, Excess},
    postgres::{catalog::excess::EndedSession, server::Server},
};
use tenantry_dev::Postgres;
use tenantry_test_support::Wait;

use crate::servers::{Tenant, ready, set_up, start};

/// A server of its own, since an attack is felt on all of it, with two tenants.
struct Stage {
    postgres: Postgres,
    server: Server,
    hostile: Tenant,
    neighbour: Tenant,
}

impl Stage {
    async fn set(major: u16, settings: &[(&str, &str)]) -> Self {
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let postgres = set_up(start(major, settings).await).await;
        let server = ready(&postgres).await;
        let (hostile, neighbour) = (Tenant::new("tenant_hostile"), Tenant::new("tenant_neighbour"));
        hostile.provision(&server, 1).await;
        neighbour.provision(&server, 1).await;
        Self { postgres, server, hostile, neighbour }
    }

    async fn session(&self) -> PgConnection {
        self.hostile.session(&self.postgres).await.unwrap()
    }

    /// The neighbour's session, in an ordinary transaction.
    async fn usual(&self) -> PgConnection {
        let mut session = self.neighbour.session(&self.postgres).await.unwrap();
        session.execute("BEGIN; INSERT INTO users (email) VALUES ('a@acme.example')").await.unwrap();
        session
    }

    /// Ends what is beyond the bounds: sessions of the hostile login only.
    async fn end(&self, bounds: &Bounds) -> Vec<EndedSession> {
        let ended = self.server.end_sessions_beyond(bounds).await.unwrap();
        for session in &ended {
            assert_eq!(session.tenant, self.hostile.placement.tenant, "{session:?}");
            assert_eq!(session.login, self.hostile.placement.login);
        }
        ended
    }
}

/// Bounds that nothing exceeds.
const NONE: Bounds = Bounds {
    lock_table: 2.0,
    idle_in_transaction: SignedDuration::MAX,
    transaction: SignedDuration::MAX,
    transaction_ids: i64::MAX,
    notify_queue: 2.0,
    notify_queue_holder: SignedDuration::MAX,
};

async fn refusal(session: &mut PgConnection, sql: &str) -> String {
    let error = session.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_err();
    error.as_database_error().unwrap_or_else(|| panic!("{error}")).code().unwrap().into_owned()
}

#[tokio::test]
async fn full_lock_table_is_freed() {
    for major in [15, 18] {
        let stage = Stage::set(major, &[]).await;
        let mut usual = stage.usual().await;
        let mut session = stage.session().await;
        // A few are anybody's right.
        session.execute("SELECT pg_advisory_lock(n) FROM generate_series(1, 100) AS n").await.unwrap();
        assert!(stage.end(&Bounds::IN_FORCE).await.is_empty());
        let million = "SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) AS n";
        assert_eq!(refusal(&mut session, million).await, "53200");
        assert!(stage.neighbour.session(&stage.postgres).await.is_err(), "no login can connect any more");
        let ended = stage.end(&Bounds::IN_FORCE).await;
        assert!(matches!(ended[..], [EndedSession { excess: Excess::Locks(6400..), .. }]), "{ended:?}");
        println!("PostgreSQL {major}: {}", ended[0].excess);
        assert!(session.execute("SELECT 1").await.is_err());
        // The ended process releases its locks one after the other.
        Wait::until("others connect again")
            .is_true(async || stage.neighbour.session(&stage.postgres).await.is_ok())
            .await;
        let mut admin = stage.postgres.connect("postgres").await.unwrap();
        let is_gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)";
        Wait::until("the ended process is gone")
            .is_true(async || {
                let login = &stage.hostile.placement.login;
                sqlx::query_scalar(is_gone).bind(login).fetch_one(&mut admin).await.unwrap()
            })
            .await;
        usual.execute("COMMIT").await.unwrap();
        assert!(stage.end(&Bounds::IN_FORCE).await.is_empty());
    }
}

#[tokio::test]
async fn held_notify_queue_is_freed() {
    // From 17 on the size of the queue can be set: 64 pages are 512 KiB. On 15 it has 8 GiB, so that the bound is lower.
    for (major, settings, bound) in
        [(15, &[][..], 1e-5), (18, &[("max_notify_queue_pages", "64")][..], Bounds::IN_FORCE.notify_queue)]
    {
        let stage = Stage::set(major, settings).await;
        let mut usual = stage.usual().await;
        let mut listening = stage.session().await;
        listening.execute("LISTEN anything").await.unwrap();
        listening.execute("BEGIN").await.unwrap();
        listening.execute("SELECT 1").await.unwrap();
        let mut notifying = stage.session().await;
        let notify = "SELECT pg_notify('anything', n || repeat('x', 7000)) FROM generate_series(1, 4) AS n";
        for _ in 0..8 {
            notifying.execute(notify).await.unwrap();
        }
        if major == 18 {
            while notifying.execute(notify).await.is_ok() {}
            let mut admin = stage.postgres.connect("postgres").await.unwrap();
            assert_eq!(
                refusal(&mut admin, "NOTIFY anything").await,
                "54000",
                "no commit with a NOTIFY any more"
            );
        }
        let bounds =
            Bounds { notify_queue: bound, notify_queue_holder: SignedDuration::from_hours(1), ..NONE };
        assert!(stage.end(&bounds).await.is_empty(), "a young transaction holds nothing for long");
        // The neighbour's transaction is over: it holds nothing.
        usual.execute("COMMIT").await.unwrap();
        let bounds = Bounds { notify_queue_holder: SignedDuration::ZERO, ..bounds };
        let ended = stage.end(&bounds).await;
        assert!(matches!(ended[..], [EndedSession { excess: Excess::NotifyQueue(_), .. }]), "{ended:?}");
        assert!(listening.execute("SELECT 1").await.is_err());
        let mut admin = stage.postgres.connect("postgres").await.unwrap();
        Wait::until("the queue is freed")
            .is_true(async || {
                let usage = "SELECT pg_notification_queue_usage() <= $1";
                sqlx::query_scalar(usage).bind(bound).fetch_one(&mut admin).await.unwrap()
            })
            .await;
        admin.execute("NOTIFY anything").await.unwrap();
        notifying.execute(notify).await.unwrap();
    }
}

#[tokio::test]
async fn transactions_that_stay_open_are_ended() {
    for major in [15, 18] {
        let stage = Stage::set(major, &[]).await;
        let mut usual = stage.usual().await;
        usual.execute("COMMIT").await.unwrap();
        let mut admin = stage.postgres.connect("postgres").await.unwrap();
        let open = async || {
            let mut session = stage.session().await;
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
            session.execute("SELECT count(*) FROM users").await.unwrap();
            session
        };
        let zero = SignedDuration::ZERO;
        for (bounds, name) in [
            (Bounds { idle_in_transaction: zero, ..NONE }, "IdleInTransaction"),
            (Bounds { transaction: zero, ..NONE }, "Transaction"),
            (Bounds { transaction_ids: 3, ..NONE }, "TransactionIds"),
        ] {
            let mut session = open().await;
            for _ in 0..5 {
                admin.execute("SELECT pg_current_xact_id()").await.unwrap();
            }
            assert!(stage.end(&Bounds::IN_FORCE).await.is_empty(), "a young one is left alone");
            let ended = stage.end(&bounds).await;
            let excess: Vec<String> = ended.iter().map(|ended| format!("{:?}", ended.excess)).collect();
            assert!(excess.len() == 1 && excess[0].starts_with(&format!("{name}(")), "{excess:?}");
            assert!(session.execute("SELECT 1").await.is_err());
        }
    }
}

/// Six clients with a transaction per statement: their transactions begin while the watch reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn short_transactions_are_never_ended() {
    const LOOKS: usize = 200;
    for major in [15, 18] {
        let stage = Stage::set(major, &[]).await;
        let mut clients = Vec::new();
        for _ in 0..6 {
            let mut session = stage.neighbour.session(&stage.postgres).await.unwrap();
            clients.push(tokio::spawn(async move {
                // Until the task is aborted, or its session is ended.
                while session.execute("SELECT pg_current_xact_id()").await.is_ok() {}
            }));
        }
        for _ in 0..LOOKS {
            let ended = stage.server.end_excessive_sessions().await.unwrap();
            assert!(ended.is_empty(), "{ended:?}");
        }
        for client in clients {
            assert!(!client.is_finished());
            client.abort();
        }
    }
}

/// The remedy for a grown catalog: the watch keeps no administrator from it.
#[tokio::test]
async fn watch_gives_way_to_a_vacuum_of_shared_catalogs() {
    for major in [15, 18] {
        let stage = Stage::set(major, &[]).await;
        stage.end(&Bounds::IN_FORCE).await;
        stage.server.shared_locks().await.unwrap();
        let mut admin = stage.postgres.connect("postgres").await.unwrap();
        admin.execute("SET lock_timeout = '2s'").await.unwrap();
        admin.execute("VACUUM FULL pg_db_role_setting").await.unwrap();
        // What the watch needs is locked until its next look.
        admin.execute("SET lock_timeout = 0").await.unwrap();
        let vacuum =
            tokio::spawn(async move { admin.execute("VACUUM FULL pg_shdescription").await.map(drop) });
        // A client that connects now may have to wait for it.
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'pg_shdescription'::regclass AND NOT granted)";
        let mut admin = stage.postgres.connect("tenant_hostile").await.unwrap();
        Wait::until("the watch is waited for")
            .is_true(async || sqlx::query_scalar(waits).fetch_one(&mut admin).await.unwrap())
            .await;
        stage.end(&Bounds::IN_FORCE).await;
        vacuum.await.unwrap().unwrap();
        stage.end(&Bounds::IN_FORCE).await;
    }
}

#[tokio::test]
async fn sessions_are_ended_without_the_right_to_end_those_of_other_roles() {
    for major in [15, 18] {
        let stage = Stage::set(major, &[]).await;
        let mut session = stage.session().await;
        // More than half of the lock table.
        let most = "SELECT pg_advisory_lock(n) FROM generate_series(1, current_setting('max_locks_per_transaction')::int
            * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) * 6 / 10) AS n";
        session.execute(most).await.unwrap();
        let mut admin = stage.postgres.connect("postgres").await.unwrap();
        admin.execute("REVOKE pg_signal_backend FROM tenantry_admin").await.unwrap();
        let found = stage.server.end_excessive_sessions().await.unwrap();
        assert!(matches!(found[..], [EndedSession { excess: Excess::Locks(_), .. }]), "{found:?}");
        assert!(session.execute("SELECT 1").await.is_err());
    }
}

#[tokio::test]
async fn only_a_superuser_can_take_write_ahead_log_from_tenants() {
    for major in [15, 18] {
        let stage = Stage::set(major, &[]).await;
        let mut session = stage.session().await;
        let emit = "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))";
        session.execute(emit).await.unwrap();
        let arguments = if major == 15 { "text" } else { "text, boolean" };
        let bytes = if major == 15 { "bytea" } else { "bytea, boolean" };
        let revoke = format!(
            "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, {arguments}), \
             pg_logical_emit_message(boolean, text, {bytes}) FROM PUBLIC"
        );
        let mut admin = stage.postgres.connect("tenant_hostile").await.unwrap();
        for role in ["tenantry_admin", "tenantry_dba"] {
            // A mere warning.
            admin.execute(AssertSqlSafe(format!("SET ROLE {role}; {revoke}; RESET ROLE"))).await.unwrap();
            session.execute(emit).await.unwrap();
        }
        admin.execute(AssertSqlSafe(revoke)).await.unwrap();
        assert_eq!(refusal(&mut session, emit).await, "42501");
    }
}
