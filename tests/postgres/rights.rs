//! The rights inside a tenant's database: whatever an administrator grants there, a restricted tenant does not keep it. Each
//! way is first shown to work.

mod hidden;

use sqlx::{AssertSqlSafe, Executor};
use tenantry::{
    domain::{access::AccessLevel, rights::RightsReport},
    postgres::server::Server,
};
use tenantry_dev::Postgres;

use crate::servers::{SERVERS, Tenant, access, ready};

const WRITE: &str = "INSERT INTO users (email) VALUES (gen_random_uuid() || '@rights.example')";

struct Stage {
    postgres: &'static Postgres,
    server: Server,
    tenant: Tenant,
}

impl Stage {
    async fn new(postgres: &'static Postgres, database: &str) -> Self {
        let server = ready(postgres).await;
        let tenant = Tenant::new(database);
        tenant.provision(&server, 1).await;
        Self { postgres, server, tenant }
    }

    async fn superuser(&self, sql: &str) {
        let sql = sql.replace("{login}", &self.tenant.placement.login);
        let mut superuser = self.postgres.connect(&self.tenant.placement.database).await.unwrap();
        superuser.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    /// Whether the tenant's login may do this, in a new session.
    async fn may(&self, sql: &str) -> bool {
        let mut session = self.tenant.session(self.postgres).await.unwrap();
        session.execute(AssertSqlSafe(format!("BEGIN; {sql}; ROLLBACK"))).await.is_ok()
    }

    async fn settle(&self) -> RightsReport {
        self.server.settle_rights(&self.tenant.placement).await.unwrap()
    }
}

/// What a superuser grants, what the login may then do at ReadOnly, and a part of the phrase.
const WAYS: [(&str, &str, &str); 14] = [
    ("GRANT ALL ON ALL TABLES IN SCHEMA public TO {login}", WRITE, "_app had DELETE, INSERT"),
    ("GRANT INSERT ON users TO PUBLIC", WRITE, "PUBLIC had INSERT on table public.users"),
    ("GRANT INSERT ON users TO tenantry_ro", WRITE, "tenantry_ro had INSERT on table public.users"),
    (
        "GRANT INSERT (email, name) ON users TO {login}",
        WRITE,
        "_app had INSERT on column email of public.users",
    ),
    ("ALTER TABLE users OWNER TO {login}", WRITE, "_app owned table public.users"),
    ("ALTER TABLE users OWNER TO tenantry_ro", "DROP TABLE users CASCADE", "tenantry_ro owned table"),
    ("GRANT TRUNCATE ON settings TO tenantry_ro", "TRUNCATE settings", "TRUNCATE on table public.settings"),
    (
        "GRANT USAGE ON activity_log_id_seq TO PUBLIC",
        "SELECT nextval('activity_log_id_seq')",
        "PUBLIC had USAGE on sequence public.activity_log_id_seq",
    ),
    ("GRANT CREATE ON SCHEMA public TO tenantry_ro", "CREATE TABLE t (a int)", "CREATE on schema public"),
    (
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "CREATE TABLE t (a int)",
        "PUBLIC had CREATE on schema public",
    ),
    (
        "SET ROLE tenantry_owner; GRANT EXECUTE ON FUNCTION write_for_me(int) TO tenantry_ro",
        "SELECT write_for_me(1)",
        "EXECUTE on function public.write_for_me",
    ),
    (
        "GRANT SELECT ON users TO tenantry_ro WITH GRANT OPTION",
        "SELECT 1 / has_table_privilege(CURRENT_USER, 'users', 'SELECT WITH GRANT OPTION')::int",
        "tenantry_ro had SELECT on table public.users",
    ),
    (
        "GRANT UPDATE ON tenantry.limits TO PUBLIC",
        "UPDATE tenantry.limits SET maximum = NULL",
        "PUBLIC had UPDATE on table tenantry.limits",
    ),
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner GRANT ALL ON TABLES TO {login};
         SET ROLE tenantry_owner; CREATE TABLE IF NOT EXISTS later (a int)",
        "INSERT INTO later VALUES (1)",
        "on new tables",
    ),
];

const DEFINER: &str = "SET ROLE tenantry_owner;
    CREATE FUNCTION public.write_for_me(a int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
    AS $$ INSERT INTO users (email) VALUES (gen_random_uuid() || '@definer.example') $$";

#[tokio::test]
async fn right_granted_by_hand_is_revoked_and_named() {
    for postgres in &*SERVERS {
        let stage = Stage::new(postgres, "tenant_rights").await;
        let placement = &stage.tenant.placement;
        stage.superuser(DEFINER).await;
        assert_eq!(stage.settle().await, RightsReport::default());
        stage.server.set_access(placement, AccessLevel::ReadOnly).await.unwrap();
        for (grant, evasion, phrase) in WAYS {
            assert!(!stage.may(evasion).await, "{grant}");
            stage.superuser(grant).await;
            // The control, and what was called enforced before.
            assert!(stage.may(evasion).await, "{grant}");
            let facts = stage.server.observe(placement).await.unwrap();
            assert_eq!(access(&facts), Some(AccessLevel::ReadOnly), "{grant}");
            // A session from before the repair keeps what it has begun: it is ended by the next enforcement.
            let mut earlier = stage.tenant.session(postgres).await.unwrap();
            let report = stage.settle().await;
            assert!(report.left.is_empty(), "{grant}: {report:?}");
            assert!(report.repaired.iter().any(|text| text.contains(phrase)), "{grant}: {report:?}");
            assert_eq!(stage.server.take_rights_report(placement.tenant), Some(report));
            assert!(!stage.may(evasion).await, "{grant}");
            assert_eq!(access(&stage.server.observe(placement).await.unwrap()), None, "{grant}");
            stage.server.set_access(placement, AccessLevel::ReadOnly).await.unwrap();
            assert!(earlier.execute("SELECT 1").await.is_err(), "{grant}");
            assert_eq!(stage.settle().await, RightsReport::default(), "{grant}");
            assert_eq!(access(&stage.server.observe(placement).await.unwrap()), Some(AccessLevel::ReadOnly));
            assert!(stage.may("SELECT * FROM users").await, "{grant}");
        }
        assert_eq!(stage.server.take_rights_report(placement.tenant), None);
        stage.server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
        assert!(stage.may(WRITE).await);
    }
}

#[tokio::test]
async fn right_that_the_application_lost_is_granted_again() {
    for postgres in &*SERVERS {
        let stage = Stage::new(postgres, "tenant_poorer").await;
        let lost = [
            (
                "REVOKE INSERT ON users FROM tenantry_rw",
                WRITE,
                "tenantry_rw lacked INSERT on table public.users",
            ),
            (
                "REVOKE USAGE ON SCHEMA public FROM tenantry_rw",
                WRITE,
                "tenantry_rw lacked USAGE on schema public",
            ),
            (
                "REVOKE ALL ON activity_log_id_seq FROM tenantry_rw",
                "SELECT nextval('activity_log_id_seq')",
                "on sequence public.activity_log_id_seq",
            ),
            (
                "REVOKE SELECT ON tenantry.entitlements FROM tenantry_rw",
                "SELECT * FROM tenantry.entitlements",
                "tenantry_rw lacked SELECT on table tenantry.entitlements",
            ),
        ];
        for (revoke, work, phrase) in lost {
            assert!(stage.may(work).await);
            stage.superuser(revoke).await;
            assert!(!stage.may(work).await, "{revoke}");
            // Any session of the operator in the database reads the rights, and repairs them.
            stage.server.read_counters(&stage.tenant.placement).await.unwrap();
            let report = stage.server.take_rights_report(stage.tenant.placement.tenant).unwrap();
            assert!(report.repaired.iter().any(|text| text.contains(phrase)), "{revoke}: {report:?}");
            assert!(stage.may(work).await, "{revoke}");
        }
        // Nothing was revoked from the login: its sessions go on.
        assert_eq!(
            access(&stage.server.observe(&stage.tenant.placement).await.unwrap()),
            Some(AccessLevel::ReadWrite)
        );
    }
}

#[tokio::test]
async fn right_on_another_owners_object_is_reported_with_the_statement() {
    for postgres in &*SERVERS {
        let stage = Stage::new(postgres, "tenant_foreign_owner").await;
        stage
            .superuser("CREATE TABLE public.diary (a int); GRANT SELECT, INSERT ON public.diary TO PUBLIC")
            .await;
        stage.server.set_access(&stage.tenant.placement, AccessLevel::ReadOnly).await.unwrap();
        assert!(stage.may("INSERT INTO diary VALUES (1)").await);
        let report = stage.settle().await;
        let [left] = &report.left[..] else { panic!("{report:?}") };
        assert!(report.repaired.is_empty() && left.contains("which postgres owns"), "{left}");
        let (_, statement) = left.split_once("change this: ").unwrap();
        stage.superuser(statement).await;
        assert_eq!(stage.settle().await, RightsReport::default());
        assert!(!stage.may("INSERT INTO diary VALUES (1)").await);
        // What a superuser makes for itself, or an extension brings, is not the tenant's.
        stage.superuser("CREATE TABLE public.own (a int); CREATE EXTENSION citext SCHEMA public").await;
        assert_eq!(stage.settle().await, RightsReport::default());
    }
}
