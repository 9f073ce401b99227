//! A login that an adoption keeps, in the tenant's row.

use jiff::{SignedDuration, Timestamp};
use tenantry::{
    domain::{
        names::DatabaseNaming,
        observed::Takeover,
        takeover::{Former, FormerLogin},
    },
    registry::NewTenant,
};
use uuid::Uuid;

use crate::system::{System, created, tenant};

fn former() -> Former {
    let login = FormerLogin { oid: 4711, name: "shop".into(), comment: None, connection_limit: -1 };
    Former {
        oid: 5,
        owner: "shop".into(),
        comment: None,
        connection_limit: -1,
        rights: vec![],
        objects: vec![],
        login: Some(login),
    }
}

#[tokio::test]
async fn adoption_records_the_kept_login_and_an_undo_or_its_end_forgets_it() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let naming = DatabaseNaming::Existing { database: "kept_shop".to_owned() };
        let id = created(&registry, &NewTenant { naming, ..tenant("kept-acme") }).await.id;
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let until = at + SignedDuration::from_hours(24);
        for _ in 0..2 {
            // Its oid is recorded only once its comment says whose it is.
            let row = registry.begin_takeover(id, &former(), Some(until), at, "ada").await.unwrap();
            assert_eq!(row.placement.previous_login.as_deref(), Some("shop"));
            let previous = row.credentials.previous.unwrap();
            assert_eq!((previous.kept_until, previous.since, previous.oid), (Some(until), Some(at), None));
            let row = registry.finish_takeover(id, &[]).await.unwrap();
            assert_eq!(row.credentials.previous.unwrap().oid, Some(4711));
            assert_eq!(registry.former_database(id).await.unwrap(), Some(former()));
            let row = registry.record_given_back(id).await.unwrap();
            assert!(row.placement.previous_login.is_none() && row.credentials.previous.is_none());
        }
        registry.begin_takeover(id, &former(), Some(until), at, "ada").await.unwrap();
        let ended = registry.end_rotation(id, 1, Uuid::from_u128(7)).await.unwrap();
        assert!(ended.changed && ended.record.credentials.previous.is_none());
        // Nor does the login of a later rotation have its date.
        let row = registry.begin_rotation(id, "kept_shop_b", Uuid::from_u128(7)).await.unwrap().record;
        assert_eq!(row.credentials.previous.unwrap().kept_until, None);

        // Without a login to keep, there is none.
        let naming = DatabaseNaming::Existing { database: "kept_none".to_owned() };
        let id = created(&registry, &NewTenant { naming, ..tenant("kept-none") }).await.id;
        let without = Former { login: None, ..former() };
        let row = registry.begin_takeover(id, &without, None, at, "ada").await.unwrap();
        assert_eq!(row.credentials.previous, None);
        assert_eq!(registry.finish_takeover(id, &[]).await.unwrap().takeover, Some(Takeover::Done));
    }
}
