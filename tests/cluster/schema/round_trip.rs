//! The Rust types and the schemas agree: the API server stores every value of the types unchanged.

use std::collections::BTreeMap;
use tenantry::api::{
    API_VERSION, MANAGED_BY,
    conditions::{self, ConditionStatus, condition},
    database_server::*,
    limit::*,
    plan::*,
    reason::Reason,
    tenant::*,
    tenant_adoption::*,
    tenant_credentials::*,
    tenant_status::*,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use tenantry_test_support::shared_operator;

fn now() -> Timestamp {
    "2026-11-21T12:34:56Z".parse().unwrap()
}

fn time() -> Option<Time> {
    Some(Time(now()))
}

fn all_conditions() -> Vec<Condition> {
    let make =
        |type_: &&str| condition(type_, ConditionStatus::Unknown, Reason::NotReached, "", Some(3), now());
    conditions::TYPES.iter().map(make).collect()
}

/// A status with a value in every field; a new field must be added here.
fn tenant_status() -> TenantStatus {
    TenantStatus {
        observed_generation: Some(3),
        state: Some(TenantState::Active),
        plan: Some("professional".into()),
        granted_plan: Some("gold".into()),
        access: Some(Access::ReadWrite),
        tenant_id: Some("6f0c1f6e-7d7b-4b8e-9f0a-0123456789ab".into()),
        slug: Some("acme-old".into()),
        server: Some("default".into()),
        database: Some("tenant_acme".into()),
        adoption: Some(AdoptionStatus {
            database: "old".into(),
            state: Some(AdoptionState::Adopted),
            digest: Some("ab12".into()),
            owner: Some("ada".into()),
            changes: vec!["x".into()],
            blockers: vec!["y".into()],
        }),
        schema: Some("acme".into()),
        credentials: Some(CredentialsStatus {
            login: Some("tenant_acme_b".into()),
            issued_at: time(),
            previous_login: Some("tenant_acme_app".into()),
            previous_valid_until: time(),
            reader: Some(ReaderStatus {
                login: "tenant_acme_ro".into(),
                secret_name: "acme-db-ro".into(),
                issued_at: time(),
            }),
        }),
        binding: Some(Binding { name: "acme-db".into() }),
        modules: vec![ModuleStatus {
            name: "core".into(),
            version: 2,
            target: 2,
            version_name: Some("2026.11.2".into()),
            target_name: Some("2026.11.3".into()),
            state: Some(ModuleState::Current),
            message: Some("x".into()),
        }],
        limits: BTreeMap::from([
            ("storageBytes".into(), LimitValue::Number(10 << 30)),
            ("users".into(), LimitValue::Word(LimitWord::Unlimited)),
        ]),
        features: vec!["scim".into(), "sso".into()],
        open_gates: vec!["contract".into()],
        usage: Some(Usage {
            measured_at: time(),
            amounts: BTreeMap::from([("storageBytes".into(), 8 << 30)]),
        }),
        holds: vec![HoldStatus {
            name: "billing".into(),
            preserve: Some(true),
            mode: HoldMode::ShrinkOnly,
            trigger: Some(SuspensionTrigger::PaymentFailure),
            reason: Some("unpaid".into()),
            placed_by: Some("ada".into()),
            since: time(),
        }],
        trial_ends_at: time(),
        suspended_at: time(),
        deprovisioned_at: time(),
        purge_after: time(),
        state_updated_at: time(),
        state_updated_by: Some("ada".into()),
        workflow: Some(WorkflowStatus {
            id: "0b1c".into(),
            kind: WorkflowKind::Provision,
            attempt: 1,
            started_at: time(),
            finished_at: time(),
            next_attempt_at: time(),
            steps: vec![StepStatus {
                name: "CreateDatabase".into(),
                state: StepState::Failed,
                attempts: 2,
                started_at: time(),
                finished_at: time(),
                message: Some("disk full".into()),
                sql_state: Some("53100".into()),
            }],
        }),
        conditions: all_conditions(),
    }
}

#[tokio::test]
async fn tenant_is_stored_as_written() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-round-trip").await;
    let tenants: Api<Tenant> = Api::namespaced(client, &namespace);
    let spec = TenantSpec {
        slug: "round-trip".into(),
        display_name: "Round Trip".into(),
        plan: "starter".into(),
        state: Some(DesiredState::Active),
        state_reason: Some("as agreed".into()),
        suspension: Some(Suspension {
            mode: Some(SuspensionMode::ReadOnly),
            trigger: Some(SuspensionTrigger::Inactivity),
        }),
        offboarding: Some(Offboarding {
            trigger: Some(OffboardingTrigger::NonPayment),
            reason: Some("unpaid".into()),
            grace_period_seconds: Some(0),
            export: Some(false),
        }),
        deletion_policy: Some(DeletionPolicy::Purge),
        admins: vec![Admin {
            email: "ada@acme.example".into(),
            name: Some("Ada".into()),
            credential: Some(AdminCredential::OneTimePassword),
        }],
        server: Some("elsewhere".into()),
        isolation: Some(Isolation::Database),
        demo_data: Some(true),
        settings: BTreeMap::from([("theme".into(), json!({"dark": true, "list": [1, 2.5, "x"]}))]),
        provisioning: Some(Provisioning { on_failure: Some(OnFailure::Resume) }),
        account_namespace: Some(String::new()),
        connection_secret_name: Some("round-trip-database".into()),
        credentials: Some(Credentials {
            rotate_after_seconds: Some(7200),
            overlap_seconds: Some(0),
            reader: Some(true),
        }),
        paused: Some(true),
        trial: None,
        validity: None,
        gates: vec![
            Gate { name: "contract".into(), done: true },
            Gate { name: "go-live".into(), done: false },
        ],
        limits: BTreeMap::from([
            ("storageBytes".into(), LimitValue::Number(10 << 30)),
            ("users".into(), LimitValue::Word(LimitWord::Unlimited)),
        ]),
        // Always refused.
        server_selector: None,
        purge_modules: vec!["wiki".into()],
        modules: vec![ModuleChoice { name: "core".into(), version: Some("2".into()) }],
        adopt: Some(Adopt {
            database: "old".into(),
            confirm: Some("ab12".into()),
            baseline: BTreeMap::from([("core".into(), "2".into())]),
            keep_login: Some(KeepLogin { name: "shop".into(), until: Time(now()) }),
        }),
        bootstrap: None,
    };
    let tenant = Tenant::new("round-trip", spec.clone());
    let created = tenants.create(&PostParams::default(), &tenant).await.unwrap();
    assert_eq!(created.spec, spec);
    let unseen = TenantStatus { observed_generation: Some(-1), ..Default::default() };
    assert_eq!(created.status, Some(unseen));

    // The shared operator writes a status as another manager; dry runs do not conflict with it.
    let status = tenant_status();
    let patch = json!({"apiVersion": API_VERSION, "kind": "Tenant", "status": status});
    let params = PatchParams { dry_run: true, ..PatchParams::apply(MANAGED_BY).force() };
    let patched = tenants.patch_status("round-trip", &params, &Patch::Apply(&patch)).await.unwrap();
    assert_eq!(patched.status, Some(status));
}

#[tokio::test]
async fn statuses_of_cluster_resources_are_stored_as_written() {
    let client = shared_operator::client().await;
    let params = PatchParams { dry_run: true, ..PatchParams::apply(MANAGED_BY).force() };

    let plans: Api<TenantPlan> = Api::all(client.clone());
    plans.create(&PostParams::default(), &TenantPlan::new("round-trip", Default::default())).await.unwrap();
    let status = TenantPlanStatus {
        observed_generation: Some(1),
        used_by: Some(1000),
        pending: Some(0),
        conditions: all_conditions(),
    };
    let patch = json!({"apiVersion": API_VERSION, "kind": "TenantPlan", "status": status});
    let patched = plans.patch_status("round-trip", &params, &Patch::Apply(&patch)).await.unwrap();
    assert_eq!(patched.status, Some(status));

    let servers: Api<DatabaseServer> = Api::all(client);
    let spec = DatabaseServerSpec {
        engine: Engine::PostgreSQL,
        host: "db.example".into(),
        port: Some(5433),
        admin_secret_ref: SecretRef { name: "db-admin".into() },
        tls: Some(ServerTls {
            mode: Some(TlsMode::VerifyCa),
            ca_secret_ref: Some(SecretKeyRef { name: "db-ca".into(), key: "ca.crt".into() }),
        }),
        publish: Some(Publish {
            host: Some("pooler.example".into()),
            port: Some(6432),
            sslmode: Some(SslMode::VerifyFull),
        }),
        prefix: Some("t_".into()),
        database_names: Some(DatabaseNames::Opaque),
        allowed_namespaces: Some(vec![]),
        allow_adoption: vec!["shop_*".into()],
        capacity: None,
        warm_pool: Some(0),
    };
    let metadata = ObjectMeta { name: Some("round-trip".into()), ..Default::default() };
    let server = DatabaseServer { metadata, spec: spec.clone(), status: None };
    let created = servers.create(&PostParams::default(), &server).await.unwrap();
    assert_eq!(created.spec, spec);
    let status = DatabaseServerStatus {
        observed_generation: Some(1),
        version: Some("18.1".into()),
        tenants: Some(7),
        pending: Some(3),
        conditions: all_conditions(),
    };
    let patch = json!({"apiVersion": API_VERSION, "kind": "DatabaseServer", "status": status});
    let patched = servers.patch_status("round-trip", &params, &Patch::Apply(&patch)).await.unwrap();
    assert_eq!(patched.status, Some(status));
}

#[test]
fn absent_fields_are_not_written() {
    assert_eq!(serde_json::to_value(TenantStatus::default()).unwrap(), json!({}));
    assert_eq!(serde_json::to_value(TenantPlanStatus::default()).unwrap(), json!({}));
    assert_eq!(serde_json::to_value(TenantPlanSpec::default()).unwrap(), json!({}));
    assert_eq!(serde_json::to_value(DatabaseServerStatus::default()).unwrap(), json!({}));
    assert_eq!(
        serde_json::to_value(TenantSpec::default()).unwrap(),
        json!({"slug": "", "displayName": "", "plan": ""})
    );
}
