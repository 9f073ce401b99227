//! Access levels, and the proof that revoked rights are no longer used.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{api::reason::Reason, domain::access::AccessLevel};

use crate::servers::{OPERATOR, PASSWORD, SERVERS, Tenant, access, ready, refusal, set_up, start};

#[tokio::test]
async fn each_level_allows_exactly_its_rights() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_levels");
        tenant.provision(&server, 1).await;
        let mut session = tenant.session(postgres).await.unwrap();
        session.execute("INSERT INTO users (email) VALUES ('a@b.example'), ('c@d.example')").await.unwrap();
        for level in [AccessLevel::ShrinkOnly, AccessLevel::ReadOnly] {
            server.set_access(&tenant.placement, level).await.unwrap();
            // The earlier session was ended: it might have had a plan or a COPY from when it could write.
            assert!(session.execute("SELECT 1").await.is_err());
            session = tenant.session(postgres).await.unwrap();
            session.execute("SELECT * FROM users").await.unwrap();
            assert_eq!(
                refusal(&mut session, "INSERT INTO users (email) VALUES ('e@f.example')").await,
                "42501"
            );
            assert_eq!(refusal(&mut session, "UPDATE users SET name = 'x'").await, "42501");
            let delete = "DELETE FROM users WHERE email = 'a@b.example'";
            match level {
                AccessLevel::ShrinkOnly => drop(session.execute(delete).await.unwrap()),
                _ => assert_eq!(refusal(&mut session, delete).await, "42501"),
            }
            let facts = server.observe(&tenant.placement).await.unwrap();
            assert_eq!(access(&facts), Some(level));
        }
        // Granting ends no session.
        server.set_access(&tenant.placement, AccessLevel::ReadWrite).await.unwrap();
        session.execute("INSERT INTO users (email) VALUES ('g@h.example')").await.unwrap();
    }
}

#[tokio::test]
async fn blocked_ends_every_session_and_refuses_new_ones() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_blocked");
        tenant.provision(&server, 1).await;
        let mut prepared = tenant.session(postgres).await.unwrap();
        prepared
            .execute("BEGIN; PREPARE w AS INSERT INTO users (email) VALUES ('p@b.example')")
            .await
            .unwrap();
        let mut cursor = tenant.session(postgres).await.unwrap();
        cursor.execute("DECLARE c CURSOR WITH HOLD FOR SELECT * FROM users").await.unwrap();
        let mut idle = tenant.session(postgres).await.unwrap();
        idle.execute("SET default_transaction_read_only = off").await.unwrap();
        let mut copying = tenant.session(postgres).await.unwrap();
        let mut stream = copying.copy_in_raw("COPY users (email) FROM STDIN").await.unwrap();
        stream.send("one@b.example\n".as_bytes()).await.unwrap();

        server.set_access(&tenant.placement, AccessLevel::Blocked).await.unwrap();
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenant_blocked_app'")
                .fetch_one(&mut postgres.connect("postgres").await.unwrap())
                .await
                .unwrap();
        assert_eq!(left, 0);
        assert!(prepared.execute("EXECUTE w; COMMIT").await.is_err());
        assert!(cursor.execute("FETCH c").await.is_err());
        assert!(idle.execute("SELECT 1").await.is_err());
        assert!(stream.finish().await.is_err());
        server.verify_refused(&tenant.placement, &tenant.password).await.unwrap();
        let facts = server.observe(&tenant.placement).await.unwrap();
        assert_eq!(access(&facts), Some(AccessLevel::Blocked));
        let written: i64 = sqlx::query_scalar("SELECT count(*) FROM users")
            .fetch_one(&mut postgres.connect("tenant_blocked").await.unwrap())
            .await
            .unwrap();
        assert_eq!(written, 0);
    }
}

#[tokio::test]
async fn right_that_only_a_superuser_can_revoke_is_not_reported_as_revoked() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_favoured");
        tenant.provision(&server, 1).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute("GRANT tenantry_shrink TO tenant_favoured_app").await.unwrap();
        let set = async |level| server.set_access(&tenant.placement, level).await;
        let read_only = set(AccessLevel::ReadOnly).await;
        let facts = server.observe(&tenant.placement).await.unwrap();
        if postgres.binaries().major < 16 {
            read_only.unwrap();
            assert_eq!(access(&facts), Some(AccessLevel::ReadOnly));
        } else {
            let error = read_only.unwrap_err();
            assert_eq!(error.reason(), Reason::MissingRight);
            assert!(error.to_string().contains("tenantry_shrink"), "{error}");
            assert_eq!(access(&facts), None);
        }
        // Without LOGIN and CONNECT it cannot use it.
        set(AccessLevel::Blocked).await.unwrap();
        server.verify_refused(&tenant.placement, &tenant.password).await.unwrap();
    }
}

#[tokio::test]
async fn membership_left_by_an_interrupted_rollback_is_revoked() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let tenant = Tenant::new("tenant_interrupted");
        tenant.provision(&server, 1).await;
        assert!(server.revoke_borrowed_memberships().await.unwrap().is_empty(), "of its own, there is none");
        // As the rollback of a prepared transaction grants them, and a kill leaves them.
        let mut operator =
            PgConnection::connect(&postgres.url(OPERATOR, PASSWORD, "postgres")).await.unwrap();
        let options = if major < 16 { "" } else { "WITH INHERIT FALSE, SET TRUE" };
        for role in ["tenant_interrupted_app", "tenantry_rw"] {
            let grant = format!("GRANT {role} TO tenantry_admin {options}");
            operator.execute(AssertSqlSafe(grant)).await.unwrap();
        }
        operator.execute("SET ROLE tenant_interrupted_app; RESET ROLE").await.unwrap();
        let revoked = server.revoke_borrowed_memberships().await.unwrap();
        assert_eq!(revoked, ["tenant_interrupted_app", "tenantry_rw"]);
        assert_eq!(refusal(&mut operator, "SET ROLE tenant_interrupted_app").await, "42501");
        assert!(server.revoke_borrowed_memberships().await.unwrap().is_empty());
        // What the operator needs of the roles that it created stays.
        server.set_access(&tenant.placement, AccessLevel::ReadOnly).await.unwrap();
        server.set_access(&tenant.placement, AccessLevel::ReadWrite).await.unwrap();
        tenant.session(&postgres).await.unwrap();
    }
}
