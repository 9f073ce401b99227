//! What a partial restore or an administrator took from a tenant's database: found by a comparison with the template, and
//! repaired where no data is lost.

use sqlx::{AssertSqlSafe, Executor};
use tenantry::{domain::structure::SchemaReport, modules::ModuleSet};

use crate::{
    meters::{Limited, state},
    servers::SERVERS,
};

/// What is done to the database, and a part of the phrase of what was repaired. After each, the limit of one user holds.
const REPAIRED: [(&str, &str); 6] = [
    ("DROP TRIGGER tenantry_users_insert ON users", "trigger tenantry_users_insert on public.users is missing"),
    (
        "ALTER TABLE users DISABLE TRIGGER tenantry_users_insert",
        "trigger tenantry_users_insert on public.users is disabled",
    ),
    (
        "CREATE OR REPLACE FUNCTION tenantry.is_within(limit_name text, most bigint) RETURNS boolean LANGUAGE sql
         AS 'SELECT true'",
        "function tenantry.is_within(limit_name text, most bigint) is not the module's",
    ),
    (
        "DO $$ BEGIN EXECUTE format('DROP FUNCTION %s CASCADE',
             (SELECT tgfoid::regprocedure FROM pg_trigger WHERE tgname = 'tenantry_users_insert')); END $$",
        "function tenantry.metered_",
    ),
    ("DELETE FROM tenantry.meters", "the meter of limit users on public.users is missing"),
    ("UPDATE tenantry.counters SET used = 0 WHERE name = 'users'", "the counter of limit users was wrong"),
];

/// What only a person can repair.
const LEFT: [(&str, &str); 3] = [
    ("DROP TABLE projects", "table public.projects is missing"),
    (
        "ALTER TABLE users DROP CONSTRAINT users_email_key",
        "constraint users_email_key on public.users is missing",
    ),
    (
        "ALTER FUNCTION tenantry.touch() OWNER TO postgres",
        "function tenantry.touch() is owned by postgres instead of tenantry_owner",
    ),
];

#[tokio::test]
async fn what_a_restore_lost_is_created_again_or_named() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_structure", &[("users", Some(1))]).await;
        let placement = &limited.tenant.placement;
        let modules = ModuleSet::built_in();
        let check = async || limited.server.check_structure(placement, &modules).await.unwrap();
        assert_eq!(check().await, SchemaReport::default());
        let mut superuser = postgres.connect(&placement.database).await.unwrap();
        let add = "INSERT INTO users (email) VALUES (gen_random_uuid() || '@structure.example')";
        superuser.execute(add).await.unwrap();
        for (damage, phrase) in REPAIRED {
            superuser.execute(AssertSqlSafe(damage.to_owned())).await.unwrap();
            let report = check().await;
            assert!(report.left.is_empty(), "{damage}: {report:?}");
            assert!(report.repaired.iter().any(|text| text.contains(phrase)), "{damage}: {report:?}");
            assert_eq!(check().await, SchemaReport::default(), "{damage}");
            assert_eq!(state(superuser.execute(add).await), "TNLIM", "{damage}");
            assert_eq!(limited.used("users").await, 1, "{damage}");
        }
        // A database that an older release made is compared with the versions that it has.
        superuser.execute("DELETE FROM tenantry.migrations WHERE module = 'projects'").await.unwrap();
        superuser.execute("DROP TABLE projects").await.unwrap();
        assert_eq!(check().await, SchemaReport::default());
        let left = Limited::new(postgres, "tenant_incomplete", &[]).await;
        let mut superuser = postgres.connect(&left.tenant.placement.database).await.unwrap();
        let mut phrases = Vec::new();
        for (damage, phrase) in LEFT {
            superuser.execute(AssertSqlSafe(damage.to_owned())).await.unwrap();
            phrases.push(phrase);
            let report = left.server.check_structure(&left.tenant.placement, &modules).await.unwrap();
            assert!(report.repaired.is_empty(), "{damage}: {report:?}");
            for phrase in &phrases {
                assert!(report.left.iter().any(|text| text == phrase), "{damage}: {report:?}");
            }
        }
        // The clone that was compared with is dropped.
        let clone = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'tenantry_template_new_' || $1)";
        let clone = sqlx::query_scalar::<_, bool>(clone).bind(modules.digest());
        assert!(!clone.fetch_one(&mut superuser).await.unwrap());
    }
}
