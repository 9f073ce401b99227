//! The connection limit of a tenant's login.

use sqlx::{Connection, PgConnection};
use tenantry::{
    api::reason::Reason,
    domain::{
        access::AccessLevel,
        drift::{Expected, Mismatch, mismatches},
        tenant_facts::RecordedOids,
        usage::entitlements::LoginLimits,
    },
    modules::ModuleSet,
    postgres::tenant::credentials::generate_password,
};

use super::{Limited, run, state};
use crate::servers::{SERVERS, Tenant, access, session_logins};

fn connections(most: i32) -> LoginLimits {
    LoginLimits { connections: most, temp_file_kilobytes: -1 }
}

#[tokio::test]
async fn session_over_the_limit_is_refused_and_password_still_verified() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_connections", &[]).await;
        let (server, tenant) = (&limited.server, &limited.tenant);
        let set = async |most| server.limit_login(&tenant.placement, connections(most)).await.unwrap();
        let verify = async || server.verify(&tenant.placement, &tenant.password).await;
        set(3).await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(limited.session().await);
        }
        assert_eq!(state(tenant.session(postgres).await), "53300");
        assert_eq!(verify().await.unwrap(), ModuleSet::built_in().targets());
        let facts = server.observe(&tenant.placement).await.unwrap();
        assert_eq!(session_logins(postgres, &tenant.placement.database).await, 0);

        // It is not part of the access level, whose changes do not affect it.
        assert_eq!(access(&facts), Some(AccessLevel::ReadWrite));
        let differences = |connections| {
            let access = AccessLevel::ReadWrite;
            mismatches(
                &facts,
                &Expected { recorded: RecordedOids::default(), access, connections, is_previous_over: false },
            )
        };
        assert_eq!(differences(3), []);
        assert_eq!(differences(-1), [Mismatch::LoginConnectionLimit { found: 3, expected: -1 }]);
        for level in [AccessLevel::ReadOnly, AccessLevel::ReadWrite] {
            server.set_access(&tenant.placement, level).await.unwrap();
            let facts = server.observe(&tenant.placement).await.unwrap();
            assert_eq!((access(&facts), facts.login.unwrap().connection_limit), (Some(level), 3));
        }

        // A wrong password is not accepted, and another limit verifies nothing.
        set(0).await;
        assert_eq!(verify().await.unwrap(), ModuleSet::built_in().targets());
        let wrong = server.verify(&tenant.placement, &generate_password()).await;
        assert_eq!(wrong.unwrap_err().reason(), Reason::AuthenticationFailed);
        let refused = server.verify_refused(&tenant.placement, &tenant.password).await;
        assert_eq!(refused.unwrap_err().reason(), Reason::TooManyConnections);
        set(-1).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        run(&mut admin, "ALTER DATABASE tenant_connections CONNECTION LIMIT 0").await.unwrap();
        assert_eq!(verify().await.unwrap_err().reason(), Reason::TooManyConnections);
        run(&mut admin, "ALTER DATABASE tenant_connections CONNECTION LIMIT -1").await.unwrap();
        limited.session().await.close().await.unwrap();
    }
}

#[tokio::test]
async fn only_the_tenants_login_is_limited() {
    for postgres in &*SERVERS {
        let limited = Limited::new(postgres, "tenant_own_limit", &[]).await;
        let stranger = Tenant::new("tenant_no_login");
        let set = async |tenant: &Tenant| limited.server.limit_login(&tenant.placement, connections(1)).await;
        assert_eq!(set(&stranger).await.unwrap_err().reason(), Reason::LoginMissing);
        let mut admin: PgConnection = postgres.connect("postgres").await.unwrap();
        run(&mut admin, "CREATE ROLE tenant_no_login_app").await.unwrap();
        assert_eq!(set(&stranger).await.unwrap_err().reason(), Reason::Conflict);
        let mut other = Tenant::new("tenant_own_limit");
        other.placement.tenant = stranger.placement.tenant;
        assert_eq!(set(&other).await.unwrap_err().reason(), Reason::Conflict);
        let limits: Vec<i32> = sqlx::query_scalar(
            "SELECT rolconnlimit FROM pg_roles WHERE rolname IN ('tenant_no_login_app', 'tenant_own_limit_app')",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert_eq!(limits, [-1, -1]);
    }
}
