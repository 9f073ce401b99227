//! Seeds: the spec's settings and admins only.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::Executor;
use tenantry::postgres::tenant::{
    credentials::{SecretText, generate_password},
    seed::{AdminSeed, OneTimeSecret, Seed},
};

use crate::servers::{SERVERS, Tenant, ready};

fn admin(email: &str, token: &SecretText) -> AdminSeed {
    AdminSeed {
        email: email.into(),
        name: None,
        offer: OneTimeSecret::ResetToken(token.clone()),
        expires_at: Timestamp::now() + SignedDuration::from_hours(1),
    }
}

#[tokio::test]
async fn admin_is_offered_a_credential_until_one_is_used() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_admins");
        tenant.provision(&server, 1).await;
        let seed = |admins: Vec<AdminSeed>| Seed {
            settings: Default::default(),
            admins,
            demo_data: false,
            credentials_only: false,
        };
        let (first, second) = (generate_password(), generate_password());
        let mut session = tenant.session(postgres).await.unwrap();
        let mut open = async || -> i64 {
            sqlx::query_scalar(
                "SELECT count(*) FROM user_credentials WHERE revoked_at IS NULL AND used_at IS NULL",
            )
            .fetch_one(&mut session)
            .await
            .unwrap()
        };
        for _ in 0..2 {
            let outcome = server
                .seed(&tenant.placement, &seed(vec![admin("ada@a.example", &first)]), None)
                .await
                .unwrap();
            assert_eq!(outcome.offered, ["ada@a.example"]);
            assert_eq!(open().await, 1);
        }
        // A new token replaces an unused one.
        server.seed(&tenant.placement, &seed(vec![admin("ada@a.example", &second)]), None).await.unwrap();
        assert_eq!(open().await, 1);
        // A renewed one leaves the settings, the names and the roles as the application has them.
        let mut application = tenant.session(postgres).await.unwrap();
        let changes = "UPDATE users SET name = 'Ada L.'; DELETE FROM user_roles";
        application.execute(changes).await.unwrap();
        let third = generate_password();
        let named = AdminSeed { name: Some("Ada".into()), ..admin("ada@a.example", &third) };
        let renewal = Seed {
            settings: [("theme".to_owned(), json!("dark"))].into(),
            credentials_only: true,
            ..seed(vec![named])
        };
        assert_eq!(server.seed(&tenant.placement, &renewal, None).await.unwrap().offered, ["ada@a.example"]);
        assert_eq!(open().await, 1);
        let kept: bool = sqlx::query_scalar(
            "SELECT name = 'Ada L.' AND NOT EXISTS (SELECT FROM user_roles) AND NOT EXISTS (SELECT FROM settings) FROM users",
        )
        .fetch_one(&mut application)
        .await
        .unwrap();
        assert!(kept);
        // After its use, no credential is offered.
        let mut other = tenant.session(postgres).await.unwrap();
        other.execute("UPDATE user_credentials SET used_at = now() WHERE revoked_at IS NULL").await.unwrap();
        let outcome =
            server.seed(&tenant.placement, &seed(vec![admin("ada@a.example", &first)]), None).await.unwrap();
        assert_eq!((outcome.offered.len(), open().await), (0, 0));
        // Another admin, who is removed before she used it.
        server.seed(&tenant.placement, &seed(vec![admin("bea@a.example", &first)]), None).await.unwrap_err();
        let third = generate_password();
        server.seed(&tenant.placement, &seed(vec![admin("bea@a.example", &third)]), None).await.unwrap();
        assert_eq!(open().await, 1);
        server.seed(&tenant.placement, &seed(vec![]), None).await.unwrap();
        assert_eq!(open().await, 0);
        let users: i64 =
            sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut other).await.unwrap();
        assert_eq!(users, 2);
    }
}

#[tokio::test]
async fn demo_data_is_inserted_once_and_marked_as_demo() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_demo");
        tenant.provision(&server, 1).await;
        let settings = [("theme".to_owned(), json!("dark"))].into();
        let seed = Seed { settings, admins: vec![], demo_data: true, credentials_only: false };
        let mut session = tenant.session(postgres).await.unwrap();
        for _ in 0..2 {
            server.seed(&tenant.placement, &seed, None).await.unwrap();
        }
        let demo: Vec<String> = sqlx::query_scalar("SELECT email FROM users WHERE is_demo ORDER BY email")
            .fetch_all(&mut session)
            .await
            .unwrap();
        assert_eq!(demo, ["ada@demo.example", "grace@demo.example"]);
        let seeded: i64 =
            sqlx::query_scalar("SELECT count(*) FROM activity_log WHERE action = 'demo.seeded'")
                .fetch_one(&mut session)
                .await
                .unwrap();
        assert_eq!(seeded, 1);
    }
}
