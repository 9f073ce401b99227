//! How many sessions a tenant's login may have.

use sqlx::{Connection, PgConnection};
use tenantry::{
    domain::access::AccessLevel,
    postgres::{credentials::generate_password, drift::Known, modules::ModuleSet},
};

use super::{Limited, run, state};
use crate::servers::{SERVERS, Tenant};

#[tokio::test]
async fn one_session_more_than_the_limit_is_refused_and_the_password_still_proven() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_connections", &[]).await;
        let (server, tenant) = (&limited.server, &limited.tenant);
        let set = async |most| server.set_connection_limit(tenant.id, &tenant.login, most).await.unwrap();
        let verify =
            async || server.verify(tenant.id, &tenant.database, &tenant.login, &tenant.password).await;
        set(3).await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(limited.session().await);
        }
        assert_eq!(state(tenant.session(postgres).await), "53300");
        assert_eq!(verify().await.unwrap(), ModuleSet::built_in().targets());
        let facts = server.observe(tenant.id, &tenant.database, &tenant.login).await.unwrap();
        assert!(!facts.database.as_ref().unwrap().migrator_may_connect);

        // It is no part of the access level, and no change of that touches it.
        assert_eq!(facts.access(), Some(AccessLevel::ReadWrite));
        assert_eq!(facts.differences(AccessLevel::ReadWrite, Known::default(), 3), [""; 0]);
        assert_eq!(
            facts.differences(AccessLevel::ReadWrite, Known::default(), -1),
            ["the login had a connection limit of 3 instead of -1"]
        );
        for level in [AccessLevel::ReadOnly, AccessLevel::ReadWrite] {
            server.set_access(tenant.id, &tenant.database, &tenant.login, level).await.unwrap();
            let facts = server.observe(tenant.id, &tenant.database, &tenant.login).await.unwrap();
            assert_eq!((facts.access(), facts.login.unwrap().connection_limit), (Some(level), 3));
        }

        // A wrong password proves nothing, and neither does another limit.
        set(0).await;
        assert_eq!(verify().await.unwrap(), ModuleSet::built_in().targets());
        let wrong = server.verify(tenant.id, &tenant.database, &tenant.login, &generate_password()).await;
        assert_eq!(wrong.unwrap_err().reason(), "AuthenticationFailed");
        let refused = server.verify_refused(&tenant.database, &tenant.login, &tenant.password).await;
        assert_eq!(refused.unwrap_err().reason(), "TooManyConnections");
        set(-1).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        run(&mut admin, "ALTER DATABASE tenant_connections CONNECTION LIMIT 0").await.unwrap();
        assert_eq!(verify().await.unwrap_err().reason(), "TooManyConnections");
        run(&mut admin, "ALTER DATABASE tenant_connections CONNECTION LIMIT -1").await.unwrap();
        limited.session().await.close().await.unwrap();
    }
}

#[tokio::test]
async fn only_the_tenants_own_login_is_limited() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_own_limit", &[]).await;
        let stranger = Tenant::new("tenant_no_login");
        let set =
            async |tenant: &Tenant| limited.server.set_connection_limit(tenant.id, &tenant.login, 1).await;
        assert_eq!(set(&stranger).await.unwrap_err().reason(), "LoginMissing");
        let mut admin: PgConnection = postgres.connect("postgres").await.unwrap();
        run(&mut admin, "CREATE ROLE tenant_no_login_app").await.unwrap();
        assert_eq!(set(&stranger).await.unwrap_err().reason(), "Conflict");
        let other = Tenant { id: stranger.id, ..Tenant::new("tenant_own_limit") };
        assert_eq!(set(&other).await.unwrap_err().reason(), "Conflict");
        let limits: Vec<i32> = sqlx::query_scalar(
            "SELECT rolconnlimit FROM pg_roles WHERE rolname IN ('tenant_no_login_app', 'tenant_own_limit_app')",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert_eq!(limits, [-1, -1]);
    }
}
