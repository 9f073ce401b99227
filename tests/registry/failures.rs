//! Each failure has its own reason, and none contains a password.

use sqlx::{AssertSqlSafe, Executor};
use tenantry::{
    api::reason::Reason,
    registry::{Error, Registry},
};
use tenantry_dev::Stop;

use crate::system::{System, created, prepared, tenant, until};

async fn refusal(url: &str) -> Error {
    Registry::connect(url, "one", 5).await.unwrap_err()
}

#[tokio::test]
async fn each_connection_failure_has_its_own_reason() {
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
            assert_eq!((error.reason().as_str(), error.is_permanent()), (reason, permanent), "{error:?}");
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(!text.contains("password\"") && !text.contains("wrong-password"), "{text}");
            }
            if reason == "RegistryLoginRefused" {
                let text = error.to_string();
                assert!(
                    text.ends_with("correct TENANTRY_SYSTEM_DATABASE_URL, and restart the operator"),
                    "{text}"
                );
                assert!(!text.contains("at line"), "{text}");
            }
        }

        // Without server-setup or migrations: first the tables are missing, then the role.
        let registry = system.registry("one").await;
        let error = registry.all_registered().await.unwrap_err();
        assert_eq!((error.reason().as_str(), error.is_permanent()), ("RegistryNotSetUp", true), "{error}");
        assert!(error.to_string().contains("tenantry server-setup"), "{error}");
        registry.migrate().await.unwrap();
        assert!(registry.all_registered().await.unwrap().is_empty());

        admin.execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
        admin.execute("SELECT pg_reload_conf()").await.unwrap();
        // The new setting reaches sessions with a delay.
        let fresh = until("the registry is read-only", async || {
            let fresh = system.registry("fresh").await;
            fresh.register(&tenant("acme")).await.err()
        })
        .await;
        assert_eq!((fresh.reason(), fresh.is_permanent()), (Reason::RegistryReadOnly, false), "{fresh}");

        server.stop(Stop::Fast).await.unwrap();
        let error = refusal(&system.url()).await;
        assert_eq!(
            (error.reason().as_str(), error.is_permanent()),
            ("RegistryUnreachable", false),
            "{error}"
        );
    }
}

#[tokio::test]
async fn failure_says_where_the_registry_is() {
    let error = refusal("postgresql://operator:secret@127.0.0.1:1/tenantry_system").await.to_string();
    // Other tests of this process connect to other registries meanwhile.
    assert!(error.starts_with("registry (127.0.0.1:") && !error.contains("secret"), "{error}");
}

#[tokio::test]
async fn server_without_setup_is_reported() {
    let server = tenantry_dev::Postgres::start(tenantry_dev::PostgresOptions::default()).await.unwrap();
    let error = refusal(&server.admin_url("postgres")).await;
    assert_eq!((error.reason().as_str(), error.is_permanent()), ("RegistryNotSetUp", true), "{error}");
    assert!(error.to_string().contains("tenantry server-setup"), "{error}");
}

#[tokio::test]
async fn exhausted_connections_have_their_own_reason() {
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
    assert_eq!(
        (error.reason().as_str(), error.is_permanent()),
        ("RegistryTooManyConnections", false),
        "{error}"
    );
}

#[tokio::test]
async fn password_is_refused_and_never_logged() {
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
