//! Modules that are dropped from a tenant's database: only what is theirs, and nothing if something else needs it.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{
    domain::{
        module_purge::{PurgeRefusal, others_there, own_schema},
        modules::{KnownModule, ModuleKind, ModuleWishes, Offer},
        recorded_purge::RecordedPurges,
    },
    modules::{Module, ModuleSet},
    postgres::{
        server::Server,
        tenant::module_purge::{ModulePurge, PurgedModule},
    },
};

use super::{extension, module, with};
use crate::servers::{SERVERS, Tenant, ready};

/// A module in a schema of its own, with everything that a module can have.
fn shop() -> Module {
    let tables = "CREATE TYPE state AS ENUM ('new', 'paid');
        CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state state DEFAULT 'new', more hstore);
        CREATE SEQUENCE numbers;
        CREATE VIEW paid AS SELECT * FROM orders WHERE state = 'paid';
        CREATE MATERIALIZED VIEW months AS SELECT count(*) FROM orders;
        CREATE FUNCTION total(s state) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM shop.orders';
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();
        CREATE FUNCTION admin(admin jsonb) RETURNS void LANGUAGE sql AS '';
        SELECT tenantry.on_admin('shop.admin');
        SELECT tenantry.meter('orders', 'shop.orders');
        INSERT INTO orders DEFAULT VALUES";
    Module {
        schema: "shop".into(),
        extensions: vec![extension("hstore", None)],
        ..module(
            "shop",
            &[tables, "-- tenantry: no-transaction\nCREATE INDEX CONCURRENTLY ON shop.orders (state)"],
        )
    }
}

/// A module in `public`, as others are.
fn notes() -> Module {
    let tables = "CREATE DOMAIN title AS text CHECK (VALUE <> '');
        CREATE TABLE notes (id int PRIMARY KEY, title title, author uuid REFERENCES users);
        CREATE FUNCTION newest() RETURNS SETOF notes LANGUAGE sql AS 'SELECT * FROM public.notes';
        SELECT tenantry.meter('notes', 'public.notes'); SELECT tenantry.meter('entries', 'public.notes')";
    module("notes", &[tables])
}

fn purge<'a>(module: &'a str, own_schema: Option<&'a str>, modules: &'a ModuleSet) -> ModulePurge<'a> {
    ModulePurge { module, own_schema, schema: own_schema.unwrap_or("public"), modules, kept_extensions: &[] }
}

async fn objects(session: &mut PgConnection) -> Vec<String> {
    let read = "SELECT format('%s %s', c.relnamespace::regnamespace, c.relname) FROM pg_class AS c
                WHERE c.relowner = 'tenantry_owner'::regrole AND c.relnamespace <> 'pg_toast'::regnamespace
                  AND c.relname !~ '^migration_progress'
                UNION ALL SELECT format('%s %s', p.pronamespace::regnamespace, p.proname) FROM pg_proc AS p
                WHERE p.proowner = 'tenantry_owner'::regrole AND p.proname !~ '^metered_'
                UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^pg_'
                UNION ALL SELECT 'extension ' || extname FROM pg_extension
                UNION ALL SELECT format('ledger %s %s', module, version) FROM tenantry.migrations
                UNION ALL SELECT format('meter %s', name) FROM tenantry.meters
                UNION ALL SELECT format('counter %s %s', name, used) FROM tenantry.counters
                UNION ALL SELECT format('calls %s', function) FROM tenantry.registered_functions WHERE module <> 'identity'
                ORDER BY 1";
    sqlx::query_scalar(read).fetch_all(session).await.unwrap()
}

async fn run(session: &mut PgConnection, sql: &str) {
    session.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

fn dependents(purged: PurgedModule) -> String {
    match purged {
        PurgedModule::Refused { why: PurgeRefusal::Dependents(objects), .. } => objects.join(", "),
        other => panic!("{other:?}"),
    }
}

async fn migrate(server: &Server, tenant: &Tenant, modules: &ModuleSet) {
    server.migrate(&tenant.placement, modules).await.unwrap().into_result().unwrap();
}

#[tokio::test]
async fn module_with_a_schema_of_its_own_is_dropped_unless_something_needs_it() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_purge_own");
        tenant.provision(&server, 1).await;
        let mut inside = postgres.connect(&tenant.placement.database).await.unwrap();
        let before = objects(&mut inside).await;
        let modules = with(&[&shop()]);
        migrate(&server, &tenant, &modules).await;
        let full = objects(&mut inside).await;
        let drop = async || {
            server.purge_module(&tenant.placement, &purge("shop", Some("shop"), &modules)).await.unwrap()
        };
        for (by_hand, named, undo) in [
            (
                "CREATE TABLE own (id bigint REFERENCES shop.orders)",
                "constraint own_id_fkey on public.own",
                "DROP TABLE own",
            ),
            ("CREATE VIEW own AS SELECT id FROM shop.orders", "view public.own", "DROP VIEW own"),
            (
                "CREATE TABLE own (id bigint DEFAULT nextval('shop.numbers'))",
                "column public.own.id",
                "DROP TABLE own",
            ),
            ("CREATE TABLE own (s shop.state)", "column public.own.s", "DROP TABLE own"),
            (
                "CREATE TRIGGER own BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION shop.touch()",
                "trigger own on public.users",
                "DROP TRIGGER own ON users",
            ),
        ] {
            run(&mut inside, &format!("SET ROLE tenantry_owner; {by_hand}; RESET ROLE")).await;
            let refused = dependents(drop().await);
            assert!(refused.contains(named), "{by_hand}: {refused}");
            run(&mut inside, undo).await;
            assert_eq!(objects(&mut inside).await, full, "{by_hand}");
        }
        // What a superuser made there is not the operator's to drop.
        run(&mut inside, "CREATE TABLE shop.theirs (id int)").await;
        let PurgedModule::Refused { version: 2, why } = drop().await else { panic!() };
        assert!(why.to_string().contains("not dropped by Tenantry: table shop.theirs"), "{why}");
        run(&mut inside, "DROP TABLE shop.theirs").await;

        let PurgedModule::Dropped { version, objects: dropped, limits } = drop().await else { panic!() };
        assert_eq!((version, limits), (2, vec!["orders".to_owned()]));
        assert!(dropped.contains(&"table shop.orders".to_owned()), "{dropped:?}");
        assert_eq!(objects(&mut inside).await, before);
        assert_eq!(server.module_version(&tenant.placement, "shop").await.unwrap(), None);
        assert_eq!(drop().await, PurgedModule::Absent);
        let report = server.check_structure(&tenant.placement, &modules).await.unwrap();
        assert!(report.left.is_empty(), "{report:?}");
        // Later it starts from nothing.
        migrate(&server, &tenant, &modules).await;
        assert_eq!(objects(&mut inside).await, full);
        inside.close().await.unwrap();
    }
}

#[tokio::test]
async fn module_in_a_shared_schema_loses_what_it_made_there() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_purge_shared");
        tenant.provision(&server, 1).await;
        let mut inside = postgres.connect(&tenant.placement.database).await.unwrap();
        // Two tables count towards one limit, of which the other stays.
        let entries = module(
            "entries",
            &["CREATE TABLE entries (); SELECT tenantry.meter('entries', 'public.entries')"],
        );
        let (without, modules) = (with(&[&entries]), with(&[&notes(), &entries]));
        migrate(&server, &tenant, &without).await;
        run(&mut inside, "CREATE TABLE kept (n int); INSERT INTO entries DEFAULT VALUES").await;
        let before = objects(&mut inside).await;
        migrate(&server, &tenant, &modules).await;
        run(&mut inside, "INSERT INTO notes VALUES (1, 'a')").await;
        let drop = async |module: &str, modules: &ModuleSet| {
            server.purge_module(&tenant.placement, &purge(module, None, modules)).await.unwrap()
        };
        // Without its files, what is its own is not known.
        let PurgedModule::Refused { version: 1, why } = drop("notes", &without).await else { panic!() };
        assert!(why.to_string().contains("it shares schema \"public\" with others"), "{why}");
        let other = Module { ..module("notes", &["CREATE TABLE public.kept (n int)"]) };
        let PurgedModule::Refused { why, .. } = drop("notes", &with(&[&other, &entries])).await else {
            panic!()
        };
        assert!(matches!(why, PurgeRefusal::Unknown { .. }), "{why}");
        // Nor what a tool made.
        let made_by_tool = Module { kind: ModuleKind::Job, ..notes() };
        let PurgedModule::Refused { why, .. } = drop("notes", &with(&[&made_by_tool, &entries])).await else {
            panic!()
        };
        assert!(matches!(why, PurgeRefusal::MadeByTool { .. }), "{why}");
        // Another module cannot be without it, whether or not it says so.
        let needed = async |module: &str, by: &str| {
            let PurgedModule::Refused { why, .. } = drop(module, &modules).await else { panic!() };
            assert_eq!(why, PurgeRefusal::Needed(by.to_owned()));
        };
        needed("identity", "projects").await;
        // A table of no module too.
        run(&mut inside, "CREATE TABLE own (id int REFERENCES notes)").await;
        assert_eq!(dependents(drop("notes", &modules).await), "constraint own_id_fkey on public.own");
        run(&mut inside, "DROP TABLE own").await;

        let PurgedModule::Dropped { objects: dropped, limits, .. } = drop("notes", &modules).await else {
            panic!()
        };
        let expected = ["function public.newest()", "table public.notes", "type public.title"];
        assert_eq!((dropped, limits), (expected.map(str::to_owned).to_vec(), vec!["notes".to_owned()]));
        assert_eq!(objects(&mut inside).await, before);

        // Modules that ship with Tenantry too: what depends on the other goes first.
        for module in ["projects", "identity"] {
            let purged = drop(module, &without).await;
            assert!(matches!(purged, PurgedModule::Dropped { .. }), "{module}: {purged:?}");
        }
        let left = objects(&mut inside).await;
        assert!(
            left.contains(&"public settings".to_owned()) && !left.contains(&"public users".to_owned()),
            "{left:?}"
        );
        let report = server.check_structure(&tenant.placement, &without).await.unwrap();
        assert!(report.left.is_empty(), "{report:?}");
        migrate(&server, &tenant, &without).await;
        inside.close().await.unwrap();
    }
}

#[tokio::test]
async fn tables_of_a_tool_that_did_not_report_stay() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_purge_unreported");
        let coupons =
            Module { schema: "shop".into(), ..module("coupons", &["CREATE TABLE shop.coupons (a int)"]) };
        let tool = |name: &str| KnownModule {
            name: name.into(),
            depends_on: vec![],
            minimum_versions: std::collections::BTreeMap::new(),
            is_default: false,
            kind: ModuleKind::External,
            offer: Offer::Ready { target: 1 },
        };
        let modules = with(&[&coupons]);
        tenant.provision_with(&server, &modules, 1).await;
        // Its pipeline began: the tenant's record has no module "app", and neither has the ledger.
        let mut inside = postgres.connect(&tenant.placement.database).await.unwrap();
        run(&mut inside, "SET ROLE tenantry_owner; CREATE TABLE shop.orders (a int); RESET ROLE").await;
        let wishes = ModuleWishes { tenant: &[], plan: "", of_plan: &[] };
        let others = others_there("coupons", wishes, &[], &RecordedPurges::new(), &[tool("app")]);
        assert!(others.contains("app"));
        let own = own_schema("shop", &["shop"]);
        let purge = ModulePurge { schema: "shop", ..purge("coupons", own, &modules) };
        let purged = server.purge_module(&tenant.placement, &purge).await.unwrap();
        let PurgedModule::Dropped { objects, .. } = &purged else { panic!("{purged:?}") };
        assert_eq!(objects, &["table shop.coupons"]);
        let left: bool = sqlx::query_scalar("SELECT to_regclass('shop.orders') IS NOT NULL")
            .fetch_one(&mut inside)
            .await
            .unwrap();
        assert!(left);
        inside.close().await.unwrap();
    }
}
