//! A notification of a tenant's change is a hint, and never fails the change.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgListener};
use tenantry::domain::access::AccessLevel;
use tenantry_dev::{PostgresOptions, Version};

use crate::system::{System, created, prepared_with, refused, tenant};

/// Whether a change of this tenant is notified.
async fn is_notified(listener: &mut PgListener, id: &str) -> bool {
    let received = tokio::time::timeout(Duration::from_secs(30), listener.recv()).await;
    received.is_ok_and(|received| received.unwrap().payload() == id)
}

#[tokio::test]
async fn change_is_notified_while_the_queue_has_room() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let mut listener = PgListener::connect(&system.url()).await.unwrap();
        listener.listen("tenantry_tenants").await.unwrap();
        let one = created(&registry, &tenant("one")).await;
        assert!(is_notified(&mut listener, &one.id.to_string()).await);

        // The queue of 15 has 8 GiB: its check is replaced instead.
        let mut admin = system.superuser().await;
        let full = "CREATE OR REPLACE FUNCTION notification_queue_has_room() RETURNS boolean LANGUAGE sql AS 'SELECT ";
        admin.execute(AssertSqlSafe(format!("{full} false'"))).await.unwrap();
        registry.set_access(one.id, Some(AccessLevel::ReadOnly)).await.unwrap();
        let access: String =
            sqlx::query_scalar("SELECT access FROM tenants_public").fetch_one(&mut admin).await.unwrap();
        assert_eq!(access, "ReadOnly");
        admin.execute(AssertSqlSafe(format!("{full} true'"))).await.unwrap();
        // The next notification is that of the second tenant: the change of the first had none.
        let two = created(&registry, &tenant("two")).await;
        assert!(is_notified(&mut listener, &two.id.to_string()).await);
    }
}

#[tokio::test]
async fn row_changes_while_a_tenant_fills_the_queue() {
    // From 17 on its size can be set: 64 pages are 512 KiB.
    let settings = vec![("max_notify_queue_pages".to_owned(), "64".to_owned())];
    let version = Version::Major(18);
    let server =
        prepared_with(PostgresOptions { version, settings, ..PostgresOptions::default() }).await.unwrap();
    let system = System::empty_on(&server).await;
    let registry = system.registry("one").await;
    registry.migrate().await.unwrap();
    let row = created(&registry, &tenant("acme")).await;

    let mut admin = system.superuser().await;
    admin.execute("CREATE ROLE hostile LOGIN PASSWORD 'hostile'").await.unwrap();
    admin.execute("CREATE DATABASE of_tenant").await.unwrap();
    let hostile = server.url("hostile", "hostile", "of_tenant");
    let _listening = fill_queue(&hostile).await;

    // Without the check, every change would fail.
    let notify = format!("SELECT pg_notify('tenantry_tenants', '{}')", row.id);
    assert_eq!(refused(&mut admin, notify).await, "54000");
    for (level, shown) in [(AccessLevel::ReadOnly, "ReadOnly"), (AccessLevel::Blocked, "Blocked")] {
        registry.set_access(row.id, Some(level)).await.unwrap();
        let access: String =
            sqlx::query_scalar("SELECT access FROM tenants_public").fetch_one(&mut admin).await.unwrap();
        assert_eq!(access, shown);
    }
    created(&registry, &tenant("another")).await;
}

/// Fills the queue. The returned session keeps it full: it listens, and reads nothing.
async fn fill_queue(url: &str) -> PgConnection {
    let mut listening = PgConnection::connect(url).await.unwrap();
    listening.execute("LISTEN anything").await.unwrap();
    listening.execute("BEGIN").await.unwrap();
    listening.execute("SELECT 1").await.unwrap();
    let mut notifying = PgConnection::connect(url).await.unwrap();
    let one = "SELECT pg_notify('anything', n || repeat('x', 7000)) FROM generate_series(1, 4) AS n";
    loop {
        match notifying.execute(one).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("54000"), "{error}");
                return listening;
            }
        }
    }
}
