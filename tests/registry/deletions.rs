//! What the admission webhook asks and records: who deletes an object, and who has a slug.

use jiff::{SignedDuration, Timestamp};
use tenantry::{
    domain::{
        access::holds::{Hold, Party, with},
        slug::Slug,
    },
    registry::{DeletedObject, HoldChange, Tombstone},
};

use crate::{
    registration::tombstone,
    system::{System, created, tenant},
};

fn deleted(uid: &str, at: Option<Timestamp>) -> Option<DeletedObject> {
    Some(DeletedObject { uid: uid.to_owned(), at })
}

#[tokio::test]
async fn deletion_is_that_of_its_user() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let admission = registry.for_admission();
        // The last request counts: the first one was refused.
        admission.record_deletion("uid-acme", "eve").await.unwrap();
        admission.record_deletion("uid-acme", "ada").await.unwrap();
        let id = created(&registry, &tenant("acme")).await.id;
        let stone = Tombstone { deletion: deleted("uid-acme", Some(Timestamp::now())), ..tombstone(false) };
        let begun = registry.begin_deprovisioning(id, &stone, None).await.unwrap().record;
        assert_eq!(begun.status_updated_by, "ada");
        let logged: Vec<String> =
            sqlx::query_scalar("SELECT actor FROM activity WHERE action = 'DeprovisioningBegun'")
                .fetch_all(&mut system.session().await)
                .await
                .unwrap();
        assert_eq!(logged, ["ada"]);
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM deletion_actors")
            .fetch_one(&mut system.session().await)
            .await
            .unwrap();
        assert_eq!(left, 0);
    }
}

#[tokio::test]
async fn request_of_another_time_names_no_one() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let admission = registry.for_admission();
        for (slug, minutes, actor) in [("early", -10, "gone"), ("late", 10, "gone"), ("near", 2, "ada")] {
            let uid = format!("uid-{slug}");
            admission.record_deletion(&uid, "ada").await.unwrap();
            let id = created(&registry, &tenant(slug)).await.id;
            let at = Timestamp::now() + SignedDuration::from_mins(minutes);
            let stone =
                Tombstone { deletion: deleted(&uid, Some(at)), actor: "gone".to_owned(), ..tombstone(false) };
            let begun = registry.begin_deprovisioning(id, &stone, None).await.unwrap().record;
            assert_eq!(begun.status_updated_by, actor, "{slug}");
        }
        // Nothing used the others: they are removed when they are old.
        let mut session = system.session().await;
        sqlx::query(
            "UPDATE deletion_actors SET at = now() - interval '31 days' WHERE object_uid = 'uid-late'",
        )
        .execute(&mut session)
        .await
        .unwrap();
        registry.remove_outdated_deletions().await.unwrap();
        let left: Vec<String> = sqlx::query_scalar("SELECT object_uid FROM deletion_actors")
            .fetch_all(&mut session)
            .await
            .unwrap();
        assert_eq!(left, ["uid-early"]);
    }
}

#[tokio::test]
async fn hold_is_lifted_by_who_deletes_it() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let hold = Hold {
            name: "billing".into(),
            mode: None,
            preserve: None,
            trigger: None,
            reason: "unpaid".into(),
            since: Timestamp::UNIX_EPOCH,
            party: Party::TenantHold,
        };
        let after = with(&[], hold.clone()).unwrap();
        let placed = HoldChange {
            before: &[],
            after: &after,
            hold: &hold,
            actor: "ada",
            deletion: None,
            placed_by: Some("ada"),
        };
        registry.change_holds(row.id, &placed).await.unwrap().unwrap();
        registry.for_admission().record_deletion("uid-hold", "bob").await.unwrap();
        let object = deleted("uid-hold", None);
        let lifted = HoldChange {
            before: &after,
            after: &[],
            hold: &hold,
            actor: "unknown (webhook not reached)",
            deletion: object.as_ref(),
            placed_by: None,
        };
        let row = registry.change_holds(row.id, &lifted).await.unwrap().unwrap();
        assert_eq!(row.holds_changed_by.as_deref(), Some("bob"));
        let logged: Vec<String> =
            sqlx::query_scalar("SELECT actor FROM activity WHERE action LIKE 'Hold%' ORDER BY id")
                .fetch_all(&mut system.session().await)
                .await
                .unwrap();
        assert_eq!(logged, ["ada", "bob"]);
    }
}

#[tokio::test]
async fn owner_of_a_slug_is_found_until_it_is_closed() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let admission = registry.for_admission();
        assert_eq!(admission.slug_owner(&Slug::parse("acme").unwrap()).await.unwrap(), None);
        let new = tenant("acme");
        let row = created(&registry, &new).await;
        registry.begin_deprovisioning(row.id, &tombstone(false), None).await.unwrap();
        let owner = admission.slug_owner(&Slug::parse("acme").unwrap()).await.unwrap().unwrap();
        assert_eq!((owner.id, &owner.resource_name), (row.id, &new.resource_name));
        let has = async |name: &str| admission.has_tenant(&new.resource_namespace, name).await.unwrap();
        assert!(has(&new.resource_name).await && !has("another").await);
        admission.close().await;
        assert!(admission.slug_owner(&Slug::parse("acme").unwrap()).await.is_err());
    }
}
