//! The statements in docs/uninstall.md and docs/first-login.md.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Executor};
use tenantry::postgres::tenant::{
    credentials::generate_password,
    seed::{AdminSeed, OneTimeSecret, Seed},
};

use uuid::Uuid;

use crate::servers::{OPERATOR, SERVERS, Tenant, ready, set_up, start};

/// The statements of a page's blocks of SQL that contain `part`.
fn documented<'a>(page: &'a str, part: &str) -> Vec<&'a str> {
    let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let block = blocks.filter(|block| block.contains(part));
    block.flat_map(|block| block.split_inclusive(';')).map(str::trim).filter(|sql| !sql.is_empty()).collect()
}

#[tokio::test]
async fn documented_statements_leave_no_role_on_a_server() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let tenant = Tenant::new("tenant_last");
        tenant.provision(&server, 1).await;
        server.drop_database(&tenant.placement).await.unwrap();
        server.drop_login(&tenant.placement).await.unwrap();
        drop(server);
        let mut admin = postgres.connect("postgres").await.unwrap();
        let databases: Vec<String> = sqlx::query_scalar(
            "SELECT quote_ident(datname) FROM pg_database
             WHERE datname NOT IN ('postgres', 'template0', 'template1')",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        for database in databases {
            let drop = format!("DROP DATABASE {database} WITH (FORCE)");
            admin.execute(AssertSqlSafe(drop)).await.unwrap();
        }
        // The registry's own role exists only where the registry was.
        if major == 18 {
            admin.execute("CREATE ROLE tenantry_registry_reader").await.unwrap();
        }
        for statement in documented(include_str!("../../docs/uninstall.md"), "DROP OWNED") {
            let statement = statement.replace("tenantry_operator", OPERATOR);
            admin.execute(AssertSqlSafe(statement.as_str())).await.unwrap();
        }
        let left: Vec<String> = sqlx::query_scalar(
            "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'tenantry\\_%' OR rolname LIKE 'tenant\\_%'",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn documented_redemption_accepts_a_token_once() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_redeem");
        tenant.provision(&server, 1).await;
        let token = generate_password();
        let admin = AdminSeed {
            email: "ada@a.example".into(),
            name: None,
            offer: OneTimeSecret::ResetToken(token.clone()),
            expires_at: Timestamp::now() + SignedDuration::from_hours(1),
        };
        let seed = Seed {
            settings: Default::default(),
            admins: vec![admin],
            demo_data: false,
            credentials_only: false,
        };
        server.seed(&tenant.placement, &seed, None).await.unwrap();
        let page = include_str!("../../docs/first-login.md");
        let (redeem, store) = (documented(page, "RETURNING user_id"), documented(page, "email_verified_at"));
        let hash: String =
            Sha256::digest(token.expose().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let find = redeem[1].replace("$1", &format!("'{hash}'"));
        let mut session = tenant.session(postgres).await.unwrap();
        session.execute(redeem[0]).await.unwrap();
        let user: Uuid =
            sqlx::query_scalar(AssertSqlSafe(find.as_str())).fetch_one(&mut session).await.unwrap();
        for statement in store {
            let statement = statement.replace("$1", &format!("'{user}'")).replace("$2", "'$argon2id$v=19$…'");
            session.execute(AssertSqlSafe(statement.as_str())).await.unwrap();
        }
        let open: Vec<String> = sqlx::query_scalar(
            "SELECT kind FROM user_credentials WHERE used_at IS NULL AND revoked_at IS NULL",
        )
        .fetch_all(&mut session)
        .await
        .unwrap();
        assert_eq!(open, ["password"]);
        let again = session.fetch_optional(AssertSqlSafe(find.as_str())).await.unwrap();
        assert!(again.is_none(), "a token is used once");
    }
}
