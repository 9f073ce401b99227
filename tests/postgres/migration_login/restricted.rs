//! A restriction of the tenant's access ends its migration login, also that of a team's own pipeline.

use sqlx::{Connection, Executor};
use tenantry::{
    domain::access::AccessLevel,
    postgres::{
        Error,
        tenant::{
            credentials::scram_verifier,
            migration_login::{MigratedDatabase, MigrationLogin},
        },
    },
};

use super::{Opened, roles_named};
use crate::servers::{SERVERS, Tenant, access, ready};

#[tokio::test]
async fn every_restriction_ends_the_pipeline_and_resumption_lets_it_in_again() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_fixc_pipeline");
        tenant.provision(&server, 1).await;
        let (placement, database) = (&tenant.placement, &tenant.placement.database);
        for level in [AccessLevel::ShrinkOnly, AccessLevel::ReadOnly, AccessLevel::Blocked] {
            let opened = Opened::until(&server, placement, None).await;
            let mut idle = opened.session(postgres, database).await.unwrap();
            idle.execute("CREATE TABLE IF NOT EXISTS things (a int)").await.unwrap();
            // It holds the lock that the end of its LOGIN waits for, and one on what the tenant's login uses.
            let mut holder = opened.session(postgres, database).await.unwrap();
            holder
                .execute("BEGIN; LOCK TABLE things; SET ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'x'")
                .await
                .unwrap();
            let mut preparer = opened.session(postgres, database).await.unwrap();
            preparer.execute("BEGIN; INSERT INTO users (email) VALUES ('late@acme.example'); PREPARE TRANSACTION 'late'").await.unwrap();
            let found = server.observe_all().await.unwrap().migration_logins();
            assert!(found.iter().any(|login| login.name == opened.name && !login.is_restricted));

            server.set_access(placement, level).await.unwrap();
            assert_eq!(access(&server.observe(placement).await.unwrap()), Some(level));
            for session in [&mut idle, &mut holder, &mut preparer] {
                assert!(session.execute("INSERT INTO things VALUES (1)").await.is_err(), "{level}");
            }
            assert!(opened.session(postgres, database).await.is_err(), "{level}: a new session");
            assert_eq!(roles_named(postgres, &opened.name).await, 0);
            // Nor is another one made: neither for the pipeline nor for a run that had begun.
            let login = MigrationLogin {
                run: opened.run,
                schema: "public",
                verifier: &scram_verifier(&opened.password),
                valid_until: None,
            };
            let again = server.open_migration_login(&MigratedDatabase::OfTenant(placement), &login).await;
            assert!(matches!(again, Err(Error::MigrationsRestricted(_))), "{level}: {again:?}");
            assert_eq!(roles_named(postgres, &opened.name).await, 0);

            server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
            let opened = Opened::until(&server, placement, None).await;
            let mut resumed = opened.session(postgres, database).await.unwrap();
            let written = "SELECT (SELECT count(*) FROM things) + (SELECT count(*) FROM users WHERE email LIKE 'late%')";
            let written: i64 = sqlx::query_scalar(written).fetch_one(&mut resumed).await.unwrap();
            assert_eq!(written, 0);
            resumed.close().await.unwrap();
        }
    }
}

/// An earlier release left it to a suspended tenant, whose level is recorded as in force.
#[tokio::test]
async fn login_of_a_restricted_tenant_is_found() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_fixc_left");
        tenant.provision(&server, 1).await;
        let opened = Opened::until(&server, &tenant.placement, None).await;
        let mut superuser = postgres.connect("postgres").await.unwrap();
        superuser
            .execute("SET ROLE tenantry_admin; REVOKE tenantry_rw FROM tenant_fixc_left_app")
            .await
            .unwrap();
        let found = server.observe_all().await.unwrap().migration_logins();
        let found = found.iter().find(|login| login.name == opened.name).unwrap();
        assert!(found.is_restricted);
        // The level shows no difference, and the login ends nevertheless.
        server.set_access(&tenant.placement, AccessLevel::Blocked).await.unwrap();
        assert_eq!(roles_named(postgres, &opened.name).await, 0);
    }
}
