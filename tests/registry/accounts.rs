//! What a customer's administrator changed is recorded once, and stays with the row.

use serde_json::{Map, json};
use tenantry::domain::{
    account::{AccountPlace, AccountRecord},
    declaration::{ChangeRow, Declaration},
};

use crate::system::{System, created, tenant};

#[tokio::test]
async fn account_is_recorded_with_its_changes() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let new = created(&registry, &tenant("acme")).await;
        assert_eq!(new.account, AccountRecord::default());
        // The place comes first, without a row of the log.
        let place = AccountPlace { namespace: "acme".into(), name: "acme".into() };
        let placed = AccountRecord { place: Some(place), ..AccountRecord::default() };
        let before = registry.record_account(&new, &placed, &[]).await.unwrap().unwrap();
        assert_eq!(before.account, placed);
        let declaration =
            Declaration { object: "uid".into(), generation: 2, spec: Map::new(), slug_reason: None };
        let changed = AccountRecord {
            declaration: Some(declaration),
            display_name: Some("Acme Inc".into()),
            settings: [("theme".to_owned(), json!({"dark": true}))].into(),
            ..placed
        };
        let rows = [ChangeRow {
            action: "AccountUpdated",
            actor: "owner@acme.example".into(),
            reason: None,
            details: json!({"generation": 2}),
        }];
        let after = registry.record_account(&before, &changed, &rows).await.unwrap().unwrap();
        assert_eq!(after.account, changed);
        assert_eq!((&after.name, &after.settings), (&new.name, &new.settings), "the Tenant's own stay");
        // As it was read before that.
        assert_eq!(registry.record_account(&before, &changed, &rows).await.unwrap(), None);
        let log: Vec<String> = sqlx::query_scalar(
            "SELECT actor FROM activity WHERE tenant_id = $1 AND action = 'AccountUpdated'",
        )
        .bind(new.id.0)
        .fetch_all(&mut system.session().await)
        .await
        .unwrap();
        assert_eq!(log, ["owner@acme.example"]);
    }
}
