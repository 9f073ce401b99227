//! Manual changes are repaired within a minute; a missing database is reported, and never recreated empty.

use std::process::Command;

use futures::future::join_all;
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use tenantry::api::conditions::{READY, find_condition};
use tenantry_dev::Stop;
use tenantry_test_support::{World, login};

/// A tenant, a manual change, and a part of the note of its Event.
const CHANGES: [(&str, &str, &str); 14] = [
    (
        "group",
        "REVOKE tenantry_rw FROM tenant_group_app; GRANT tenantry_ro TO tenant_group_app",
        "member of tenantry_ro",
    ),
    ("connect", "REVOKE CONNECT ON DATABASE tenant_connect FROM tenant_connect_app", "lacked CONNECT"),
    ("opened", "GRANT CONNECT ON DATABASE tenant_opened TO PUBLIC", "PUBLIC had rights"),
    ("database-mark", "COMMENT ON DATABASE tenant_database_mark IS NULL", "database's comment was changed"),
    ("login-mark", "COMMENT ON ROLE tenant_login_mark_app IS 'mine'", "login's comment was changed"),
    ("role-limit", "ALTER ROLE tenant_role_limit_app CONNECTION LIMIT 0", "connection limit of 0"),
    ("database-limit", "ALTER DATABASE tenant_database_limit CONNECTION LIMIT 1", "connection limit of 1"),
    ("nologin", "ALTER ROLE tenant_nologin_app NOLOGIN", "NOLOGIN"),
    ("createdb", "ALTER ROLE tenant_createdb_app CREATEDB", "CREATEDB or CREATEROLE"),
    (
        "renamed",
        "ALTER ROLE tenant_renamed_app RENAME TO tenant_renamed_old",
        "renamed to tenant_renamed_old",
    ),
    ("expired", "ALTER ROLE tenant_expired_app VALID UNTIL '2020-01-01'", "valid until 2020-01-01"),
    (
        "setting",
        "ALTER DATABASE tenant_setting SET default_transaction_read_only = on",
        "settings of its own: default_transaction_read_only",
    ),
    ("template", "ALTER DATABASE tenant_template IS_TEMPLATE true", "IS_TEMPLATE"),
    (
        "dropped",
        "REVOKE CONNECT ON DATABASE tenant_dropped FROM tenant_dropped_app; DROP ROLE tenant_dropped_app",
        "login did not exist",
    ),
];

#[tokio::test]
async fn manual_changes_are_repaired_and_reported() {
    let world = World::new("drift-repair").await;
    join_all(CHANGES.map(|(name, _, _)| world.apply(name, json!({})))).await;
    join_all(CHANGES.map(|(name, _, _)| world.fleet.ready(name))).await;
    let uris =
        join_all(CHANGES.map(async |(name, _, _)| world.fleet.secret(&format!("{name}-db"), "uri").await))
            .await;
    // Observed once with their ownership comments, they are recognized without.
    let known =
        "SELECT bool_and(database_oid IS NOT NULL AND login_oid IS NOT NULL) FROM tenants WHERE slug <> $1";
    world.until("all were observed", async || world.holds("tenantry_system", known, "").await).await;
    let mut superuser = world.superuser("postgres").await;
    for (_, change, _) in CHANGES {
        superuser.execute(change).await.unwrap();
    }
    let events = Api::<Event>::namespaced(world.fleet.client.clone(), world.name);
    for ((name, _, says), uri) in CHANGES.iter().zip(&uris) {
        let reported = async || {
            let all = events.list(&ListParams::default()).await.unwrap();
            all.iter().any(|event| {
                event.reason.as_deref() == Some("DriftRepaired")
                    && event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(*name)
                    && event.note.as_deref().unwrap_or_default().contains(says)
            })
        };
        world.until(&format!("{name}: an Event contains {says:?}"), reported).await;
        // The same password, all rights, and no more than those.
        let mut session = login(uri).await.unwrap();
        session.execute("INSERT INTO users (email) VALUES ('still@works.example')").await.unwrap();
    }
    let left = "SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname LIKE $1 AND (rolcreatedb OR rolconnlimit <> 20))
                AND NOT EXISTS (SELECT FROM pg_database WHERE datname LIKE 'tenant\\_%' AND
                    (datconnlimit <> -1 OR shobj_description(oid, 'pg_database') NOT LIKE 'tenantry:tenant:%'))";
    assert!(world.holds("postgres", left, "tenant\\_%\\_app").await);
}

#[tokio::test]
async fn changed_secret_is_restored_or_gets_a_new_password() {
    let world = World::new("drift-secret").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    let before = world.fleet.secret("acme-db", "uri").await;
    let change = |key: &str, value: &str| {
        let patch = json!({"stringData": {key: value}});
        let secrets = world.fleet.secrets.clone();
        async move { secrets.patch("acme-db", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap() }
    };
    change("host", "elsewhere.example").await;
    world
        .until("the host is right", async || world.fleet.secret("acme-db", "host").await == "127.0.0.1")
        .await;
    assert_eq!(world.fleet.secret("acme-db", "uri").await, before);

    change("password", "guessed").await;
    let new = async || {
        let uri = world.fleet.secret("acme-db", "uri").await;
        uri != before && login(&uri).await.is_ok()
    };
    world.until("there is a new password", new).await;
    assert!(login(&before).await.is_err());
}

#[tokio::test]
async fn missing_database_is_reported_and_never_recreated() {
    let world = World::new("drift-lost").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    let mut superuser = world.superuser("postgres").await;
    superuser.execute("ALTER DATABASE tenant_acme RENAME TO elsewhere").await.unwrap();
    world.fleet.reason("acme", READY, "DatabaseMissing").await;
    assert!(!world.database_exists("tenant_acme").await);
    superuser.execute("ALTER DATABASE elsewhere RENAME TO tenant_acme").await.unwrap();
    world.fleet.ready("acme").await;
}

#[tokio::test]
async fn server_restored_to_older_state_is_reported() {
    let world = World::new("drift-restored").await;
    let second = world.second_server("drift-restored-2").await;
    world.apply("acme", json!({"server": "drift-restored-2"})).await;
    world.apply("fine", json!({"server": "drift-restored-2"})).await;
    world.fleet.ready("acme").await;
    world.fleet.ready("fine").await;
    // An older state of one of them, as a backup would have it.
    let mut inside = second.connect("tenant_acme").await.unwrap();
    inside
        .execute("DELETE FROM tenantry.migrations WHERE (module, version) = (SELECT module, max(version) FROM tenantry.migrations WHERE module = 'identity' GROUP BY 1)")
        .await
        .unwrap();
    drop(inside);
    let mut inside = second.connect("tenant_fine").await.unwrap();
    inside.execute("UPDATE tenantry.limits SET maximum = 1").await.unwrap();
    drop(inside);
    let copy = second.data().with_extension("copy");
    second.stop(Stop::Fast).await.unwrap();
    let run = |from: &std::path::Path, to: &std::path::Path| {
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    run(second.data(), &copy);
    second.start_again().await.unwrap();
    // New transactions, which the drift check observes.
    let mut superuser = second.connect("postgres").await.unwrap();
    for _ in 0..50 {
        superuser.execute("SELECT pg_current_xact_id()").await.unwrap();
    }
    let as_planned = "SELECT rolconnlimit = 20 FROM pg_roles WHERE rolname = 'tenant_fine_app'";
    // The first change may be repaired by the reconcile that follows the server's restart; the second by a drift check only.
    for _ in 0..2 {
        superuser.execute("ALTER ROLE tenant_fine_app CONNECTION LIMIT 3").await.unwrap();
        let is_repaired =
            async || sqlx::query_scalar::<_, bool>(as_planned).fetch_one(&mut superuser).await.unwrap();
        world.until("the connection limit is repaired", is_repaired).await;
    }
    // A change of a tenant has it recorded how far the server has come, in case the operator crashes too.
    let came = "SELECT pg_current_xact_id()::text::bigint";
    let came: i64 = sqlx::query_scalar(came).fetch_one(&mut superuser).await.unwrap();
    drop(superuser);
    world.apply("fine", json!({"server": "drift-restored-2", "displayName": "Fine"})).await;
    let recorded = "SELECT last_transaction >= $1 FROM servers WHERE name = 'drift-restored-2'";
    let is_recorded = async || world.holds_number("tenantry_system", recorded, came).await;
    world.until("it is recorded how far the server has come", is_recorded).await;
    world.installation.operator().kill().await.unwrap();
    world.delete_lease().await;
    second.stop(Stop::Immediate).await.unwrap();
    std::fs::remove_dir_all(second.data()).unwrap();
    run(&copy, second.data());
    second.start_again().await.unwrap();
    world.installation.operator().start().await.unwrap();
    world.fleet.reason("acme", READY, "SchemaBehind").await;
    world.fleet.ready("fine").await;
    // The limits were as old as the rest, and are those of the plan again.
    let mut inside = second.connect("tenant_fine").await.unwrap();
    let users = "SELECT maximum = 20 FROM tenantry.limits WHERE name = 'users'";
    let renewed = async || sqlx::query_scalar::<_, bool>(users).fetch_one(&mut inside).await.unwrap();
    world.until("the limits are those of the plan", renewed).await;
}

#[tokio::test]
async fn restored_database_is_verified_before_it_counts_as_in_force() {
    let world = World::new("drift-copy").await;
    for name in ["behind", "swapped"] {
        world.apply(name, json!({})).await;
        world.fleet.ready(name).await;
    }
    let known = "SELECT bool_and(database_oid IS NOT NULL) FROM tenants WHERE slug <> $1";
    world.until("the oids are recorded", async || world.holds("tenantry_system", known, "").await).await;
    // An older copy of each has its name, with the comment and the rights that a restore brings back.
    let mut superuser = world.superuser("postgres").await;
    for name in ["behind", "swapped"] {
        let database = format!("tenant_{name}");
        let mut inside = world.superuser(&database).await;
        inside.execute("UPDATE tenantry.limits SET maximum = 1 WHERE name = 'users'").await.unwrap();
        inside.execute("GRANT INSERT ON ALL TABLES IN SCHEMA public TO tenantry_ro").await.unwrap();
        inside.execute("DROP TRIGGER tenantry_users_insert ON users").await.unwrap();
        if name == "behind" {
            inside
                .execute("DELETE FROM tenantry.migrations WHERE module = 'identity' AND version > 1")
                .await
                .unwrap();
        }
        drop(inside);
        let end = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
        );
        superuser.execute(AssertSqlSafe(end)).await.unwrap();
        for statement in [
            format!("CREATE DATABASE {database}_copy TEMPLATE {database} OWNER tenantry_dba"),
            // In one transaction: the operator writes a comment again that is missing.
            format!(
                "BEGIN;
                 REVOKE ALL ON DATABASE {database}_copy FROM PUBLIC;
                 GRANT CONNECT ON DATABASE {database}_copy TO {database}_app;
                 DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE {database}_copy IS %L',
                     (SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{database}')); END $$;
                 COMMENT ON DATABASE {database} IS NULL;
                 ALTER DATABASE {database} RENAME TO {database}_old;
                 ALTER DATABASE {database}_copy RENAME TO {database};
                 COMMIT"
            ),
        ] {
            superuser.execute(AssertSqlSafe(statement)).await.unwrap();
        }
    }
    world.fleet.reason("behind", READY, "SchemaBehind").await;
    let mut inside = world.superuser("tenant_swapped").await;
    let verified = "SELECT (SELECT maximum = 20 FROM tenantry.limits WHERE name = 'users')
                    AND NOT has_table_privilege('tenantry_ro', 'users', 'INSERT')
                    AND EXISTS (SELECT FROM pg_trigger WHERE tgname = 'tenantry_users_insert')";
    let is_verified = async || sqlx::query_scalar::<_, bool>(verified).fetch_one(&mut inside).await.unwrap();
    world.until("limits and rights are those of the plan, and users are counted", is_verified).await;
    world.event("swapped", "DriftRepaired", "trigger tenantry_users_insert on public.users is missing").await;
    world.event("swapped", "DatabaseRestored", "not the one that was there before").await;
    world.fleet.ready("swapped").await;
    let settled = "SELECT NOT verification_required FROM tenants WHERE slug = $1";
    world.until("it is verified", async || world.holds("tenantry_system", settled, "swapped").await).await;
    assert!(!world.holds("tenantry_system", settled, "behind").await);
}

#[tokio::test]
async fn foreign_database_owner_is_reported_until_changed() {
    let world = World::new("drift-owner").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    let mut superuser = world.superuser("postgres").await;
    superuser.execute("ALTER DATABASE tenant_acme OWNER TO postgres").await.unwrap();
    let status = world.fleet.reason("acme", READY, "MissingRight").await.status.unwrap();
    let ready = find_condition(&status.conditions, READY).unwrap();
    assert!(ready.message.contains("ALTER DATABASE tenant_acme OWNER TO tenantry_dba"), "{}", ready.message);
    superuser.execute("ALTER DATABASE tenant_acme OWNER TO tenantry_dba").await.unwrap();
    world.fleet.ready("acme").await;
}
