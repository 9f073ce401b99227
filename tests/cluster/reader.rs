//! The reader login of a tenant, on a server with TLS and an authority of its own.

use std::{collections::BTreeSet, fs, path::PathBuf};

use kube::{
    api::{DeleteParams, Patch, PatchParams},
    runtime::wait::Condition,
};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use tenantry::api::{
    ANNOTATION_ROTATE_CREDENTIALS, conditions::DEPROVISIONED, conditions::REACHABLE, tenant::Tenant,
    tenant_credentials::ReaderStatus, tenant_status::Access,
};
use tenantry_dev::{PostgresOptions, certificates::Authority};
use tenantry_test_support::{Fleet, is_ready};

use crate::{
    secrets::event,
    servers::{FaultyServer, LOGIN, PASSWORD},
};

const NAME: &str = "reader-tls";
const OWN: &str = "reader-tls-db";
const READER: &str = "reader-tls-db-ro";
const ROLE: &str = "tenant_reader_tls_ro";

/// A server with TLS, and where a Secret's certificates are on this machine.
struct Stage {
    server: FaultyServer,
    directory: Directory,
}

/// A directory, until this is dropped.
struct Directory(PathBuf);

impl Stage {
    async fn set() -> Self {
        let authority = Authority::new("reader").unwrap();
        let tls = Some(authority.server(&["127.0.0.1"]).unwrap());
        let server = FaultyServer::new(NAME, PostgresOptions { tls, ..PostgresOptions::default() }).await;
        let ca = json!({"username": LOGIN, "password": PASSWORD, "ca.crt": authority.certificate()});
        server.put_secret(ca, 1).await;
        server.apply(json!({"caSecretRef": {"name": NAME, "key": "ca.crt"}})).await;
        server.reason(REACHABLE, "Connected", "").await;
        let directory = std::env::temp_dir().join(format!("tenantry-reader-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("certificates"), authority.certificate()).unwrap();
        Self { server, directory: Directory(directory) }
    }

    fn fleet(&self) -> &Fleet {
        &self.server.fleet
    }

    /// Applies the tenant with a reader login or without one, and more.
    async fn apply(&self, reader: bool, mut spec: Value) {
        spec["server"] = json!(NAME);
        if reader {
            spec["credentials"] = json!({"reader": true});
        }
        self.fleet().apply(NAME, spec).await;
    }

    /// The URI in a Secret, as an application with the Secret mounted reads it.
    async fn uri(&self, secret: &str) -> String {
        let uri = self.fleet().secret(secret, "uri-mounted").await;
        let mounted = format!("/bindings/{secret}");
        assert!(uri.contains("sslmode=verify-full") && uri.contains(&mounted), "{uri}");
        uri.replace(&mounted, &self.directory.0.display().to_string())
    }

    async fn keys(&self, secret: &str) -> BTreeSet<String> {
        self.fleet().secrets.get(secret).await.unwrap().data.unwrap().into_keys().collect()
    }

    /// Waits until the Ready tenant shows its reader login, or that it has none.
    async fn shown(&self, is_there: bool) -> Option<ReaderStatus> {
        let ready = is_ready();
        let reader = |tenant: &Tenant| tenant.status.as_ref()?.credentials.as_ref()?.reader.clone();
        let holds = move |tenant: Option<&Tenant>| {
            ready.matches_object(tenant) && tenant.and_then(reader).is_some() == is_there
        };
        reader(&self.fleet().wait(NAME, "Ready as to its reader login", holds).await)
    }

    async fn has_role(&self) -> bool {
        let exists = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)").bind(ROLE);
        exists.fetch_one(&mut self.server.postgres.connect("postgres").await.unwrap()).await.unwrap()
    }

    /// Waits until the reader login's Secret has another URI than this one, with which no client connects any more.
    async fn replaced(&self, old: &str) -> String {
        let wait = self.fleet().until("the reader login has another password");
        let secrets = &self.fleet().secrets;
        wait.is_true(async || {
            secrets.get_opt(READER).await.unwrap().is_some() && self.uri(READER).await != old
        })
        .await;
        // The Secret has it before the login does, and the status may be the one of before.
        let new = self.uri(READER).await;
        let wait = self.fleet().until("the new password is valid");
        wait.is_true(async || PgConnection::connect(&new).await.is_ok()).await;
        assert!(PgConnection::connect(old).await.is_err());
        new
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn writes(uri: &str) -> sqlx::Result<()> {
    let mut session = PgConnection::connect(uri).await?;
    session.execute("INSERT INTO users (email) VALUES ('reader@acme.example')").await?;
    session.close().await
}

async fn reads(session: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(session).await.unwrap()
}

#[tokio::test]
async fn reader_login_lives_as_long_as_it_is_asked_for_and_is_restricted_with_its_tenant() {
    let stage = Stage::set().await;
    // A new tenant is not Ready before it has the login that was asked for.
    let mut spec = json!({"server": NAME, "credentials": {"reader": true}});
    stage.fleet().apply("reader-new", spec.clone()).await;
    let new = stage.fleet().ready("reader-new").await;
    assert!(new.status.unwrap().credentials.unwrap().reader.is_some());
    stage.fleet().secrets.get("reader-new-db-ro").await.unwrap();
    spec["offboarding"] = json!({"gracePeriodSeconds": 0});
    (spec["state"], spec["stateReason"]) = (json!("Deprovisioned"), json!("left"));
    stage.fleet().apply("reader-new", spec).await;
    stage.fleet().reason("reader-new", DEPROVISIONED, "Deprovisioned").await;

    stage.apply(false, json!({})).await;
    stage.shown(false).await;
    stage.apply(true, json!({})).await;
    let shown = stage.shown(true).await.unwrap();
    assert_eq!((shown.login.as_str(), shown.secret_name.as_str()), (ROLE, READER));
    assert!(shown.issued_at.is_some());
    assert_eq!(stage.keys(READER).await, stage.keys(OWN).await);

    let (own, first) = (stage.uri(OWN).await, stage.uri(READER).await);
    writes(&own).await.unwrap();
    let mut session = PgConnection::connect(&first).await.unwrap();
    assert_eq!(reads(&mut session).await, 1);
    let refused = writes(&first).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"));

    // A hold that leaves reading leaves it alone; a suspension ends its sessions.
    stage.fleet().apply_hold("reader-audit", NAME, json!({"mode": "ReadOnly"})).await;
    stage.fleet().access(NAME, Access::ReadOnly).await;
    assert_eq!(reads(&mut session).await, 1);
    stage.fleet().delete_hold("reader-audit").await;
    let blocked = json!({"state": "Suspended", "stateReason": "unpaid", "suspension": {"mode": "Blocked"}});
    stage.apply(true, blocked).await;
    stage.fleet().access(NAME, Access::Blocked).await;
    assert!(session.execute("SELECT 1").await.is_err());
    assert!(PgConnection::connect(&first).await.is_err());
    stage.apply(true, json!({})).await;
    stage.fleet().access(NAME, Access::ReadWrite).await;
    PgConnection::connect(&first).await.unwrap();

    // It has one password at a time.
    stage.fleet().secrets.delete(READER, &DeleteParams::default()).await.unwrap();
    let second = stage.replaced(&first).await;
    assert!(event(stage.fleet(), NAME, "PasswordReplaced").await.contains(READER));
    let rotate = json!({"metadata": {"annotations": {ANNOTATION_ROTATE_CREDENTIALS: "reader"}}});
    stage.fleet().tenants.patch(NAME, &PatchParams::default(), &Patch::Merge(rotate)).await.unwrap();
    let third = stage.replaced(&second).await;
    let mut session = PgConnection::connect(&third).await.unwrap();

    stage.apply(false, json!({})).await;
    stage.shown(false).await;
    assert!(session.execute("SELECT 1").await.is_err());
    assert!(!stage.has_role().await && stage.fleet().secrets.get_opt(READER).await.unwrap().is_none());
    let mut session = PgConnection::connect(&stage.uri(OWN).await).await.unwrap();
    assert_eq!(reads(&mut session).await, 1, "the login stays");

    stage.apply(true, json!({})).await;
    stage.shown(true).await;
    PgConnection::connect(&stage.uri(READER).await).await.unwrap();
    let leaves =
        json!({"state": "Deprovisioned", "stateReason": "left", "offboarding": {"gracePeriodSeconds": 0}});
    stage.apply(true, leaves).await;
    stage.fleet().reason(NAME, DEPROVISIONED, "Deprovisioned").await;
    assert!(!stage.has_role().await && stage.fleet().secrets.get_opt(READER).await.unwrap().is_none());
    stage.server.leave().await;
}
