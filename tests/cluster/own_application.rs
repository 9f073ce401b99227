//! A tenant without `core` and `identity`: one module, the application's own, with its own `users`, `settings`, admins and
//! limit, through its whole life.

use serde_json::json;
use sqlx::{Executor, PgConnection};
use tenantry::api::tenant_status::Access;
use tenantry_test_support::shared_operator::{database_exists, registry_status};

use crate::modules::Modules;

const TENANT: &str = "own-application";

const TABLES: &str = "
CREATE TABLE users (email text PRIMARY KEY, name text NOT NULL, password text, is_admin boolean NOT NULL DEFAULT false);
CREATE TABLE settings (name text PRIMARY KEY, value jsonb);
CREATE TABLE projects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL);
SELECT tenantry.meter('projects', 'public.projects');
CREATE FUNCTION seed_admin(admin jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.users (email, name, is_admin) VALUES (admin ->> 'email', admin ->> 'name', true)
    ON CONFLICT (email) DO UPDATE SET is_admin = NOT coalesce((admin ->> 'removed')::boolean, false)
$$;
SELECT tenantry.on_admin('public.seed_admin');";

async fn rows(session: &mut PgConnection, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(session).await.unwrap()
}

async fn code(session: &mut PgConnection, sql: &'static str) -> String {
    let error = session.execute(sql).await.unwrap_err();
    error.as_database_error().unwrap().code().unwrap().into_owned()
}

const MORE: &str = "INSERT INTO projects (title) VALUES ('more')";

#[tokio::test]
async fn application_with_its_own_users_lives_without_core_and_identity() {
    let modules = Modules::new("own-application").await;
    let fleet = &modules.fleet;
    let first = ("0001_tables.sql", TABLES);
    modules.files("own-application", &[first]).await;
    modules.apply("own-application", json!({})).await;
    modules.accepted("own-application", "1").await;
    fleet
        .apply_plan("own-application", json!({"limits": {"projects": 1}, "modules": ["own-application"]}))
        .await;
    fleet
        .apply_plan("own-application-2", json!({"limits": {"projects": 3}, "modules": ["own-application"]}))
        .await;
    let with = |changes: serde_json::Value| {
        let mut spec = json!({
            "plan": "own-application", "admins": [{"email": "ada@own.example", "name": "Ada"}],
            "settings": {"theme": "dark"},
        });
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        spec
    };
    fleet.apply(TENANT, with(json!({}))).await;
    let status = fleet.ready(TENANT).await.status.unwrap();
    let names: Vec<&str> = status.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(names, ["tenantry", "own-application"]);

    // The admin is in the application's table, and redeems the token of the Secret once.
    let mut app = fleet.login(TENANT).await.unwrap();
    assert_eq!(rows(&mut app, "SELECT email || ' ' || is_admin FROM users").await, ["ada@own.example true"]);
    assert_eq!(rows(&mut app, "SELECT key || value FROM tenantry.settings").await, ["theme\"dark\""]);
    let issued = fleet.secret(&format!("{TENANT}-admin"), "admins.json").await;
    let issued: serde_json::Value = serde_json::from_str(&issued).unwrap();
    let token = issued[0]["secret"].as_str().unwrap();
    let redeem = "SELECT email FROM tenantry.redeem($1)";
    for expected in [Some("ada@own.example".to_owned()), None] {
        let found: Option<String> =
            sqlx::query_scalar(redeem).bind(token).fetch_optional(&mut app).await.unwrap();
        assert_eq!(found, expected);
    }
    app.execute("UPDATE users SET password = 'x' WHERE email = 'ada@own.example'").await.unwrap();

    app.execute(MORE).await.unwrap();
    assert_eq!(code(&mut app, MORE).await, "TNLIM");

    let suspended =
        json!({"state": "Suspended", "stateReason": "unpaid", "suspension": {"mode": "ReadOnly"}});
    fleet.apply(TENANT, with(suspended)).await;
    fleet.access(TENANT, Access::ReadOnly).await;
    let mut reader = fleet.login(TENANT).await.unwrap();
    assert_eq!(rows(&mut reader, "SELECT title FROM projects").await, ["more"]);
    assert_eq!(code(&mut reader, "DELETE FROM projects").await, "42501");
    fleet.apply(TENANT, with(json!({}))).await;
    fleet.access(TENANT, Access::ReadWrite).await;

    fleet.apply(TENANT, with(json!({"plan": "own-application-2"}))).await;
    assert_eq!(fleet.ready(TENANT).await.status.unwrap().plan.as_deref(), Some("own-application-2"));
    let mut app = fleet.login(TENANT).await.unwrap();
    app.execute(MORE).await.unwrap();

    let second = ("0002_archive.sql", "ALTER TABLE projects ADD COLUMN archived_at timestamptz");
    modules.files("own-application", &[first, second]).await;
    modules.at(TENANT, "own-application", 2).await;
    fleet.ready(TENANT).await;
    let mut app = fleet.login(TENANT).await.unwrap();
    app.execute("UPDATE projects SET archived_at = now()").await.unwrap();
    assert_eq!(rows(&mut app, "SELECT password FROM users").await, ["x"]);

    fleet.delete(TENANT).await;
    assert!(!database_exists("tenant_own_application").await);
    assert_eq!(registry_status(TENANT).await.as_deref(), Some("deprovisioned"));
}
