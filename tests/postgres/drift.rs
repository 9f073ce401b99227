//! What an administrator or the tenant changes in the shared catalogs is seen, and repaired where `tenantry_admin` may; each
//! change is shown to matter, or to be harmless.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tenantry::{
    api::reason::Reason,
    domain::{
        access::AccessLevel,
        drift::{Expected, Mismatch, is_reachable, mismatches},
        tenant_facts::RecordedOids,
    },
    postgres::{catalog::inventory::Inventory, server::Server, tenant::credentials::scram_verifier},
};
use tenantry_dev::Postgres;

use crate::servers::{SERVERS, Tenant, access, ready, set_up, start};

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
        let Tenant { placement, .. } = &self.tenant;
        let sql = sql.replace("{database}", &placement.database).replace("{login}", &placement.login);
        let mut superuser = self.postgres.connect("postgres").await.unwrap();
        superuser.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    async fn found(&self, level: AccessLevel) -> Vec<Mismatch> {
        let facts = self.server.observe(&self.tenant.placement).await.unwrap();
        let expected = Expected {
            recorded: RecordedOids::default(),
            access: level,
            connections: -1,
            is_previous_over: false,
        };
        mismatches(&facts, &expected)
    }

    /// Whether the application works: it logs in, and writes.
    async fn works(&self) -> bool {
        self.works_as(&self.tenant.placement.login).await
    }

    async fn works_as(&self, login: &str) -> bool {
        let Tenant { placement, password } = &self.tenant;
        let url = self.postgres.url(login, password.expose(), &placement.database);
        let Ok(mut session) = PgConnection::connect(&url).await else { return false };
        session
            .execute("INSERT INTO users (email) VALUES (gen_random_uuid() || '@drift.example')")
            .await
            .is_ok()
    }

    /// What EnforceAccess does.
    async fn enforce(&self, level: AccessLevel) -> Result<(), tenantry::postgres::Error> {
        let placement = &self.tenant.placement;
        self.server.restore_ownership(placement, RecordedOids::default()).await?;
        self.server.set_access(placement, level).await
    }
}

/// A change, its phrase, and whether the application works with it on 15 and on 18.
const REPAIRED: [(&str, &str, [bool; 2]); 13] = [
    ("ALTER ROLE {login} NOINHERIT", "NOINHERIT", [false, true]),
    ("ALTER ROLE {login} VALID UNTIL '2020-01-01'", "valid until 2020-01-01", [false, false]),
    ("ALTER ROLE {login} SET default_transaction_read_only = on", "the login had settings", [false, false]),
    (
        "ALTER ROLE {login} IN DATABASE {database} SET search_path = 'nowhere'",
        "the login had settings of its own: search_path",
        [false, false],
    ),
    ("ALTER ROLE {login} SET role = 'no_such_role'", "the login had settings of its own: role", [true, true]),
    ("ALTER ROLE {login} SET statement_timeout = '1ms'", "statement_timeout", [true, true]),
    ("ALTER ROLE {login} SET local_preload_libraries = 'none'", "local_preload_libraries", [false, false]),
    (
        "ALTER DATABASE {database} SET default_transaction_read_only = on",
        "the database had settings of its own: default_transaction_read_only",
        [false, false],
    ),
    ("ALTER DATABASE {database} SET idle_session_timeout = '1h'", "idle_session_timeout", [true, true]),
    ("ALTER DATABASE {database} IS_TEMPLATE true", "IS_TEMPLATE", [true, true]),
    ("ALTER ROLE {login} RENAME TO {login}_old", "the login was renamed to", [false, false]),
    (
        "SET ROLE tenantry_admin; GRANT tenantry_rw TO {login} WITH ADMIN OPTION",
        "member of tenantry_rw",
        [true, true],
    ),
    (
        "SET ROLE tenantry_admin; GRANT tenantry_shrink TO {login}",
        "member of tenantry_rw, tenantry_shrink",
        [true, true],
    ),
];

#[tokio::test]
async fn change_of_login_or_database_is_seen_and_repaired() {
    for (version, postgres) in SERVERS.iter().enumerate() {
        let stage = Stage::new(postgres, "tenant_drift").await;
        for (change, phrase, works) in REPAIRED {
            assert!(stage.works().await && stage.found(AccessLevel::ReadWrite).await.is_empty());
            stage.superuser(change).await;
            let found = stage.found(AccessLevel::ReadWrite).await;
            let text: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert!(text.iter().any(|text| text.contains(phrase)), "{change}: {text:?}");
            assert!(found.iter().all(|mismatch| mismatch.repaired_by().is_some()), "{change}: {text:?}");
            // `role` names a role that does not exist, and one millisecond is enough for a small INSERT or not.
            if !change.contains("SET role") && !change.contains("1ms") {
                assert_eq!(stage.works().await, works[version], "{change}");
            }
            stage.enforce(AccessLevel::ReadWrite).await.unwrap_or_else(|error| panic!("{change}: {error}"));
            assert_eq!(stage.found(AccessLevel::ReadWrite).await, [], "{change}");
            assert!(stage.works().await, "{change}");
        }
    }
}

/// What a superuser alone can undo is named with the statement, and left.
#[tokio::test]
async fn change_that_only_a_superuser_can_undo_is_reported() {
    for postgres in &*SERVERS {
        let stage = Stage::new(postgres, "tenant_stuck").await;
        let changes = [
            (
                "ALTER ROLE {login} SET session_replication_role = 'replica'",
                "ALTER ROLE \"tenant_stuck_app\" RESET session_replication_role",
            ),
            (
                "ALTER DATABASE {database} SET session_preload_libraries = 'auto_explain'",
                "ALTER DATABASE \"tenant_stuck\" RESET session_preload_libraries",
            ),
        ];
        for (change, statement) in changes {
            stage.superuser(change).await;
            stage.enforce(AccessLevel::ReadWrite).await.unwrap();
            let found = stage.found(AccessLevel::ReadWrite).await;
            let [mismatch] = &found[..] else { panic!("{change}: {found:?}") };
            assert_eq!((mismatch.repaired_by(), mismatch.reason()), (None, Reason::MissingRight));
            assert!(mismatch.to_string().contains(statement), "{mismatch}");
            // The statement is right.
            stage.superuser(statement).await;
            assert_eq!(stage.found(AccessLevel::ReadWrite).await, [], "{change}");
        }
        // The administrator's own business.
        stage.superuser("ALTER ROLE {login} SET log_statement = 'all'").await;
        stage.superuser("ALTER ROLE {login} SET temp_file_limit = '1GB'").await;
        stage.superuser("ALTER DATABASE {database} SET application.customer = 'x'").await;
        assert_eq!(stage.found(AccessLevel::ReadWrite).await, []);
    }
}

#[tokio::test]
async fn membership_that_a_superuser_granted_is_reported_and_not_revoked_in_vain() {
    for postgres in &*SERVERS {
        let stage = Stage::new(postgres, "tenant_granted").await;
        let neighbour = Tenant::new("tenant_granted_too");
        neighbour.provision(&stage.server, 1).await;
        stage.superuser("GRANT tenantry_shrink TO {login}; GRANT {login} TO tenant_granted_too_app").await;
        let found = stage.found(AccessLevel::ReadWrite).await;
        if postgres.binaries().major < 16 {
            assert!(found.iter().all(|mismatch| mismatch.repaired_by().is_some()), "{found:?}");
            stage.enforce(AccessLevel::ReadWrite).await.unwrap();
        } else {
            let [mismatch] = &found[..] else { panic!("{found:?}") };
            assert_eq!(mismatch.repaired_by(), None);
            // Read back after a grant too.
            let error = stage.enforce(AccessLevel::ReadOnly).await.unwrap_err();
            assert_eq!(error.reason(), Reason::MissingRight);
            let error = stage.enforce(AccessLevel::ReadWrite).await.unwrap_err();
            assert!(error.to_string().contains("REVOKE \"tenantry_shrink\""), "{error}");
            // Blocked, it is of no use; it is still named.
            stage.enforce(AccessLevel::Blocked).await.unwrap();
            let facts = stage.server.observe(&stage.tenant.placement).await.unwrap();
            assert_eq!(access(&facts), Some(AccessLevel::Blocked));
            assert!(!is_reachable(&facts, RecordedOids::default()));
            let Mismatch::SuperuserGrants(statements) = mismatch else { panic!("{mismatch:?}") };
            for statement in statements {
                stage.superuser(statement).await;
            }
            stage.enforce(AccessLevel::ReadWrite).await.unwrap();
            assert_eq!(stage.found(AccessLevel::ReadWrite).await, [Mismatch::LoginDisabled]);
            continue;
        }
        assert_eq!(stage.found(AccessLevel::ReadWrite).await, []);
    }
}

/// A login that was renamed has the password still: without the search by comment and by oid, it kept its access.
#[tokio::test]
async fn renamed_login_keeps_no_access_beside_a_new_one() {
    for postgres in &*SERVERS {
        let stage = Stage::new(postgres, "tenant_renamed").await;
        let Tenant { placement, password } = &stage.tenant;
        let facts = stage.server.observe(placement).await.unwrap();
        let recorded = RecordedOids {
            database: facts.database.map(|database| database.oid),
            login: facts.login.map(|login| login.oid),
            ..RecordedOids::default()
        };
        // Another process, or an administrator, made a second login in between.
        stage.superuser("ALTER ROLE {login} RENAME TO old; COMMENT ON ROLE old IS 'mine'").await;
        stage.server.create_login(placement).await.unwrap();
        stage.server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
        stage.server.set_login(placement, &scram_verifier(password), true).await.unwrap();
        assert!(stage.works_as("old").await && stage.works().await);
        stage.server.set_access(placement, AccessLevel::Blocked).await.unwrap();
        assert!(stage.works_as("old").await, "the control: it is not the login that was Blocked");
        let facts = stage.server.observe_recorded(placement, recorded).await.unwrap();
        assert!(is_reachable(&facts, recorded));
        let url = postgres.url("old", password.expose(), &placement.database);
        let mut inside = PgConnection::connect(&url).await.unwrap();

        stage.server.restore_ownership(placement, recorded).await.unwrap();
        assert!(inside.execute("SELECT 1").await.is_err());
        assert!(!stage.works_as("old").await);
        let facts = stage.server.observe_recorded(placement, recorded).await.unwrap();
        assert!(facts.strays.is_empty() && !is_reachable(&facts, recorded), "{:?}", facts.strays);
        stage.server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
        stage.server.set_login(placement, &scram_verifier(password), true).await.unwrap();
        assert!(stage.works().await);

        // One that cannot be dropped stays, without access.
        stage
            .superuser("ALTER ROLE {login} RENAME TO old; GRANT CREATE ON TABLESPACE pg_default TO old")
            .await;
        stage.server.create_login(placement).await.unwrap();
        stage.enforce(AccessLevel::Blocked).await.unwrap();
        assert!(!stage.works_as("old").await);
        let facts = stage.server.observe(placement).await.unwrap();
        assert!(facts.strays.len() == 1 && !is_reachable(&facts, RecordedOids::default()));
        // A purge names it; then it is gone.
        let kept = stage.server.drop_strays(placement, RecordedOids::default()).await.unwrap_err();
        assert_eq!(kept.reason(), Reason::LoginInUse);
        stage.superuser("REVOKE CREATE ON TABLESPACE pg_default FROM old").await;
        stage.server.drop_strays(placement, RecordedOids::default()).await.unwrap();
        assert_eq!(stage.server.observe(placement).await.unwrap().strays.len(), 0);
    }
}

#[tokio::test]
async fn database_that_is_a_template_is_dropped() {
    for postgres in &*SERVERS {
        let stage = Stage::new(postgres, "tenant_template").await;
        stage.superuser("ALTER DATABASE {database} IS_TEMPLATE true").await;
        let mut superuser = postgres.connect("postgres").await.unwrap();
        let refused = superuser.execute("DROP DATABASE tenant_template").await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42809");
        stage.server.drop_database(&stage.tenant.placement).await.unwrap();
    }
}

/// No setting of the database or the login reaches the operator's own sessions there.
#[tokio::test]
async fn settings_do_not_hurt_the_operators_sessions() {
    let hostile = [
        "idle_session_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "search_path = 'nowhere'",
        "row_security = off",
        "transform_null_equals = on",
        "local_preload_libraries = 'none'",
        "check_function_bodies = off",
        "default_tablespace = 'nowhere'",
        "work_mem = '64kB'",
        "DateStyle = 'SQL, DMY'",
        "bytea_output = 'escape'",
    ];
    for postgres in &*SERVERS {
        let stage = Stage::new(postgres, "tenant_hostile").await;
        let Tenant { placement, password } = &stage.tenant;
        let newer = (postgres.binaries().major >= 17).then_some("transaction_timeout = '1ms'");
        for setting in hostile.iter().copied().chain(newer) {
            stage.superuser(&format!("ALTER DATABASE {{database}} SET {setting}")).await;
            // A superuser can store a value that is not valid.
            stage.superuser(&format!("ALTER ROLE {{login}} IN DATABASE {{database}} SET {setting}")).await;
        }
        stage.server.read_counters(placement).await.unwrap();
        stage.server.seed(placement, &crate::servers::empty_seed(), None).await.unwrap();
        stage.server.verify(placement, password).await.unwrap();
        // The control: a client that pins nothing cannot even log in.
        let url = postgres.url(&placement.login, password.expose(), &placement.database);
        let plain: PgConnectOptions = url.parse().unwrap();
        assert!(PgConnection::connect_with(&plain).await.is_err());
        stage.enforce(AccessLevel::ReadWrite).await.unwrap();
        assert!(stage.works().await);
    }
}

#[tokio::test]
async fn server_that_did_not_change_returns_what_was_read_before() {
    for major in [15, 18] {
        // Of its own: on a shared server, other tests change something at any time.
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let tenant = Tenant::new("tenant_quiet");
        tenant.provision(&server, 1).await;
        let read = async |before: Option<&Inventory>| server.observe_changes(before).await.unwrap();
        let connections =
            |inventory: &Inventory| inventory.facts(&tenant.placement).login.unwrap().connection_limit;

        let first = read(None).await;
        let again = read(Some(&first)).await;
        let is_same = |other: &Inventory| std::ptr::eq(&*first, &**other);
        assert!(is_same(&again));
        postgres.connect("postgres").await.unwrap().execute("SELECT pg_current_xact_id()").await.unwrap();
        let later = read(Some(&again)).await;
        assert!(is_same(&later) && later.last_transaction() > first.last_transaction());

        let change = "ALTER ROLE tenant_quiet_app CONNECTION LIMIT 7";
        postgres.connect("postgres").await.unwrap().execute(change).await.unwrap();
        let changed = read(Some(&later)).await;
        assert!(!is_same(&changed));
        assert_eq!((connections(&first), connections(&changed)), (-1, 7));
    }
}
