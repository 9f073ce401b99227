//! Limits in PostgreSQL after another plan, a changed plan, or changed usage.

use std::time::Instant;

use k8s_openapi::api::core::v1::Event;
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use tenantry::api::{
    conditions::{READY, STALLED, WITHIN_LIMITS, find_condition},
    limit::LimitValue,
    tenant::Tenant,
    tenant_status::{Access, HoldMode, TenantState, WorkflowKind},
};
use tenantry_test_support::{Fleet, shared_operator::superuser};

/// The error that the tenant's application gets: its SQLSTATE, and the limit that it names.
fn refused(result: sqlx::Result<impl Sized>) -> (String, String) {
    let Err(error) = result else { panic!("a limit was passed") };
    let error = error.into_database_error().unwrap();
    (error.code().unwrap().into_owned(), error.constraint().unwrap_or_default().to_owned())
}

async fn add_user(session: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO users (email) VALUES ($1)")
        .bind(format!("{name}@acme.example"))
        .execute(session)
        .await
        .map(drop)
}

async fn count_users(session: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(session).await.unwrap()
}

/// Old and new values of each change of plan in the activity log.
async fn plan_changes(slug: &str) -> Vec<Value> {
    sqlx::query_scalar(
        "SELECT details FROM activity a JOIN tenants t ON t.id = a.tenant_id
         WHERE t.slug = $1 AND a.action = 'PlanChanged' ORDER BY a.id",
    )
    .bind(slug)
    .fetch_all(&mut superuser("tenantry_system").await)
    .await
    .unwrap()
}

async fn limit_is(fleet: &Fleet, name: &str, limit: &'static str, value: i64) -> Tenant {
    let so = move |tenant: Option<&Tenant>| {
        let status = tenant.and_then(|tenant| tenant.status.as_ref());
        status.is_some_and(|status| status.limits.get(limit) == Some(&LimitValue::Number(value)))
    };
    fleet.wait(name, &format!("at {limit} {value}"), so).await
}

#[tokio::test]
async fn upgrade_applies_soon_and_downgrade_refuses_only_growth() {
    let fleet = Fleet::new("limits-change").await;
    fleet.apply_plan("limits-small", json!({"limits": {"users": 2, "connections": 3}})).await;
    let large = json!({"limits": {"users": 9, "connections": "unlimited", "seats": 7}, "features": ["sso"], "sla": "99.9"});
    fleet.apply_plan("limits-large", large).await;
    fleet.apply("lim-change", json!({"plan": "limits-small"})).await;
    fleet.ready("lim-change").await;
    let mut session = fleet.login("lim-change").await.unwrap();
    for name in ["a", "b"] {
        add_user(&mut session, name).await.unwrap();
    }
    let full = ("TNLIM".to_owned(), "users".to_owned());
    assert_eq!(refused(add_user(&mut session, "c").await), full);

    let begun = Instant::now();
    fleet.apply("lim-change", json!({"plan": "limits-large"})).await;
    // Within two seconds on an idle machine.
    fleet.until("there is room").is_true(async || add_user(&mut session, "c").await.is_ok()).await;
    println!("an upgrade was in force {:?} after it was applied", begun.elapsed());
    let status = limit_is(&fleet, "lim-change", "users", 9).await.status.unwrap();
    assert_eq!((status.plan.as_deref(), &status.features), (Some("limits-large"), &vec!["sso".to_owned()]));
    let status = fleet.ready("lim-change").await.status.unwrap();
    assert_eq!(status.workflow.unwrap().kind, WorkflowKind::ChangePlan);
    add_user(&mut session, "d").await.unwrap();
    // What the application reads, and what a gateway reads.
    let (plan, limits, usage): (String, Value, Value) =
        sqlx::query_as("SELECT plan, limits, usage FROM tenantry.entitlements")
            .fetch_one(&mut session)
            .await
            .unwrap();
    let wanted = json!({"users": 9, "connections": "unlimited", "seats": 7, "tempFileBytes": 1_073_741_824});
    assert_eq!((plan.as_str(), &limits), ("limits-large", &wanted));
    assert_eq!(usage["users"], 4);
    for (key, value) in [
        ("plan", "limits-large"),
        ("features", "sso"),
        ("limit.seats", "7"),
        ("limit.connections", "unlimited"),
    ] {
        assert_eq!(fleet.secret("lim-change-db", key).await, value);
    }

    let begun = Instant::now();
    fleet.apply("lim-change", json!({"plan": "limits-small"})).await;
    limit_is(&fleet, "lim-change", "users", 2).await;
    println!("a downgrade was in force {:?} after it was applied", begun.elapsed());
    assert_eq!(refused(add_user(&mut session, "e").await), full);
    assert_eq!(count_users(&mut session).await, 4);
    session.execute("UPDATE users SET name = 'still here'").await.unwrap();
    let status = fleet.ready("lim-change").await.status.unwrap();
    let within = find_condition(&status.conditions, WITHIN_LIMITS).unwrap();
    assert_eq!((within.status.as_str(), within.reason.as_str()), ("False", "LimitExceeded"), "{status:#?}");
    assert!(within.message.starts_with("users: 4 in use, 2 allowed"), "{}", within.message);
    assert_eq!((status.access, status.state), (Some(Access::ReadWrite), Some(TenantState::Active)));
    session.execute("DELETE FROM users WHERE email IN ('a@acme.example', 'b@acme.example')").await.unwrap();
    assert_eq!(refused(add_user(&mut session, "e").await), full);
    session.execute("DELETE FROM users WHERE email = 'c@acme.example'").await.unwrap();
    add_user(&mut session, "e").await.unwrap();
    // The next usage sample shows it.
    fleet
        .wait("lim-change", "near its limit", |tenant: Option<&Tenant>| {
            let status = tenant.and_then(|tenant| tenant.status.as_ref());
            let within = status.and_then(|status| find_condition(&status.conditions, WITHIN_LIMITS));
            within.is_some_and(|within| within.reason == "NearLimit")
        })
        .await;

    let changes = plan_changes("lim-change").await;
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert_eq!(
        (&changes[0]["from"]["plan"], &changes[0]["from"]["limits"]["users"]),
        (&json!("limits-small"), &json!(2))
    );
    assert_eq!(
        (&changes[0]["to"]["plan"], &changes[0]["to"]["limits"]["users"]),
        (&json!("limits-large"), &json!(9))
    );
    assert_eq!((&changes[1]["from"], &changes[1]["to"]), (&changes[0]["to"], &changes[0]["from"]));
}

#[tokio::test]
async fn changed_plan_reaches_its_tenant_and_limits_connections() {
    let fleet = Fleet::new("limits-plan").await;
    fleet.apply_plan("limits-edited", json!({"limits": {"connections": 2, "projects": 1, "seats": 7}})).await;
    fleet.apply("lim-edited", json!({"plan": "limits-edited"})).await;
    fleet.ready("lim-edited").await;
    assert_eq!(fleet.secret("lim-edited-db", "limit.seats").await, "7");
    // A session in which the operator logged in as the tenant may still end.
    let next = async || {
        let wait = fleet.until("there is a session left");
        wait.observe(async || fleet.login("lim-edited").await).await
    };
    let mut first = next().await;
    let _second = next().await;
    let (code, _) = refused(fleet.login("lim-edited").await);
    assert_eq!(code, "53300");
    first.execute("INSERT INTO projects (name) VALUES ('one')").await.unwrap();
    let full = refused(first.execute("INSERT INTO projects (name) VALUES ('two')").await);
    assert_eq!(full, ("TNLIM".to_owned(), "projects".to_owned()));

    fleet.apply_plan("limits-edited", json!({"limits": {"connections": 3, "projects": 2}})).await;
    limit_is(&fleet, "lim-edited", "projects", 2).await;
    let _third = next().await;
    first.execute("INSERT INTO projects (name) VALUES ('two')").await.unwrap();
    assert_eq!(plan_changes("lim-edited").await.len(), 1);
    // A limit that the plan no longer has is removed everywhere, and leaves no drift.
    let status = fleet.ready("lim-edited").await.status.unwrap();
    assert_eq!(status.workflow.unwrap().kind, WorkflowKind::ChangePlan);
    let secret = fleet.secrets.get("lim-edited-db").await.unwrap().data.unwrap();
    assert!(!secret.contains_key("limit.seats") && secret["limit.projects"].0 == b"2", "{:?}", secret.keys());

    // A manual change is repaired.
    let unlimited = "ALTER ROLE tenant_lim_edited_app CONNECTION LIMIT -1";
    superuser("postgres").await.execute(unlimited).await.unwrap();
    fleet
        .wait("lim-edited", "repaired", |tenant: Option<&Tenant>| {
            let workflow = tenant.and_then(|tenant| tenant.status.as_ref()?.workflow.as_ref());
            workflow.is_some_and(|workflow| {
                workflow.kind == WorkflowKind::Repair && workflow.finished_at.is_some()
            })
        })
        .await;
    assert_eq!(refused(fleet.login("lim-edited").await).0, "53300");
}

#[tokio::test]
async fn custom_limit_is_required_and_other_limits_have_no_effect() {
    let fleet = Fleet::new("limits-custom").await;
    fleet.apply_plan("limits-custom", json!({"limits": {"users": 5, "seats": "custom"}})).await;
    fleet.apply("lim-custom", json!({"plan": "limits-custom"})).await;
    let status = fleet.reason("lim-custom", STALLED, "LimitNotSet").await.status.unwrap();
    let ready = find_condition(&status.conditions, READY).unwrap();
    assert!(ready.message.contains("write a number, or unlimited, for seats"), "{}", ready.message);
    fleet.apply("lim-custom", json!({"plan": "limits-custom", "limits": {"seats": 12, "users": 500}})).await;
    let status = fleet.ready("lim-custom").await.status.unwrap();
    assert_eq!(status.limits["seats"], LimitValue::Number(12));
    assert_eq!(status.limits["users"], LimitValue::Number(5));
    let within = find_condition(&status.conditions, WITHIN_LIMITS).unwrap();
    assert!(within.message.contains("spec.limits has no effect on users"), "{}", within.message);
    // The tenant keeps its limits until the missing one is set.
    fleet.apply("lim-custom", json!({"plan": "limits-custom"})).await;
    let status = fleet.reason("lim-custom", STALLED, "LimitNotSet").await.status.unwrap();
    assert_eq!((&status.limits["seats"], status.access), (&LimitValue::Number(12), Some(Access::ReadWrite)));
}

#[tokio::test]
async fn tenant_over_storage_limit_may_read_and_delete() {
    let fleet = Fleet::new("limits-storage").await;
    fleet.apply_plan("limits-storage", json!({"limits": {"storageBytes": 20 << 20}})).await;
    fleet.apply("lim-storage", json!({"plan": "limits-storage"})).await;
    fleet.ready("lim-storage").await;
    let mut session = fleet.login("lim-storage").await.unwrap();
    let fill = "INSERT INTO activity_log (action, details)
        SELECT 'filled', jsonb_build_object('text', repeat(md5(n::text), 30)) FROM generate_series(1, 20000) AS n";
    session.execute(fill).await.unwrap();
    session.close().await.unwrap();

    let status = fleet.access("lim-storage", Access::ShrinkOnly).await.status.unwrap();
    assert_eq!((status.state, status.holds.len()), (Some(TenantState::Suspended), 1));
    assert_eq!((status.holds[0].name.as_str(), status.holds[0].mode), ("quota", HoldMode::ShrinkOnly));
    let within = find_condition(&status.conditions, WITHIN_LIMITS).unwrap();
    assert_eq!((within.status.as_str(), within.reason.as_str()), ("False", "LimitExceeded"));
    assert!(status.usage.unwrap().amounts["storageBytes"] >= 20 << 20);
    let ready = find_condition(&status.conditions, READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "Suspended"));

    let mut session = fleet.login("lim-storage").await.unwrap();
    for grows in [fill, "UPDATE activity_log SET action = 'changed'"] {
        assert_eq!(refused(session.execute(grows).await).0, "42501");
    }
    // The older half: no space becomes free at the end of the table.
    let half = session.execute("DELETE FROM activity_log WHERE id <= 10000").await.unwrap();
    assert_eq!(half.rows_affected(), 10_000);
    session.close().await.unwrap();
    let status = fleet.access("lim-storage", Access::ReadWrite).await.status.unwrap();
    assert_eq!((status.state, status.holds.len()), (Some(TenantState::Active), 0));
    let mut session = fleet.login("lim-storage").await.unwrap();
    session.execute("INSERT INTO activity_log (action) VALUES ('again')").await.unwrap();

    let events = Api::<Event>::namespaced(fleet.client.clone(), "limits-storage");
    let about = ListParams::default().fields("involvedObject.name=lim-storage");
    let wait = fleet.until("an Event reports the limit");
    wait.observe(async || {
        let events = events.list(&about).await.unwrap();
        let reasons: Vec<String> = events.into_iter().filter_map(|event| event.reason).collect();
        if reasons.iter().any(|reason| reason == "LimitExceeded") { Ok(()) } else { Err(reasons) }
    })
    .await;

    // A larger plan lifts the hold at once.
    session.execute(fill).await.unwrap();
    session.close().await.unwrap();
    fleet.access("lim-storage", Access::ShrinkOnly).await;
    fleet.apply_plan("limits-storage-large", json!({"limits": {"storageBytes": 1 << 30}})).await;
    let begun = Instant::now();
    fleet.apply("lim-storage", json!({"plan": "limits-storage-large"})).await;
    fleet.access("lim-storage", Access::ReadWrite).await;
    println!("full access {:?} after a larger plan was applied", begun.elapsed());
}

#[tokio::test]
async fn enterprise_example_waits_for_its_gates() {
    let fleet = Fleet::new("limits-example").await;
    let example = include_str!("../../examples/enterprise/hooli.yaml");
    let mut tenant: Tenant = serde_saphyr::from_str(example).unwrap();
    tenant.metadata.namespace = Some("limits-example".into());
    fleet.tenants.create(&PostParams::default(), &tenant).await.unwrap();
    let status = fleet.ready("hooli").await.status.unwrap();
    assert_eq!(status.open_gates, ["go-live", "sso", "users"]);
    assert_eq!(status.limits["storageBytes"], LimitValue::Number(100 << 30));
}

#[tokio::test]
async fn open_gates_block_tenant_until_all_are_done() {
    let fleet = Fleet::new("limits-gates").await;
    fleet.apply_plan("limits-gates", json!({"gates": [{"name": "contract"}, {"name": "sso"}]})).await;
    let gates = |gates: &[(&str, bool)]| {
        let gates: Vec<Value> =
            gates.iter().map(|(name, done)| json!({"name": name, "done": done})).collect();
        json!({"plan": "limits-gates", "gates": gates})
    };
    fleet.apply("lim-gates", gates(&[("go-live", false)])).await;
    let status = fleet.ready("lim-gates").await.status.unwrap();
    assert_eq!(status.open_gates, ["contract", "go-live", "sso"]);
    assert_eq!((status.access, status.state), (Some(Access::Blocked), Some(TenantState::Suspended)));
    assert!(status.workflow.unwrap().steps.iter().any(|step| step.name == "Verify"));
    assert!(fleet.login("lim-gates").await.is_err());
    // Its history is complete, although it was written to the registry twice.
    let history: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM workflow_steps s JOIN workflows w ON w.id = s.workflow_id
         JOIN tenants t ON t.id = w.tenant_id
         WHERE t.slug = 'lim-gates' AND w.outcome = 'Succeeded' AND s.state = 'Succeeded'",
    )
    .fetch_one(&mut superuser("tenantry_system").await)
    .await
    .unwrap();
    assert_eq!(history, 12);

    fleet.apply("lim-gates", gates(&[("go-live", true), ("contract", true)])).await;
    fleet
        .wait("lim-gates", "waiting for sso", |tenant: Option<&Tenant>| {
            tenant
                .and_then(|tenant| tenant.status.as_ref())
                .is_some_and(|status| status.open_gates == ["sso"])
        })
        .await;
    fleet.apply("lim-gates", gates(&[("go-live", true), ("contract", true), ("sso", true)])).await;
    fleet.access("lim-gates", Access::ReadWrite).await;
    fleet.login("lim-gates").await.unwrap();
    // A gate removed from the manifest stays done; a gate set back to not done blocks.
    fleet.apply("lim-gates", json!({"plan": "limits-gates"})).await;
    let status = fleet.ready("lim-gates").await.status.unwrap();
    assert_eq!((status.access, status.open_gates.len()), (Some(Access::ReadWrite), 0));
    fleet.apply("lim-gates", gates(&[("sso", false)])).await;
    fleet.access("lim-gates", Access::Blocked).await;
    // A new gate of a plan does not block an active tenant.
    fleet.apply_plan("limits-no-gates", json!({})).await;
    fleet.apply("lim-gated-late", json!({"plan": "limits-no-gates"})).await;
    fleet.ready("lim-gated-late").await;
    fleet.apply("lim-gated-late", json!({"plan": "limits-gates"})).await;
    let moved = |tenant: Option<&Tenant>| {
        let status = tenant.and_then(|tenant| tenant.status.as_ref());
        status.is_some_and(|status| status.plan.as_deref() == Some("limits-gates"))
    };
    let status = fleet.wait("lim-gated-late", "on the other plan", moved).await.status.unwrap();
    assert_eq!(status.access, Some(Access::ReadWrite));

    let changes: Vec<Value> = sqlx::query_scalar(
        "SELECT details FROM activity a JOIN tenants t ON t.id = a.tenant_id
         WHERE t.slug = 'lim-gates' AND a.action = 'GateChanged' ORDER BY a.id",
    )
    .fetch_all(&mut superuser("tenantry_system").await)
    .await
    .unwrap();
    let of_sso: Vec<(&Value, &Value)> = changes
        .iter()
        .filter(|change| change["gate"] == "sso")
        .map(|change| (&change["from"], &change["to"]))
        .collect();
    let (no, yes, none) = (json!(false), json!(true), Value::Null);
    assert_eq!(of_sso, [(&none, &no), (&no, &yes), (&yes, &no)]);
}

#[tokio::test]
async fn admin_over_user_limit_is_refused_until_larger_plan() {
    let fleet = Fleet::new("limits-admins").await;
    fleet.apply_plan("limits-one", json!({"limits": {"users": 1}})).await;
    fleet.apply_plan("limits-two", json!({"limits": {"users": 2}})).await;
    let admins = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({"email": format!("{name}@acme.example")})).collect()
    };
    fleet.apply("lim-admins", json!({"plan": "limits-one", "admins": admins(&["ada"])})).await;
    fleet.ready("lim-admins").await;
    fleet.apply("lim-admins", json!({"plan": "limits-one", "admins": admins(&["ada", "bob"])})).await;
    let status = fleet.reason("lim-admins", READY, "LimitReached").await.status.unwrap();
    let ready = find_condition(&status.conditions, READY).unwrap();
    let words = ["spec.admins: 2 admins", "plan \"limits-one\"", "limit \"users\""];
    assert!(words.iter().all(|word| ready.message.contains(word)), "{}", ready.message);
    fleet.apply("lim-admins", json!({"plan": "limits-two", "admins": admins(&["ada", "bob"])})).await;
    let full = |tenant: Option<&Tenant>| {
        let status = tenant.and_then(|tenant| tenant.status.as_ref());
        let usage = status.and_then(|status| status.usage.as_ref());
        usage.is_some_and(|usage| usage.amounts.get("users") == Some(&2))
    };
    fleet.wait("lim-admins", "at two users", full).await;
    fleet.ready("lim-admins").await;
}
