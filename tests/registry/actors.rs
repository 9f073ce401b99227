//! Who changed a tenant: changes of its declaration, and holds.

use jiff::Timestamp;
use serde_json::{Map, json};
use tenantry::{
    domain::{
        access::holds::{Hold, Party, with},
        declaration::{ChangeRow, Declaration},
    },
    registry::{HoldChange, NewTenant},
};
use uuid::Uuid;

use crate::system::{System, created, tenant};

fn row(action: &'static str, actor: &str) -> ChangeRow {
    ChangeRow {
        action,
        actor: actor.into(),
        reason: Some("because".into()),
        details: json!({"generation": 2}),
    }
}

#[tokio::test]
async fn each_change_is_recorded_once() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let new = NewTenant { created: vec![row("Created", "ada"), row("Updated", "bob")], ..tenant("acme") };
        let before = created(&registry, &new).await;
        assert_eq!(before.declaration.as_ref(), Some(&new.declaration));
        let spec = Map::from_iter([("plan".to_owned(), json!("free"))]);
        let next = Declaration { generation: 2, spec, ..new.declaration.clone() };
        let changes = [row("Updated", "carol"), row("Updated", "unknown (not recorded)")];
        let run = Uuid::new_v4();
        let after = registry.record_declaration(&before, &next, &changes, Some(run)).await.unwrap().unwrap();
        assert_eq!(after.declaration.as_ref(), Some(&next));
        // As it was read before that.
        assert_eq!(registry.record_declaration(&before, &next, &changes, Some(run)).await.unwrap(), None);
        let log: Vec<(String, String, Option<String>, Option<Uuid>)> = sqlx::query_as(
            "SELECT action, actor, reason, correlation_id FROM activity WHERE tenant_id = $1 ORDER BY id",
        )
        .bind(before.id.0)
        .fetch_all(&mut system.session().await)
        .await
        .unwrap();
        let logged: Vec<_> =
            log.iter().map(|(action, actor, ..)| (action.as_str(), actor.as_str())).collect();
        let expected = [
            ("Created", "ada"),
            ("Updated", "bob"),
            ("Requested", "ada"),
            ("Registered", "ada"),
            ("Updated", "carol"),
            ("Updated", "unknown (not recorded)"),
        ];
        assert_eq!(logged, expected);
        assert_eq!((log[4].2.as_deref(), log[4].3, log[3].2.as_deref()), (Some("because"), Some(run), None));
    }
}

#[tokio::test]
async fn placer_belongs_to_one_hold() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let hold = Hold {
            name: "billing".into(),
            mode: None,
            preserve: None,
            trigger: None,
            reason: "unpaid".into(),
            since: Timestamp::constant(1_800_000_000, 123_456_789),
            party: Party::TenantHold,
        };
        let after = with(&[], hold.clone()).unwrap();
        let change =
            HoldChange { before: &[], after: &after, hold: &hold, actor: "ada", placed_by: Some("ada") };
        let held = registry.change_holds(row.id, &change).await.unwrap().unwrap();
        assert_eq!((held.placed_by(&hold), held.holds_changed_by.as_deref()), (Some("ada"), Some("ada")));
        let lifted = HoldChange { before: &after, after: &[], hold: &hold, actor: "bob", placed_by: None };
        let free = registry.change_holds(row.id, &lifted).await.unwrap().unwrap();
        assert!(free.hold_actors.is_empty());
        assert_eq!(free.holds_changed_by.as_deref(), Some("bob"));
        // A release that does not record who placed a hold lifts one, and places another of its name.
        registry.change_holds(row.id, &change).await.unwrap().unwrap();
        let later = Hold { since: Timestamp::constant(1_900_000_000, 0), ..hold.clone() };
        let query = "UPDATE tenants SET holds = $2 WHERE id = $1";
        let query = sqlx::query(query).bind(row.id.0).bind(sqlx::types::Json(vec![&later]));
        query.execute(&mut system.session().await).await.unwrap();
        let found = registry.by_id(row.id).await.unwrap().unwrap();
        assert_eq!((found.placed_by(&found.holds[0]), found.holds[0].since), (None, later.since));
        let log: Vec<(String, String, Option<String>)> = sqlx::query_as(
            "SELECT action, actor, reason FROM activity WHERE tenant_id = $1 AND action LIKE 'Hold%' ORDER BY id",
        )
        .bind(row.id.0)
        .fetch_all(&mut system.session().await)
        .await
        .unwrap();
        let placed = ("HoldPlaced".to_owned(), "ada".to_owned(), Some("unpaid".to_owned()));
        assert_eq!(log, [placed.clone(), ("HoldLifted".to_owned(), "bob".to_owned(), None), placed]);
    }
}
