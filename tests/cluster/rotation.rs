//! Rotation of a tenant's credentials, while its application works.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::wait::Condition,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::api::{
    ANNOTATION_ROTATE_CREDENTIALS, conditions::DEPROVISIONED, tenant::Tenant,
    tenant_credentials::CredentialsStatus, tenant_status::Access,
};
use tenantry_test_support::{
    Fleet, is_ready,
    shared_operator::{ask, superuser},
};
use tokio::sync::watch;

use crate::secrets::event;

const CLIENTS: usize = 10;
/// Each client reads the mounted files again after so many connections: until then it works with the ones before.
const CONNECTIONS_PER_READ: usize = 5;
/// More than any client makes during the test.
const MOST_READS: usize = 10_000;

/// A client as an application with a mounted Secret is: what it has read may be a little old. Returns its failures.
async fn client(
    secrets: Api<Secret>,
    number: usize,
    used: Arc<watch::Sender<BTreeSet<(usize, String)>>>,
    stop: watch::Receiver<bool>,
) -> Vec<String> {
    let mut failures = Vec::new();
    for _ in 0..MOST_READS {
        if *stop.borrow() {
            return failures;
        }
        let data = secrets.get("rotate-shop-db").await.unwrap().data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        let (uri, login) = (text("uri"), text("username"));
        for _ in 0..CONNECTIONS_PER_READ {
            let works = async {
                let mut session = PgConnection::connect(&uri).await?;
                session.execute("INSERT INTO activity_log (action) VALUES ('rotate')").await?;
                session.close().await
            };
            if let Err(error) = works.await {
                failures.push(format!("client {number} as {login} at {}: {error}", Timestamp::now()));
            }
        }
        used.send_if_modified(|used| used.insert((number, login)));
    }
    failures
}

async fn ask_for_rotation(fleet: &Fleet, name: &str, value: &str) {
    let asked = json!({"metadata": {"annotations": {ANNOTATION_ROTATE_CREDENTIALS: value}}});
    fleet.tenants.patch(name, &PatchParams::default(), &Patch::Merge(asked)).await.unwrap();
}

/// Waits until the status shows these logins.
async fn rotated(fleet: &Fleet, name: &str, login: &str, previous: Option<&str>) -> CredentialsStatus {
    let wanted = (Some(login.to_owned()), previous.map(str::to_owned));
    let ready = is_ready();
    let shown = move |tenant: Option<&Tenant>| {
        let credentials = tenant.and_then(|tenant| tenant.status.as_ref()?.credentials.clone());
        ready.matches_object(tenant)
            && credentials.is_some_and(|found| (found.login, found.previous_login) == wanted)
    };
    let tenant = fleet.wait(name, &format!("with login {login}"), shown).await;
    tenant.status.unwrap().credentials.unwrap()
}

/// Waits until every client has worked with a login.
async fn all_used(used: &watch::Sender<BTreeSet<(usize, String)>>, fleet: &Fleet, login: &str) {
    fleet
        .until(format!("all clients use {login}"))
        .is_true(async || (0..CLIENTS).all(|number| used.borrow().contains(&(number, login.to_owned()))))
        .await;
}

#[tokio::test]
async fn no_client_that_reads_its_secret_again_is_ever_refused() {
    let fleet = Fleet::new("rotate").await;
    fleet.apply("rotate-shop", json!({})).await;
    let before = fleet.ready("rotate-shop").await.status.unwrap();
    let database = before.database.unwrap();
    let (first, second) = (format!("{database}_app"), format!("{database}_b"));
    assert!(before.credentials.unwrap().issued_at.is_some());
    let used = Arc::new(watch::Sender::new(BTreeSet::new()));
    let (stop, stopped) = watch::channel(false);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(fleet.secrets.clone(), number, used.clone(), stopped.clone())))
        .collect();
    all_used(&used, &fleet, &first).await;
    let old_uri = fleet.secret("rotate-shop-db", "uri").await;

    ask_for_rotation(&fleet, "rotate-shop", "first").await;
    let shown = rotated(&fleet, "rotate-shop", &second, Some(&first)).await;
    assert!(shown.previous_valid_until.unwrap().0 > Timestamp::now());
    assert_eq!(fleet.secret("rotate-shop-db", "username").await, second);
    let note = event(&fleet, "rotate-shop", "CredentialsRotated").await;
    assert!(note.contains(&second) && note.contains(&first), "{note}");
    all_used(&used, &fleet, &second).await;
    PgConnection::connect(&old_uri).await.unwrap();

    // The previous login is repaired as the login is, and the value of the annotation counts once.
    superuser("postgres").await.execute(AssertSqlSafe(format!("ALTER ROLE {first} NOLOGIN"))).await.unwrap();
    fleet
        .until("the previous login is repaired")
        .is_true(async || PgConnection::connect(&old_uri).await.is_ok())
        .await;
    // A session of this test that still ends would count as one of the application's.
    let unused = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)";
    fleet
        .until("no session of the previous login")
        .is_true(async || ask("postgres", unused, &first).await)
        .await;
    fleet.apply("rotate-shop", json!({"credentials": {"overlapSeconds": 0}})).await;
    rotated(&fleet, "rotate-shop", &second, None).await;
    assert!(PgConnection::connect(&old_uri).await.is_err());
    event(&fleet, "rotate-shop", "PreviousLoginEnded").await;
    let gone = "SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
    assert!(ask::<bool>("postgres", gone, &first).await);

    // And back to the first name.
    fleet.apply("rotate-shop", json!({"credentials": {"overlapSeconds": 3600}})).await;
    ask_for_rotation(&fleet, "rotate-shop", "second").await;
    rotated(&fleet, "rotate-shop", &first, Some(&second)).await;
    used.send_modify(BTreeSet::clear);
    all_used(&used, &fleet, &first).await;
    stop.send(true).unwrap();
    for client in clients {
        assert_eq!(client.await.unwrap(), [""; 0]);
    }
}

#[tokio::test]
async fn suspension_and_deprovisioning_in_the_overlap_refuse_both_logins() {
    let fleet = Fleet::new("rotate-unpaid").await;
    fleet.apply("rotate-unpaid", json!({})).await;
    fleet.ready("rotate-unpaid").await;
    let old_uri = fleet.secret("rotate-unpaid-db", "uri").await;
    ask_for_rotation(&fleet, "rotate-unpaid", "now").await;
    rotated(&fleet, "rotate-unpaid", "tenant_rotate_unpaid_b", Some("tenant_rotate_unpaid_app")).await;
    let uri = fleet.secret("rotate-unpaid-db", "uri").await;
    let mut sessions =
        [PgConnection::connect(&uri).await.unwrap(), PgConnection::connect(&old_uri).await.unwrap()];
    let blocked = json!({"state": "Suspended", "stateReason": "unpaid", "suspension": {"mode": "Blocked"}});
    fleet.apply("rotate-unpaid", blocked).await;
    fleet.access("rotate-unpaid", Access::Blocked).await;
    for session in &mut sessions {
        assert!(session.execute("SELECT 1").await.is_err());
    }
    for uri in [&uri, &old_uri] {
        assert!(PgConnection::connect(uri).await.is_err());
    }
    fleet.apply("rotate-unpaid", json!({})).await;
    fleet.access("rotate-unpaid", Access::ReadWrite).await;
    for uri in [&uri, &old_uri] {
        PgConnection::connect(uri).await.unwrap();
    }
    let leaves =
        json!({"state": "Deprovisioned", "stateReason": "left", "offboarding": {"gracePeriodSeconds": 0}});
    fleet.apply("rotate-unpaid", leaves).await;
    fleet.reason("rotate-unpaid", DEPROVISIONED, "Deprovisioned").await;
    let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE $1";
    assert_eq!(ask::<i64>("postgres", left, "tenant\\_rotate\\_unpaid\\_%").await, 0);
}
