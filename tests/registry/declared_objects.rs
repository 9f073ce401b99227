//! Changes of objects that belong to no tenant.

use serde_json::{Map, Value, json};
use tenantry::domain::{
    attribution::{Actor, RecordedChanges},
    declaration::{
        Declaration,
        objects::{ObjectName, RecordedObject, deletion_row, object_rows},
    },
};

use crate::system::System;

fn declared(generation: i64, rank: i64) -> Declaration {
    let spec = Map::from_iter([("rank".to_owned(), json!(rank))]);
    Declaration { object: "one".into(), generation, spec, slug_reason: None }
}

#[tokio::test]
async fn each_change_of_an_object_is_recorded_once() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let object = ObjectName { kind: "TenantPlan".into(), name: "starter".into() };
        let (first, second) = (declared(1, 10), declared(2, 20));
        let created = object_rows(&object, None, &first, None, &RecordedChanges::of("1 * ada", 1));
        let changes = RecordedChanges::of("2 rank bob\n1 * ada", 2);
        let updated = object_rows(&object, Some(&first), &second, None, &changes);
        registry.record_object(&object, &first, &created).await.unwrap();
        // Another process was faster.
        registry.record_object(&object, &first, &created).await.unwrap();
        registry.record_object(&object, &second, &updated).await.unwrap();
        registry.record_object(&object, &first, &created).await.unwrap();
        let recorded = RecordedObject { object, declaration: second };
        assert_eq!(registry.declared_objects().await.unwrap(), std::slice::from_ref(&recorded));
        let row = deletion_row(&recorded, &Actor::of_deletion(false));
        registry.record_deleted_object("one", &row).await.unwrap();
        registry.record_deleted_object("one", &row).await.unwrap();
        assert!(registry.declared_objects().await.unwrap().is_empty());

        let log: Vec<(String, String, Value)> = sqlx::query_as(
            "SELECT action, actor, details -> 'fields' -> 'rank' FROM object_activity
             WHERE kind = 'TenantPlan' AND name = 'starter' ORDER BY id",
        )
        .fetch_all(&mut system.session().await)
        .await
        .unwrap();
        let expected = [
            ("Created", "ada", json!({"to": 10})),
            ("Updated", "bob", json!({"from": 10, "to": 20})),
            ("Deleted", "unknown (deletion)", json!({"from": 20})),
        ];
        let expected = expected.map(|(action, actor, rank)| (action.to_owned(), actor.to_owned(), rank));
        assert_eq!(log, expected);
    }
}
