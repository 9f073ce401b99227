//! The disk usage of tenants' databases, sampled with one query for a whole server.

mod reclaim;

use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::{
    domain::placement::Placement,
    modules::ModuleSet,
    postgres::{
        server::Server,
        tenant::storage::{Sample, SampleRequest},
    },
};
use tenantry_dev::{
    Postgres,
    interposer::{Effects, PostgresProxy},
};
use tenantry_test_support::Wait;

use crate::servers::{SERVERS, Tenant, config, placement, ready, set_up, start};

/// A few pages, which a first session and autovacuum write in any database.
const NOTHING: i64 = 512 * 1024;
const MB: i64 = 1 << 20;

static ALL: LazyLock<ModuleSet> = LazyLock::new(ModuleSet::built_in);

fn request(tenant: &Tenant, written: Option<i64>, due: bool) -> SampleRequest<'_> {
    SampleRequest { placement: &tenant.placement, modules: &ALL, written, due }
}

async fn sample(server: &Server, tenant: &Tenant, written: Option<i64>, due: bool) -> Sample {
    let samples = server.sample(&[request(tenant, written, due)]).await.unwrap();
    samples.into_values().next().unwrap()
}

/// Creates tables as a module does.
async fn furnish(postgres: &Postgres, tenant: &Tenant, tables: &[&str]) {
    let mut administrator = postgres.connect(&tenant.placement.database).await.unwrap();
    administrator.execute("SET ROLE tenantry_owner").await.unwrap();
    for table in tables {
        let create = format!("CREATE TABLE {table} (id bigint PRIMARY KEY, body text NOT NULL)");
        administrator.execute(AssertSqlSafe(create)).await.unwrap();
        // Long values are stored out of line and uncompressed, so that their size is known.
        let plain = format!("ALTER TABLE {table} ALTER COLUMN body SET STORAGE EXTERNAL");
        administrator.execute(AssertSqlSafe(plain)).await.unwrap();
        // Autovacuum would change the statistics and the size at any time, and its ANALYZE holds dead rows back.
        let alone =
            format!("ALTER TABLE {table} SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)");
        administrator.execute(AssertSqlSafe(alone)).await.unwrap();
    }
}

/// Runs a statement and flushes its statistics: a session reports them once a second at most.
async fn counted(session: &mut PgConnection, sql: impl Into<String>) {
    session.execute(AssertSqlSafe(sql.into())).await.unwrap();
    session.execute("SELECT pg_stat_force_next_flush()").await.unwrap();
}

fn fill(table: &str, megabytes: i64) -> String {
    format!(
        "INSERT INTO {table} SELECT id, repeat('x', 970) FROM generate_series(1, {}) AS g (id)",
        megabytes * 1024
    )
}

#[tokio::test]
async fn sample_counts_only_what_the_tenant_wrote() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_sampled");
        tenant.provision(&server, 1).await;
        furnish(postgres, &tenant, &["papers"]).await;
        let first = sample(&server, &tenant, None, false).await;
        assert!(first.bytes.unwrap() < NOTHING, "{first:?}");
        assert_eq!(first.connections, 0);

        let mut session = tenant.session(postgres).await.unwrap();
        let empty = sample(&server, &tenant, None, true).await;
        assert!(empty.bytes.unwrap() < NOTHING, "{empty:?}");
        assert_eq!(empty.connections, 1);
        counted(&mut session, fill("papers", 10)).await;
        let filled = sample(&server, &tenant, Some(empty.written), false).await;
        let grown = filled.bytes.unwrap() - empty.bytes.unwrap();
        assert!((10 * MB..12 * MB).contains(&grown), "{grown}");
        assert!(filled.written >= empty.written + 10 * 1024, "{filled:?}");

        // While nothing more is written (autovacuum writes statistics once), the size is not read, unless it is due.
        let mut filled = filled;
        Wait::until("nothing more is written")
            .is_true(async || {
                let again = sample(&server, &tenant, Some(filled.written), false).await;
                assert_eq!(again.bytes.is_some(), again.written != filled.written, "{again:?}");
                std::mem::replace(&mut filled.written, again.written) == again.written
            })
            .await;
        let due = sample(&server, &tenant, Some(filled.written), true).await;
        assert!(due.bytes.unwrap() >= filled.bytes.unwrap(), "{due:?}");

        counted(&mut session, "DELETE FROM papers WHERE id <= 100").await;
        let deleted = sample(&server, &tenant, Some(filled.written), false).await;
        assert_eq!(deleted.deleted - filled.deleted, 100);
        assert!(deleted.bytes.is_some() && deleted.written >= filled.written + 100, "{deleted:?}");
    }
}

#[tokio::test]
async fn whole_server_is_sampled_with_one_query() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let mut tenants = Vec::new();
        for number in 0..5 {
            let tenant = Tenant::new(&format!("tenant_sampled_{number}"));
            tenant.provision(&server, 1).await;
            tenants.push(tenant);
        }
        let gone = Tenant::new("tenant_sampled_never");
        tenants.push(gone);
        let proxy = PostgresProxy::start(postgres.port(), &Effects::new()).unwrap();
        let mut through_proxy = config(postgres);
        through_proxy.port = proxy.port();
        let server = Server::new(through_proxy);
        let requests: Vec<SampleRequest<'_>> =
            tenants.iter().map(|tenant| request(tenant, None, true)).collect();
        for _ in 0..3 {
            let before = proxy.totals().statements;
            let samples = server.sample(&requests).await.unwrap();
            assert_eq!(samples.len(), 5);
            assert!(samples.values().all(|sample| sample.bytes.is_some()));
            assert_eq!(proxy.totals().statements - before, 1);
        }
        assert_eq!(server.sessions_opened(), 1);
    }
}

#[tokio::test]
async fn missing_template_is_replaced_by_the_nearest() {
    for major in [15, 18] {
        // Autovacuum changes sizes at any time.
        let settings = vec![("autovacuum".to_owned(), "off".to_owned())];
        let postgres = set_up(start(major, settings).await).await;
        let server = ready(&postgres).await;
        let tenant = Tenant::new("tenant_sampled_otherwise");
        tenant.provision(&server, 1).await;
        let by_own = sample(&server, &tenant, None, true).await.bytes.unwrap();
        let modules = ModuleSet::new(vec![]);
        let other = SampleRequest { modules: &modules, ..request(&tenant, None, true) };
        let by_another = server.sample(&[other]).await.unwrap()[&tenant.placement.database].bytes.unwrap();
        assert_eq!(by_another, by_own);
        let mut administrator = postgres.connect("postgres").await.unwrap();
        let drop = format!("DROP DATABASE tenantry_template_{}", ALL.digest());
        administrator.execute(AssertSqlSafe(drop)).await.unwrap();
        let by_template0 = server.sample(&[other]).await.unwrap()[&tenant.placement.database].bytes.unwrap();
        // The modules' empty tables count too then, and little else.
        assert!(by_own < by_template0 && by_template0 < 2 * MB, "{by_own} {by_template0}");
    }
}

#[tokio::test]
async fn sample_tolerates_databases_dropped_meanwhile() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let stays = Tenant::new("tenant_stays");
        stays.provision(&server, 1).await;
        let names: Vec<String> = (0..8).map(|number| format!("tenant_leaves_{number}")).collect();
        let mut administrator = postgres.connect("postgres").await.unwrap();
        for name in &names {
            let create = format!("CREATE DATABASE {name} OWNER tenantry_dba STRATEGY wal_log");
            administrator.execute(AssertSqlSafe(create)).await.unwrap();
        }
        let placements: Vec<Placement> = names.iter().map(|name| placement(name)).collect();
        let one = |placement| SampleRequest { placement, modules: &ALL, written: None, due: true };
        let mut requests: Vec<SampleRequest<'_>> = placements.iter().map(one).collect();
        requests.push(one(&stays.placement));
        let dropping = async {
            for name in &names {
                administrator.execute(AssertSqlSafe(format!("DROP DATABASE {name}"))).await.unwrap();
            }
        };
        let sampling = async {
            loop {
                let samples = server.sample(&requests).await.unwrap();
                assert!(samples.contains_key(&stays.placement.database));
                if samples.len() == 1 {
                    break;
                }
            }
        };
        tokio::join!(dropping, sampling);
    }
}

#[tokio::test]
async fn sample_works_without_predefined_roles() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let tenant = Tenant::new("tenant_unseen");
        tenant.provision(&server, 1).await;
        let mut administrator = postgres.connect("postgres").await.unwrap();
        for statement in [
            "REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin",
            "CREATE DATABASE foreign_one",
            "REVOKE ALL ON DATABASE foreign_one FROM PUBLIC",
        ] {
            administrator.execute(statement).await.unwrap();
        }
        let mut session = tenant.session(&postgres).await.unwrap();
        session.execute("BEGIN; SELECT * FROM users").await.unwrap();
        let second = tenant.session(&postgres).await.unwrap();
        let foreign = placement("foreign_one");
        let foreign = SampleRequest { placement: &foreign, modules: &ALL, written: None, due: true };
        let samples = server.sample(&[request(&tenant, None, true), foreign]).await.unwrap();
        let sample = &samples[&tenant.placement.database];
        assert_eq!(sample.connections, 2);
        assert!(sample.bytes.unwrap() < NOTHING, "{sample:?}");
        // A size that may not be read is omitted, without an error.
        assert_eq!(samples["foreign_one"].bytes, None);
        let counts = server.session_counts().await.unwrap();
        assert!(counts[&tenant.placement.database].connected.contains(&tenant.placement.login));
        drop(second);
    }
}
