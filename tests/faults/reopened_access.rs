//! Access to a tenant that is being deprovisioned, granted again by hand or by a restore, is revoked again.

use kube::Api;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use tenantry::api::{
    conditions::{LEFTOVERS, find_condition},
    database_server::DatabaseServer,
};
use tenantry_test_support::{World, login, objects};

#[tokio::test]
async fn reopened_access_is_revoked() {
    let world = World::new("cuts").await;
    world.apply("graced", json!({})).await;
    world.apply("kept", json!({"deletionPolicy": "Retain", "offboarding": {"gracePeriodSeconds": 0}})).await;
    let mut uris = Vec::new();
    for name in ["graced", "kept"] {
        world.fleet.ready(name).await;
        uris.push(world.fleet.secret(&format!("{name}-db"), "uri").await);
        world.fleet.delete(name).await;
    }
    world.until_status("kept", "deprovisioned").await;
    let mut superuser = world.superuser("postgres").await;
    let mut grant = async |name: &str| {
        let back = format!(
            "ALTER ROLE tenant_{name}_app LOGIN; GRANT tenantry_rw TO tenant_{name}_app;
             GRANT CONNECT ON DATABASE tenant_{name} TO tenant_{name}_app"
        );
        superuser.execute(AssertSqlSafe(back)).await.unwrap();
    };
    // A session that was opened meanwhile is ended. While the operator runs, it may revoke the access before.
    let operator = world.installation.operator();
    operator.stop().await.unwrap();
    grant("graced").await;
    let mut open = login(&uris[0]).await.unwrap();
    operator.start().await.unwrap();
    grant("kept").await;
    for uri in &uris {
        world.until("the login is refused", async || login(uri).await.is_err()).await;
    }
    world.until("the session is ended", async || open.execute("SELECT 1").await.is_err()).await;
    let cut = "SELECT access = 'Blocked' FROM tenants WHERE slug = $1";
    world
        .until("the revocation is recorded", async || world.holds("tenantry_system", cut, "graced").await)
        .await;
    for name in ["graced", "kept"] {
        assert!(world.database_exists(&format!("tenant_{name}")).await, "{name}");
    }
}

/// The statements that create a login with a password, a group, and its database, as a restored server has them. Without
/// their comments, they are nothing that the operator looks at.
fn restored(name: &str) -> [String; 2] {
    let (login, database) = (format!("tenant_{name}_app"), format!("tenant_{name}"));
    [
        format!("CREATE DATABASE {database} OWNER tenantry_dba"),
        format!(
            "CREATE ROLE {login} LOGIN PASSWORD 'secret'; GRANT tenantry_rw TO {login};
             REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO {login}"
        ),
    ]
}

/// The statements that mark them as those of a tenant.
fn marked(name: &str, id: &str) -> String {
    format!(
        "COMMENT ON ROLE tenant_{name}_app IS 'tenantry:tenant:{id}';
         COMMENT ON DATABASE tenant_{name} IS 'tenantry:tenant:{id} template:unknown'"
    )
}

#[tokio::test]
async fn leftovers_of_former_and_unknown_tenants_lose_their_access_and_are_not_dropped() {
    let world = World::new("leftovers").await;
    world.apply("gone", json!({"offboarding": {"gracePeriodSeconds": 0}})).await;
    world.apply("fine", json!({})).await;
    let id = world.fleet.ready("gone").await.status.unwrap().tenant_id.unwrap();
    world.fleet.ready("fine").await;
    world.fleet.delete("gone").await;
    world.until_status("gone", "deprovisioned").await;
    // A Tenant that cannot be decoded, and that was not registered, is none of those that the registry does not know.
    let deep = (0..200).fold(json!(1), |inner, _| json!({"a": inner}));
    let mut odd = objects::tenant("odd", json!({"settings": {"deep": deep}}));
    odd["metadata"]["namespace"] = json!(world.name);
    world.kubectl().apply(&odd.to_string()).await.unwrap();
    world.event("odd", "InvalidObject", "at field spec.settings.deep.a").await;
    let port = world.installation.postgres().port();
    let uri = |name: &str| format!("postgresql://tenant_{name}_app:secret@127.0.0.1:{port}/tenant_{name}");
    let mut superuser = world.superuser("postgres").await;
    // One whose row is closed, and one that the registry never knew.
    let leftovers = [("gone", id.as_str()), ("never", "00000000-0000-4000-8000-000000000001")];
    for statement in leftovers.iter().flat_map(|(name, _)| restored(name)) {
        superuser.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    // Connected before the operator can know whose login it is: it revokes its access at once.
    let mut open = login(&uri("gone")).await.unwrap();
    for (name, id) in leftovers {
        superuser.execute(AssertSqlSafe(marked(name, id))).await.unwrap();
    }
    for name in ["gone", "never"] {
        world.until("the login is refused", async || login(&uri(name)).await.is_err()).await;
        assert!(world.database_exists(&format!("tenant_{name}")).await);
    }
    let closed = "SELECT NOT (rolcanlogin OR has_database_privilege(rolname, left(rolname, -4), 'CONNECT'))
                  FROM pg_roles WHERE rolname = $1";
    for login in ["tenant_gone_app", "tenant_never_app"] {
        let is_closed = async || world.holds("postgres", closed, login).await;
        world.until("it has no right left", is_closed).await;
    }
    world.until("the session is ended", async || open.execute("SELECT 1").await.is_err()).await;
    let report = async |reason: &str, part: &str| {
        let server = Api::<DatabaseServer>::all(world.fleet.client.clone()).get(world.name).await.unwrap();
        let conditions = server.status.unwrap_or_default().conditions;
        let found = find_condition(&conditions, LEFTOVERS).cloned();
        found.is_some_and(|found| found.reason == reason && found.message.contains(part))
    };
    let says = "their access is revoked; they are never dropped";
    world.until("the server reports them", async || report("Leftovers", says).await).await;
    assert!(report("Leftovers", "database tenant_gone and login tenant_gone_app").await);

    // Many at once: rather the registry is an old one. In one transaction, since few of them would be cut off.
    let many = (0..10).map(|number| {
        let id = format!("00000000-0000-4000-8000-0000000001{number:02}");
        format!(
            "CREATE ROLE tenant_many_{number}_app LOGIN; COMMENT ON ROLE tenant_many_{number}_app IS 'tenantry:tenant:{id}';"
        )
    });
    superuser.execute(AssertSqlSafe(many.collect::<String>())).await.unwrap();
    let many = "does not know 11 of these tenants";
    world.until("they are reported", async || report("UnknownTenants", many).await).await;
    let kept = "SELECT count(*) FILTER (WHERE rolcanlogin) = $1 FROM pg_roles WHERE rolname LIKE 'tenant\\_many\\_%'";
    assert!(world.holds_number("postgres", kept, 10).await);
    // No other tenant lost anything.
    world.fleet.login("fine").await.unwrap();
}
