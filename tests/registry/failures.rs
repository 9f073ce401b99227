//! Every cause has its own reason, and none says a password.

use sqlx::{AssertSqlSafe, Executor};
use tenantry::registry::{Error, Registry};
use tenantry_dev::Stop;

use crate::system::{System, created, prepared, tenant};

async fn refusal(url: &str) -> Error {
    Registry::connect(url, "one", 5).await.unwrap_err()
}

#[tokio::test]
async fn what_is_wrong_with_a_connection_is_told_apart() {
    for major in [15, 18] {
        let server = prepared(major).await.unwrap();
        let system = System::empty_on(&server).await;
        let mut admin = server.connect("postgres").await.unwrap();
        admin.execute("CREATE ROLE outsider LOGIN PASSWORD 'outside'").await.unwrap();

        let cases = [
            ("not a url at all".to_owned(), "RegistryUrlInvalid", true),
            (server.url("operator", "wrong-password", &system.database), "RegistryLoginRefused", true),
            (server.url("operator", "operator-password", "nowhere"), "RegistryDatabaseMissing", true),
            (server.url("outsider", "outside", &system.database), "RegistryPermissionDenied", true),
        ];
        for (url, reason, permanent) in cases {
            let error = refusal(&url).await;
            assert_eq!((error.reason(), error.is_permanent()), (reason, permanent), "{error:?}");
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(!text.contains("password\"") && !text.contains("wrong-password"), "{text}");
            }
        }

        // Not set up: first without its tables, then without the role.
        let registry = system.registry("one").await;
        let error = registry.all_living().await.unwrap_err();
        assert_eq!((error.reason(), error.is_permanent()), ("RegistryNotSetUp", true), "{error}");
        assert!(error.to_string().contains("tenantry server-setup"), "{error}");
        registry.migrate().await.unwrap();
        assert!(registry.all_living().await.unwrap().is_empty());

        admin.execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
        admin.execute("SELECT pg_reload_conf()").await.unwrap();
        let fresh = loop {
            // The postmaster tells its children in its own time.
            let fresh = system.registry("fresh").await;
            let error = fresh.register(&tenant("acme")).await;
            match error {
                Ok(_) => continue,
                Err(error) => break error,
            }
        };
        assert_eq!((fresh.reason(), fresh.is_permanent()), ("RegistryReadOnly", false), "{fresh}");

        server.stop(Stop::Fast).await.unwrap();
        let error = refusal(&system.url()).await;
        assert_eq!((error.reason(), error.is_permanent()), ("RegistryUnreachable", false), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_nobody_has_set_up_says_so() {
    let server = tenantry_dev::Postgres::start(tenantry_dev::PostgresOptions::default()).await.unwrap();
    let error = refusal(&server.admin_url("postgres")).await;
    assert_eq!((error.reason(), error.is_permanent()), ("RegistryNotSetUp", true), "{error}");
    assert!(error.to_string().contains("tenantry server-setup"), "{error}");
}

#[tokio::test]
async fn no_connections_left_is_a_reason_of_its_own() {
    let server = prepared(18).await.unwrap();
    let system = System::empty_on(&server).await;
    let mut admin = server.connect("postgres").await.unwrap();
    admin
        .execute(AssertSqlSafe(format!("ALTER DATABASE {} CONNECTION LIMIT 1", system.database)))
        .await
        .unwrap();
    let first = system.registry("first").await;
    first.ping().await.unwrap();
    let error = refusal(&system.url()).await;
    assert_eq!((error.reason(), error.is_permanent()), ("RegistryTooManyConnections", false), "{error}");
}

#[tokio::test]
async fn a_password_never_gets_into_the_registry_nor_into_the_servers_log() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let error = registry.set_credential(row.id, Some("correct-horse-battery"), None).await.unwrap_err();
        assert_eq!(error.sql_state().as_deref(), Some("TN004"), "{error}");
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(!text.contains("correct-horse-battery"), "{text}");
        }
        let log = std::fs::read_to_string(system.server.service().log()).unwrap();
        assert!(log.contains("is not a SCRAM verifier"), "the refusal is not in the log");
        assert!(!log.contains("correct-horse-battery"));
        registry.set_credential(row.id, Some("SCRAM-SHA-256$4096:a$b:c"), Some(b"digest")).await.unwrap();
        let row = registry.by_id(row.id).await.unwrap().unwrap();
        let text = format!("{row:?}");
        assert!(!text.contains("SCRAM") && !text.contains("digest: Some(["), "{text}");
    }
}
