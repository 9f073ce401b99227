//! A tenant that was moved to another Tenant, and a slug that was used before.

use jiff::SignedDuration;
use tenantry::registry::Registration;
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, close, created, in_use, passed, refused, tenant},
};

#[tokio::test]
async fn tombstone_is_moved_until_its_purge_begins() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        registry.activate(row.id, &in_use(), &[], Uuid::new_v4()).await.unwrap();
        let mut session = system.session().await;
        let moves = "SELECT move_tenant('acme', 'others', 'acme-2')";
        assert_eq!(refused(&mut session, moves).await, "TN001");
        registry.begin_deprovisioning(row.id, &tombstone(false), None).await.unwrap();
        created(&registry, &tenant("beta")).await;
        for refusal in [
            "SELECT move_tenant('acme', 'NS WRONG', 'acme')",
            "SELECT move_tenant('acme', 'others', '')",
            "SELECT move_tenant('acme', NULL, 'acme')",
            "SELECT move_tenant('acme', 'customers', 'beta')",
        ] {
            assert_eq!(refused(&mut session, refusal).await, "TN001", "{refusal}");
        }
        let mut moved = tenant("acme");
        (moved.resource_namespace, moved.resource_name) = ("others".into(), "acme-2".into());
        moved.resource_uid = "uid-of-moved".into();
        let taken = registry.register(&moved).await.unwrap();
        assert!(matches!(&taken, Registration::SlugTaken(owner) if owner.id == row.id), "{taken:?}");
        let id: Uuid = sqlx::query_scalar(moves).fetch_one(&mut session).await.unwrap();
        assert_eq!(id, row.id.0);
        // The former object, which still has the uid of the row, does not get it back.
        let former = registry.register(&tenant("acme")).await.unwrap();
        assert!(matches!(&former, Registration::SlugTaken(owner) if owner.id == row.id), "{former:?}");
        let found = registry.register(&moved).await.unwrap();
        assert!(matches!(&found, Registration::Existing(found) if found.id == row.id), "{found:?}");
        let logged: String =
            sqlx::query_scalar("SELECT details->>'from' FROM activity WHERE action = 'Moved'")
                .fetch_one(&mut session)
                .await
                .unwrap();
        assert_eq!(logged, "customers/acme");
        let (zero, run) = (SignedDuration::ZERO, Uuid::new_v4());
        assert!(passed(&registry.begin_purge(row.id, "uid-of-moved", zero, run).await.unwrap()));
        assert_eq!(refused(&mut session, moves).await, "TN001");

        // The next tenant with this slug names this one.
        assert!(passed(&close(&registry, row.id, run).await.unwrap()));
        let Registration::Created { row: next, former } = registry.register(&tenant("acme")).await.unwrap()
        else {
            panic!("not created");
        };
        let former = former.unwrap();
        assert_eq!((former.id, former.object.as_str()), (row.id, "others/acme-2"));
        assert_ne!(next.id, row.id);
        let Registration::Created { former, .. } = registry.register(&tenant("other")).await.unwrap() else {
            panic!("not created");
        };
        assert_eq!(former, None);
    }
}
