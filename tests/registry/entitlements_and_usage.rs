//! Entitlements, usage and gates in the registry.

use jiff::Timestamp;
use serde_json::{Value, json};
use tenantry::{
    domain::{
        access::gates::EffectiveGate,
        usage::entitlements::{Amounts, Entitlements},
    },
    registry::{Declared, NewPlan, NewTenant, Registration},
};
use uuid::Uuid;

use crate::system::{System, created, in_use, tenant};

fn plan(name: &str, users: Option<i64>) -> Entitlements {
    Entitlements {
        plan: name.into(),
        limits: [("users".to_owned(), users)].into(),
        features: vec!["sso".into()],
        sla: None,
        modules: Vec::new(),
    }
}

fn amounts(amounts: &[(&str, i64)]) -> Amounts {
    amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
}

#[tokio::test]
async fn plan_change_logs_old_and_new_entitlements() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (id, run) = (created(&registry, &tenant("acme")).await.id, Uuid::new_v4());
        let (small, large) = (plan("starter", Some(20)), plan("professional", None));
        let used = amounts(&[("users", 3)]);
        let new = |entitlements| NewPlan {
            entitlements,
            usage: &used,
            at: Timestamp::UNIX_EPOCH,
            actor: "ada",
            generation: Some(2),
        };
        assert!(registry.record_entitlements(id, &new(&small), run).await.unwrap().changed);
        assert!(!registry.record_entitlements(id, &new(&small), run).await.unwrap().changed);
        // A database that is lost while it is being built loses its limits.
        registry.forget_contents(id).await.unwrap();
        assert_eq!(registry.by_id(id).await.unwrap().unwrap().entitlements, None);
        assert!(registry.record_entitlements(id, &new(&small), run).await.unwrap().changed);
        registry.activate(id, &in_use(), &["contract".to_owned()], run).await.unwrap();
        registry.forget_contents(id).await.unwrap();
        assert!(registry.record_entitlements(id, &new(&large), run).await.unwrap().changed);
        assert!(!registry.record_entitlements(id, &new(&large), run).await.unwrap().changed);
        let row = registry.by_id(id).await.unwrap().unwrap();
        assert_eq!((row.plan.as_str(), &row.entitlements), ("professional", &Some(large.clone())));
        assert_eq!(row.usage, used);
        assert_eq!(row.default_gates, Some(vec!["contract".to_owned()]));
        let mut session = system.session().await;
        let log: Vec<(Value, Option<Uuid>)> = sqlx::query_as(
            "SELECT details, correlation_id FROM activity WHERE tenant_id = $1 AND action = 'PlanChanged'",
        )
        .bind(id.0)
        .fetch_all(&mut session)
        .await
        .unwrap();
        assert_eq!(log, [(json!({"from": small, "to": large}), Some(run))]);
        let shown: (Value, Value) = sqlx::query_as("SELECT limits, features FROM tenants_public")
            .fetch_one(&mut session)
            .await
            .unwrap();
        assert_eq!(shown, (json!({"users": null}), json!(["sso"])));
    }
}

#[tokio::test]
async fn each_changed_gate_is_logged() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let gate = |name: &str, done| EffectiveGate { name: name.into(), done };
        let declare = async |gates: &[EffectiveGate]| {
            let declared = Declared {
                name: &row.name,
                settings: &row.settings,
                retain: false,
                gates,
                gates_done_at: None,
                gates_changed_by: "ada",
            };
            registry.update_declared(row.id, &declared).await.unwrap().changed
        };
        assert!(!declare(&[]).await);
        assert!(declare(&[gate("contract", false), gate("sso", false)]).await);
        assert!(!declare(&[gate("contract", false), gate("sso", false)]).await);
        assert!(declare(&[gate("contract", true), gate("sso", false)]).await);
        assert!(declare(&[gate("contract", true)]).await);
        let mut session = system.session().await;
        let log: Vec<(String, Value)> = sqlx::query_as(
            "SELECT action, details FROM activity WHERE tenant_id = $1 AND action NOT IN ('Requested', 'Registered')
             ORDER BY id, details ->> 'gate'",
        )
        .bind(row.id.0)
        .fetch_all(&mut session)
        .await
        .unwrap();
        let changed = |gate: &str, from: Option<bool>, to: Option<bool>| {
            ("GateChanged".to_owned(), json!({"gate": gate, "from": from, "to": to}))
        };
        let mut wanted = vec![
            changed("contract", None, Some(false)),
            changed("sso", None, Some(false)),
            changed("contract", Some(false), Some(true)),
            changed("sso", Some(false), None),
        ];
        // The two rows of the first statement have no fixed order.
        let mut found = log;
        found[..2].sort_by_key(|(_, details)| details.to_string());
        wanted[..2].sort_by_key(|(_, details)| details.to_string());
        assert_eq!(found, wanted);
        assert_eq!(registry.by_id(row.id).await.unwrap().unwrap().gates, [gate("contract", true)]);
    }
}

#[tokio::test]
async fn activation_without_open_gates_sets_gates_done_at() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let now = in_use();
        let (free, gated) =
            (created(&registry, &tenant("acme")).await, created(&registry, &tenant("globex")).await);
        let gates = [EffectiveGate { name: "contract".into(), done: false }];
        let declared = Declared {
            name: &gated.name,
            settings: &gated.settings,
            retain: false,
            gates: &gates,
            gates_done_at: None,
            gates_changed_by: "ada",
        };
        registry.update_declared(gated.id, &declared).await.unwrap();
        for (row, done) in [(free, true), (gated, false)] {
            registry.activate(row.id, &now, &[], Uuid::new_v4()).await.unwrap();
            let row = registry.by_id(row.id).await.unwrap().unwrap();
            assert_eq!(row.gates_done_at, row.activated_at.filter(|_| done), "{}", row.slug);
        }
    }
}

#[tokio::test]
async fn counted_writes_outlive_the_process() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (a, b) =
            (created(&registry, &tenant("acme")).await.id, created(&registry, &tenant("globex")).await.id);
        let used = amounts(&[("users", 1)]);
        registry.record_usage(&[(a, used.clone()), (b, used)], Timestamp::UNIX_EPOCH).await.unwrap();
        assert!(registry.counted_writes().await.unwrap().is_empty());
        registry.record_counted_writes(&[]).await.unwrap();
        registry.record_counted_writes(&[(a, 7)]).await.unwrap();
        registry.record_counted_writes(&[(a, 8)]).await.unwrap();
        assert_eq!(system.registry("two").await.counted_writes().await.unwrap(), [(a, 8)].into());
    }
}

#[tokio::test]
async fn usage_is_recorded_currently_and_by_day() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (a, b) =
            (created(&registry, &tenant("acme")).await.id, created(&registry, &tenant("globex")).await.id);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        registry
            .record_seed(a, "digest", &amounts(&[("users", 1)]), at("2026-03-01T23:00:00Z"))
            .await
            .unwrap();
        let both = [(a, amounts(&[("users", 4), ("storageBytes", 100)])), (b, amounts(&[("users", 9)]))];
        registry.record_usage(&both, at("2026-03-01T23:59:59Z")).await.unwrap();
        registry.record_usage(&[(a, amounts(&[("users", 2)]))], at("2026-03-01T23:59:59.5Z")).await.unwrap();
        registry.record_usage(&[(a, amounts(&[("users", 3)]))], at("2026-03-02T00:00:00Z")).await.unwrap();
        // An unknown tenant does not fail the statement for the others.
        let stranger = (tenantry::domain::identity::TenantId(Uuid::new_v4()), amounts(&[("users", 7)]));
        registry.record_usage(&[stranger], at("2026-03-02T00:00:00Z")).await.unwrap();
        registry.record_usage(&[], at("2026-03-03T00:00:00Z")).await.unwrap();
        // A recreated object has the same tenant, with its usage.
        let again = NewTenant { resource_uid: "another".into(), ..tenant("acme") };
        let Registration::Existing(row) = registry.register(&again).await.unwrap() else { panic!("no row") };
        assert_eq!(row.usage, amounts(&[("users", 3), ("storageBytes", 100)]));
        let row = registry.by_id(a).await.unwrap().unwrap();
        assert_eq!(row.usage, amounts(&[("users", 3), ("storageBytes", 100)]));
        assert_eq!(
            (row.measured_at, row.seed_digest.as_deref()),
            (Some(at("2026-03-02T00:00:00Z")), Some("digest"))
        );
        let mut session = system.session().await;
        let history: Vec<(String, String, i64, i64, i64, i32)> = sqlx::query_as(
            "SELECT slug, day::text || ' ' || name, minimum, maximum, last, samples FROM usage_public
             ORDER BY slug, day, name",
        )
        .fetch_all(&mut session)
        .await
        .unwrap();
        let day = |slug: &str, what: &str, minimum, maximum, last, samples| {
            (slug.to_owned(), what.to_owned(), minimum, maximum, last, samples)
        };
        assert_eq!(
            history,
            [
                day("acme", "2026-03-01 storageBytes", 100, 100, 100, 1),
                day("acme", "2026-03-01 users", 1, 4, 2, 3),
                // Not measured on that day.
                day("acme", "2026-03-02 storageBytes", 100, 100, 100, 0),
                // The day began with two.
                day("acme", "2026-03-02 users", 2, 3, 3, 1),
                day("globex", "2026-03-01 users", 9, 9, 9, 1),
            ]
        );
    }
}
