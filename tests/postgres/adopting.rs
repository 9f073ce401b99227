//! Databases that existed before their tenant: the report, the takeover, and the undo, on 15 and 18.

mod kept_login;

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{
    api::reason::Reason,
    domain::{
        access::AccessLevel,
        modules::ModuleKind,
        record::ModuleVersion,
        takeover::{Former, FoundDatabase, Intent, KeptLogin, Report, baseline_versions},
        usage::entitlements::Entitlements,
    },
    modules::{Migration, Module, ModuleSet},
    postgres::{server::Server, tenant::credentials::scram_verifier, tenant::give_back::GivenBack},
};
use tenantry_dev::Postgres;

use crate::servers::{SERVERS, Tenant, ready, set_up, start};

/// A module whose first file is what the application's own migrations created, and one whose tool made other tables of it.
fn modules() -> ModuleSet {
    let file = |version, sql: &'static str| Migration {
        version,
        file: format!("000{version}_a.sql").into(),
        sql: sql.into(),
    };
    let first = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, total int);
                 CREATE VIEW totals AS SELECT sum(total) AS total FROM orders;
                 SELECT tenantry.meter('orders', 'orders');";
    let second = "ALTER TABLE orders ADD COLUMN note text";
    let app = Module { schema: "app".into(), ..Module::new("app", vec![file(1, first), file(2, second)]) };
    let versions = vec![Migration::named(1, "2026.11.3")];
    let site = Module { kind: ModuleKind::Job, ..Module::new("site", versions) };
    ModuleSet::new(vec![app, site])
}

/// What the application made before: as the database's owner.
const APPLICATION: &str = "\
CREATE SCHEMA app;
CREATE TABLE app.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, total int);
CREATE VIEW app.totals AS SELECT sum(total) AS total FROM app.orders;
CREATE TABLE public.users (id serial PRIMARY KEY, mail text NOT NULL);
CREATE SEQUENCE public.numbers;
CREATE TYPE public.mood AS ENUM ('good', 'bad');
CREATE DOMAIN public.mail AS text CHECK (VALUE LIKE '%@%');
CREATE AGGREGATE public.total (int) (SFUNC = int4pl, STYPE = int);
CREATE FUNCTION public.twice(a int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT a * 2';
CREATE STATISTICS public.pairs ON id, mail FROM public.users;
INSERT INTO app.orders (total) VALUES (1), (2), (3);
INSERT INTO public.users (mail) VALUES ('a@shop.example');
GRANT USAGE ON SCHEMA app TO adopt_reader;
GRANT SELECT ON app.orders TO adopt_reader;
GRANT SELECT ON public.users TO PUBLIC;";

struct Shop<'a> {
    postgres: &'a Postgres,
    server: Server,
    tenant: Tenant,
    owner: String,
    modules: ModuleSet,
    baseline: Vec<ModuleVersion>,
    /// The login that should stay usable.
    kept: Option<KeptLogin>,
}

impl<'a> Shop<'a> {
    /// A database of an application, with a role of its own as its owner.
    async fn new(postgres: &'a Postgres, database: &str) -> Self {
        let server = ready(postgres).await;
        let tenant = Tenant::new(database);
        let owner = format!("{database}_owner");
        let mut admin = postgres.connect("postgres").await.unwrap();
        for sql in [
            format!("CREATE ROLE {owner} LOGIN PASSWORD 'old'"),
            "DO $$ BEGIN CREATE ROLE adopt_reader LOGIN PASSWORD 'old'; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$".to_owned(),
            format!("CREATE DATABASE {database} OWNER {owner}"),
            format!("COMMENT ON DATABASE {database} IS 'the shop''s'"),
            format!("ALTER DATABASE {database} SET search_path = app, public"),
        ] {
            admin.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        let modules = modules();
        let wanted = BTreeMap::from([("app".to_owned(), "1".to_owned())]);
        let baseline = baseline_versions(&wanted, &modules.targets(), &modules.of_tools()).unwrap();
        let shop = Self { postgres, server, tenant, owner, modules, baseline, kept: None };
        shop.old_session(&shop.owner).await.unwrap().execute(APPLICATION).await.unwrap();
        shop
    }

    async fn old_session(&self, role: &str) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.postgres.url(role, "old", &self.tenant.placement.database)).await
    }

    async fn inspect(&self) -> (FoundDatabase, Report) {
        let placement = &self.tenant.placement;
        let kept = self.kept.as_ref().map(|kept| kept.name.as_str());
        let (found, parts) =
            self.server.inspect(&placement.database, &placement.login, kept, None).await.unwrap().unwrap();
        let mut intent = Intent {
            login: placement.login.clone(),
            modules: self.modules.targets(),
            baseline: self.baseline.clone(),
            of_tools: self.modules.of_tools(),
            missing: vec![],
            collisions: vec![],
            kept: self.kept.clone(),
        };
        let (recorded, all) = self.server.created_by(&self.modules, &self.baseline).await.unwrap();
        intent.compare(&recorded, &all, &parts);
        let report = Report::of(&found, &intent);
        (found, report)
    }

    /// Runs the statements that the blockers name, as an administrator, until nothing stands against the takeover.
    async fn follow_the_blockers(&self) -> (FoundDatabase, Report) {
        for _ in 0..3 {
            let (found, report) = self.inspect().await;
            if report.blockers.is_empty() {
                return (found, report);
            }
            for blocker in &report.blockers {
                let (_, statement) = blocker.rsplit_once(": ").unwrap_or_else(|| panic!("{blocker}"));
                let mut admin = self.postgres.connect(&self.tenant.placement.database).await.unwrap();
                admin
                    .execute(AssertSqlSafe(statement.to_owned()))
                    .await
                    .unwrap_or_else(|error| panic!("{blocker}: {error}"));
            }
        }
        panic!("{:?}", self.inspect().await.1.blockers)
    }

    /// The steps up to the activation.
    async fn take_over(&self, found: &FoundDatabase) {
        let placement = &self.tenant.placement;
        // Each may be repeated.
        for _ in 0..2 {
            self.server.create_login(placement).await.unwrap();
        }
        self.server.claim_database(placement, found).await.unwrap();
        for _ in 0..2 {
            self.server.transfer_database(placement, &self.modules, &self.baseline).await.unwrap();
        }
        self.server.migrate(placement, &self.modules).await.unwrap().into_result().unwrap();
        let report = self.server.check_structure(placement, &self.modules).await.unwrap();
        assert!(report.left.is_empty(), "{report:?}");
        let rights = self.server.settle_rights(placement).await.unwrap();
        assert!(rights.left.is_empty(), "{rights:?}");
    }
}

#[tokio::test]
async fn database_of_an_application_becomes_a_tenants() {
    for postgres in &*SERVERS {
        let shop = Shop::new(postgres, "tenant_adopt_shop").await;
        let (found, report) = shop.follow_the_blockers().await;
        let changes = report.changes.join("\n");
        for expected in [
            "search_path",
            "adopt_reader on 2 objects",
            "the shop's",
            "module app: recorded as applied up to 1",
        ] {
            assert!(changes.contains(expected), "{expected}: {changes}");
        }
        // Reading it changed nothing, and it is read the same again.
        assert_eq!(shop.inspect().await.1.digest, report.digest);
        let mut old = shop.old_session(&shop.owner).await.unwrap();
        shop.take_over(&found).await;
        assert!(old.execute("SELECT 1").await.is_err(), "its session has ended");

        let (server, placement) = (&shop.server, &shop.tenant.placement);
        let limits =
            serde_json::json!({"plan": "free", "limits": {"orders": 4}, "features": [], "modules": []});
        let limits: Entitlements = serde_json::from_value(limits).unwrap();
        let usage = server.apply_limits(placement, &limits).await.unwrap();
        assert_eq!(usage.get("orders"), Some(&3), "the rows that exist count");
        server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
        server.set_login(placement, &scram_verifier(&shop.tenant.password), true).await.unwrap();
        let versions = server.verify(placement, &shop.tenant.password).await.unwrap();
        // What the tool brings, it brings once the tenant is active.
        let mut expected = shop.modules.of_files().targets();
        expected.sort();
        assert_eq!(
            {
                let mut versions = versions;
                versions.sort();
                versions
            },
            expected
        );

        let mut session = shop.tenant.session(postgres).await.unwrap();
        session
            .execute(
                "INSERT INTO app.orders (total, note) VALUES (4, 'x'); SELECT * FROM app.totals; SELECT twice(2), total(1);
                 INSERT INTO public.users (mail) VALUES ('b@shop.example'); SELECT nextval('numbers'), 'good'::mood",
            )
            .await
            .unwrap();
        for refused in [
            "INSERT INTO app.orders (total) VALUES (5)",
            "CREATE TABLE app.t (a int)",
            "DROP TABLE app.orders",
            "ALTER TABLE public.users ADD x int",
        ] {
            assert!(session.execute(refused).await.is_err(), "{refused}");
        }
        // No other role connects, and nothing is left with the old owner.
        for role in [&shop.owner, "adopt_reader"] {
            let error = shop.old_session(role).await.unwrap_err();
            assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{role}");
        }
        let mut admin = postgres.connect(&placement.database).await.unwrap();
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_shdepend AS d JOIN pg_roles AS r ON r.oid = d.refobjid
             WHERE r.rolname = $1 AND d.deptype = 'o'",
        )
        .bind(&shop.owner)
        .fetch_one(&mut admin)
        .await
        .unwrap();
        assert_eq!(left, 0);
        let joined: bool = sqlx::query_scalar("SELECT count(*) FILTER (WHERE pg_get_userbyid(grantor) = 'tenantry_admin') = 0 FROM pg_auth_members WHERE roleid = $1::text::regrole AND member = 'tenantry_admin'::regrole")
            .bind(&shop.owner)
            .fetch_one(&mut admin)
            .await
            .unwrap();
        assert!(joined, "the membership ended with the transaction");

        // It is dropped only once it is a tenant's as any other.
        let refused = server.drop_database(placement).await.unwrap_err();
        assert!(refused.to_string().contains("is not dropped"), "{refused}");
        for _ in 0..2 {
            server.finish_takeover(placement).await.unwrap();
        }
        let facts = server.observe(placement).await.unwrap().database.unwrap();
        assert!(
            facts.ownership.is_ours() && !facts.is_adopting && facts.owned_by_dba && !facts.open_to_public
        );
        assert!(facts.settings.is_empty(), "{:?}", facts.settings);
    }
}

#[tokio::test]
async fn two_tenants_never_claim_one_database() {
    for postgres in &*SERVERS {
        let shop = Shop::new(postgres, "tenant_adopt_race").await;
        let (found, _) = shop.follow_the_blockers().await;
        let rival = Tenant::new("tenant_adopt_race");
        let (one, other) = tokio::join!(
            shop.server.claim_database(&shop.tenant.placement, &found),
            shop.server.claim_database(&rival.placement, &found)
        );
        let lost: Vec<_> = [one, other].into_iter().filter_map(Result::err).collect();
        assert_eq!(lost.len(), 1, "{lost:?}");
        // The one that waited for the other's row reports what it finds when it tries again.
        let first = if shop
            .server
            .observe(&shop.tenant.placement)
            .await
            .unwrap()
            .database
            .unwrap()
            .ownership
            .is_ours()
        {
            &rival.placement
        } else {
            &shop.tenant.placement
        };
        let error = shop.server.claim_database(first, &found).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Conflict, "{error}");
        let (found, report) = shop.inspect().await;
        assert!(found.is_marked && report.blockers[0].contains("another tenant's"), "{report:?}");
    }
}

#[tokio::test]
async fn undo_gives_everything_back_and_drops_nothing() {
    for postgres in &*SERVERS {
        let shop = Shop::new(postgres, "tenant_adopt_undo").await;
        let (found, report) = shop.follow_the_blockers().await;
        let former = Former::of(&found);
        let placement = &shop.tenant.placement;
        assert_eq!(shop.server.give_back(placement, &former).await.unwrap(), GivenBack::Untouched);
        shop.take_over(&found).await;
        assert_eq!(shop.server.give_back(placement, &former).await.unwrap(), GivenBack::Returned);
        assert_eq!(shop.server.give_back(placement, &former).await.unwrap(), GivenBack::Untouched);
        shop.server.drop_login(placement).await.unwrap();

        let mut old = shop.old_session(&shop.owner).await.unwrap();
        old.execute(
            "INSERT INTO app.orders (total) VALUES (4); ALTER TABLE app.orders ADD COLUMN own text; CREATE TABLE app.more (a int);
             DROP TABLE app.more; ALTER TABLE app.orders DROP COLUMN own; ALTER TABLE app.orders DROP COLUMN note",
        )
        .await
        .unwrap();
        let mut reader = shop.old_session("adopt_reader").await.unwrap();
        reader
            .execute("SELECT * FROM app.orders; SELECT * FROM public.users; SELECT twice(1)")
            .await
            .unwrap();
        let mut admin = postgres.connect(&placement.database).await.unwrap();
        let left: Vec<String> = sqlx::query_scalar(
            "SELECT nspname::text FROM pg_namespace WHERE nspname = 'tenantry'
             UNION ALL SELECT c.relname::text FROM pg_class AS c, aclexplode(c.relacl) AS a
             WHERE pg_get_userbyid(a.grantee) ~ '^tenantry_'
             UNION ALL SELECT n.nspname::text FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
             WHERE pg_get_userbyid(a.grantee) ~ '^tenantry_'
             UNION ALL SELECT d.datname::text FROM pg_database AS d, aclexplode(d.datacl) AS a
             WHERE d.datname = current_database() AND pg_get_userbyid(a.grantee) ~ '^tenantry_'",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert_eq!(left, Vec::<String>::new());
        let (again, second) = shop.inspect().await;
        assert_eq!(
            (again.owner.clone(), again.comment.clone()),
            (found.owner.clone(), found.comment.clone())
        );
        assert_eq!(second.blockers, Vec::<String>::new());
        assert_eq!(again.rights, found.rights);
        drop(report);
    }
}

#[tokio::test]
async fn what_stands_against_it_is_named_with_the_statement_that_removes_it() {
    for postgres in &*SERVERS {
        let shop = Shop::new(postgres, "tenant_adopt_refused").await;
        let database = &shop.tenant.placement.database;
        let mut admin = postgres.connect(database).await.unwrap();
        admin
            .execute(
                "CREATE TABLE app.\"Secret\" (a int); CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
                 CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
                 CREATE EVENT TRIGGER \"My Trigger\" ON ddl_command_start EXECUTE FUNCTION public.watch();
                 CREATE PUBLICATION adopt_pub; SELECT lo_create(4711); CREATE SCHEMA \"Odd one\"",
            )
            .await
            .unwrap();
        let (_, report) = shop.inspect().await;
        let all = report.blockers.join("\n");
        for statement in [
            "ALTER TABLE app.\"Secret\" OWNER TO tenantry_owner;",
            "ALTER ROUTINE app.f() OWNER TO tenantry_owner;",
            "ALTER SCHEMA \"Odd one\" OWNER TO tenantry_dba;",
            "DROP EVENT TRIGGER \"My Trigger\";",
            "DROP PUBLICATION adopt_pub;",
            "SELECT lo_unlink(oid) FROM pg_largeobject_metadata;",
        ] {
            assert!(all.contains(statement), "{statement}: {all}");
        }
        assert!(report.decide(database, Some(&report.digest)).is_err());
        let (found, _) = shop.follow_the_blockers().await;
        shop.take_over(&found).await;

        // What is not a tenant's: the registry, PostgreSQL's own, a template, another tenant's.
        for reserved in ["tenantry_system", "postgres", "template1", database] {
            let (found, _) = shop.server.inspect(reserved, "x", None, None).await.unwrap().unwrap();
            assert!(!found.can_be_opened() && found.content.is_none(), "{reserved}");
        }
        assert!(shop.server.inspect("tenant_adopt_absent", "x", None, None).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn who_is_granted_connect_after_the_report_loses_it_with_the_claim() {
    for postgres in &*SERVERS {
        let shop = Shop::new(postgres, "adopt_late_grant").await;
        let (found, _) = shop.follow_the_blockers().await;
        let mut former = shop.old_session(&shop.owner).await.unwrap();
        for sql in [
            "GRANT CONNECT ON DATABASE adopt_late_grant TO adopt_reader WITH GRANT OPTION",
            "REVOKE CONNECT ON DATABASE adopt_late_grant FROM PUBLIC",
        ] {
            former.execute(sql).await.unwrap();
        }
        let mut reader = shop.old_session("adopt_reader").await.unwrap();
        let further = format!("GRANT CONNECT ON DATABASE adopt_late_grant TO {} ", shop.owner);
        reader.execute(AssertSqlSafe(further)).await.unwrap();
        shop.take_over(&found).await;
        for role in ["adopt_reader", &shop.owner] {
            let refused = shop.old_session(role).await.unwrap_err();
            let code =
                refused.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
            assert_eq!(code.as_deref(), Some("42501"), "{role}: {refused}");
        }
        assert!(reader.execute("SELECT 1").await.is_err());
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn replication_slot_stands_against_it() {
    for major in [15, 18] {
        let logical = vec![("wal_level".to_owned(), "logical".to_owned())];
        let postgres = set_up(start(major, logical).await).await;
        let shop = Shop::new(&postgres, "adopt_slot").await;
        let mut admin = postgres.connect("adopt_slot").await.unwrap();
        admin.execute("SELECT pg_create_logical_replication_slot('adopt_left', 'pgoutput')").await.unwrap();
        let (_, report) = shop.inspect().await;
        let named =
            |line: &String| line.ends_with("Run there: SELECT pg_drop_replication_slot('adopt_left');");
        assert!(report.blockers.iter().any(named), "{:?}", report.blockers);
        shop.follow_the_blockers().await;
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_replication_slots")
            .fetch_one(&mut admin)
            .await
            .unwrap();
        assert_eq!(left, 0);
    }
}
