//! A restriction of access waits for no session that other operations hold.

use std::time::Duration;

use sqlx::Executor;
use tenantry::{
    domain::{access::AccessLevel, usage::entitlements::LoginLimits},
    postgres::{ServerConfig, server::Server},
};
use tenantry_test_support::Wait;
use tokio::time::timeout;

use crate::servers::{SERVERS, Tenant, config, ready};

const LIMITS: LoginLimits = LoginLimits { connections: 5, temp_file_kilobytes: -1 };
/// Longer than an operation takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Longer than one waits where there is a session for it.
const WAITS: Duration = Duration::from_secs(1);

#[tokio::test]
async fn restriction_has_a_session_while_all_others_are_in_use() {
    for postgres in &*SERVERS {
        // With a cap of four, there is one session of each kind.
        let prepared = ready(postgres).await;
        let server = Server::new(ServerConfig { max_connections: 4, ..config(postgres) });
        let (stuck, tenant) = (Tenant::new("tenant_reserve_stuck"), Tenant::new("tenant_reserve"));
        stuck.provision(&prepared, 1).await;
        tenant.provision(&prepared, 1).await;
        let mut session = tenant.session(postgres).await.unwrap();
        session.execute("BEGIN; INSERT INTO users (email) VALUES ('a@acme.example')").await.unwrap();
        session.execute("PREPARE TRANSACTION 'reserve'").await.unwrap();

        // A superuser's locks keep both sessions in use.
        let mut superuser = postgres.connect("tenant_reserve_stuck").await.unwrap();
        superuser.execute("BEGIN; LOCK TABLE tenantry.counters IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let reading = tokio::spawn({
            let (server, placement) = (server.clone(), stuck.placement.clone());
            async move { server.read_counters(&placement).await.is_ok() }
        });
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'tenantry.counters'::regclass)";
        Wait::until("the counters are read")
            .is_true(async || sqlx::query_scalar(waits).fetch_one(&mut superuser).await.unwrap())
            .await;
        superuser.execute("ALTER ROLE tenant_reserve_stuck_app CONNECTION LIMIT 3").await.unwrap();
        let limiting = tokio::spawn({
            let (server, placement) = (server.clone(), stuck.placement.clone());
            // A statement that waits for an administrator gives up after two seconds.
            async move { while server.limit_login(&placement, LIMITS).await.is_err() {} }
        });
        // The control: without its own session, an operation waits.
        let control = async { while timeout(WAITS, server.observe(&tenant.placement)).await.is_ok() {} };
        timeout(SOON, control).await.expect("an operation waits for a session");
        let restricted = server.for_restriction();
        timeout(SOON, restricted.set_access(&tenant.placement, AccessLevel::Blocked)).await.unwrap().unwrap();
        assert!(tenant.session(postgres).await.is_err());
        let left = "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'reserve'";
        assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&mut superuser).await.unwrap(), 0);
        superuser.execute("ROLLBACK").await.unwrap();
        assert!(reading.await.unwrap());
        limiting.await.unwrap();
    }
}
