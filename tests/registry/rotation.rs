//! The rotation of a tenant's credentials, in its row.

use jiff::{SignedDuration, Timestamp};
use tenantry::registry::NewCredentials;
use uuid::Uuid;

use crate::system::{System, created, tenant};

#[tokio::test]
async fn rotation_keeps_the_previous_login_until_it_is_ended() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("rotate-acme")).await.id;
        let run = Uuid::from_u128(7);
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let verifier = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy";
        let new = NewCredentials { verifier, digest: &[1], request: None, at };
        let row = registry.record_credentials(id, &new).await.unwrap().record;
        let first = row.placement.login.clone();
        assert_eq!((row.credentials.issued_at, row.credentials.previous), (Some(at), None));

        let second = format!("{}_b", row.placement.database);
        let row = registry.begin_rotation(id, &second, run).await.unwrap().record;
        assert_eq!((&row.placement.login, row.placement.previous_login.as_ref()), (&second, Some(&first)));
        let previous = row.credentials.previous.unwrap();
        assert_eq!((previous.verifier.unwrap().0.as_str(), previous.since), (verifier, None));
        assert!(row.password_verifier.is_none() && row.login_oid.is_none());
        // A second rotation has to wait for its end.
        let again = registry.begin_rotation(id, &first, run).await.unwrap();
        assert!(!again.changed && again.record.placement.login == second);

        let later = at + SignedDuration::from_secs(5);
        let new = NewCredentials { digest: &[2], request: Some("leak"), at: later, ..new };
        registry.record_credentials(id, &new).await.unwrap();
        let row = registry.record_publication(id, later).await.unwrap().record;
        assert_eq!(row.credentials.previous.unwrap().since, Some(later));
        assert_eq!(row.credentials.request.as_deref(), Some("leak"));
        let again = registry.record_publication(id, later + SignedDuration::from_secs(5)).await.unwrap();
        assert!(!again.changed, "its time began once");

        let ended = registry.end_rotation(id, 3, run).await.unwrap();
        assert!(ended.changed && ended.record.placement.previous_login.is_none());
        assert_eq!(ended.record.credentials.previous, None);
        assert!(!registry.end_rotation(id, 0, run).await.unwrap().changed);
        // A password that answers no request keeps the last one.
        let new = NewCredentials { request: None, ..new };
        let row = registry.record_credentials(id, &new).await.unwrap().record;
        assert_eq!(row.credentials.request.as_deref(), Some("leak"));
    }
}

#[tokio::test]
async fn reader_login_gets_another_password_with_a_rotation_and_leaves_nothing() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("reader-acme")).await.id;
        let run = Uuid::from_u128(8);
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let name = "tenant_reader_acme_ro";
        let added = registry.add_reader(id, name, run).await.unwrap();
        assert!(added.changed && added.record.placement.reader_login.as_deref() == Some(name));
        assert!(!registry.add_reader(id, "another_ro", run).await.unwrap().changed);
        let verifier = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy";
        let new = NewCredentials { verifier, digest: &[1], request: None, at };
        let row = registry.record_reader(id, Some(&new), Some(4711)).await.unwrap().record;
        let reader = row.credentials.reader.unwrap();
        assert_eq!((reader.oid, reader.issued_at, reader.verifier.is_some()), (Some(4711), Some(at), true));
        assert_eq!(reader.digest.unwrap().0, [1]);

        let second = format!("{}_b", row.placement.database);
        let row = registry.begin_rotation(id, &second, run).await.unwrap().record;
        let reader = row.credentials.reader.unwrap();
        assert!(reader.verifier.is_none() && reader.digest.is_none() && reader.oid == Some(4711));
        assert_eq!(row.placement.reader_login.as_deref(), Some(name));

        let removed = registry.remove_reader(id, 2, run).await.unwrap();
        assert!(removed.changed && removed.record.placement.reader_login.is_none());
        assert_eq!(removed.record.credentials.reader, None);
        assert!(!registry.remove_reader(id, 0, run).await.unwrap().changed);
        let row = registry.record_reader(id, Some(&new), None).await.unwrap().record;
        assert_eq!(row.credentials.reader, None, "there is none to record anything of");
    }
}
