//! The modules that ship with Tenantry in other schemas than `public`, which is then an application's own.

use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::{
    domain::{rights::RightsReport, structure::SchemaReport, usage::entitlements::Entitlements},
    modules::{Module, ModuleSet, embedded},
    postgres::{
        server::Server,
        tenant::{
            credentials::generate_password,
            module_purge::{ModulePurge, PurgedModule},
            seed::{OneTimeSecret, Seed},
        },
    },
};

use crate::{
    admins::admin,
    modules::module,
    servers::{SERVERS, Tenant, empty_seed, ready, refusal},
};

/// The tables of an application, with names that built-in modules have too.
fn shop() -> Module {
    let tables = "CREATE TABLE users (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, login text);
        CREATE TABLE settings (name text PRIMARY KEY);
        CREATE TABLE roles (name text PRIMARY KEY)";
    module("shop", &[tables])
}

fn modules(schemas: &str) -> ModuleSet {
    let mut modules = embedded(&schemas.parse().unwrap());
    modules.insert(1, shop());
    ModuleSet::new(modules)
}

async fn one(session: &mut PgConnection, query: &str) -> String {
    let query = AssertSqlSafe(format!("SELECT ({query})::text"));
    let found: Option<String> = sqlx::query_scalar(query).fetch_one(session).await.unwrap();
    found.unwrap_or_default()
}

/// A tenant with an admin, settings, demo data and limits; then its usage.
async fn seeded(server: &Server, name: &str, modules: &ModuleSet) -> Tenant {
    let tenant = Tenant::new(name);
    tenant.provision_with(server, modules, 1).await;
    let limits = [("users".to_owned(), Some(4)), ("projects".to_owned(), Some(1))].into();
    server
        .apply_limits(&tenant.placement, &Entitlements { limits, ..Entitlements::default() })
        .await
        .unwrap();
    for (value, removed) in [("1", false), ("2", true)] {
        let settings = serde_json::from_value(json!({"theme": value})).unwrap();
        let other = admin("bea@schemas.example", OneTimeSecret::ResetToken(generate_password()), 1);
        let ada = admin("ada@schemas.example", OneTimeSecret::ResetToken(generate_password()), 1);
        let admins = if removed { vec![ada] } else { vec![ada, other] };
        let seed = Seed { settings, admins, demo_data: true, ..empty_seed() };
        let outcome = server.seed(&tenant.placement, &seed, None).await.unwrap();
        assert_eq!((outcome.offered.len(), outcome.usage["users"]), (seed.admins.len(), 4));
    }
    tenant
}

async fn is_clean(server: &Server, tenant: &Tenant, modules: &ModuleSet) {
    let placement = &tenant.placement;
    assert_eq!(server.verify(placement, &tenant.password).await.unwrap(), modules.targets());
    assert_eq!(server.check_structure(placement, modules).await.unwrap(), SchemaReport::default());
    assert_eq!(server.settle_rights(placement).await.unwrap(), RightsReport::default());
    // Nothing is due.
    let migrated = server.migrate(placement, modules).await.unwrap().into_result().unwrap();
    assert_eq!(migrated.len(), modules.targets().len());
}

#[tokio::test]
async fn built_in_modules_are_in_schemas_of_their_own_beside_an_application() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let modules = modules("core=s_core,identity=s_identity,projects=s_projects");
        let tenant = seeded(&server, "tenant_schemas_own", &modules).await;
        is_clean(&server, &tenant, &modules).await;
        let mut inside = postgres.connect(&tenant.placement.database).await.unwrap();
        let in_public = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
        assert_eq!(one(&mut inside, in_public).await, "roles settings users");
        let functions = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
        assert_eq!(one(&mut inside, functions).await, "0");

        let mut session = tenant.session(postgres).await.unwrap();
        for (query, wanted) in [
            (
                "SELECT string_agg(u.email, ' ' ORDER BY email) FROM s_identity.users u JOIN s_identity.user_roles ON user_id = u.id JOIN s_identity.roles r ON r.id = role_id WHERE r.name = 'admin'",
                "ada@schemas.example bea@schemas.example",
            ),
            ("SELECT count(*) FROM s_identity.users WHERE is_demo", "2"),
            (
                "SELECT count(*) FROM s_identity.user_credentials WHERE issued_by = 'tenantry' AND revoked_at IS NULL",
                "1",
            ),
            ("SELECT value FROM s_core.settings WHERE key = 'theme'", "\"2\""),
            ("SELECT count(*) FROM s_core.activity_log", "1"),
            ("SELECT count(*) FROM public.users", "0"),
        ] {
            assert_eq!(one(&mut session, query).await, wanted, "{query}");
        }
        // What is counted is identity's, and not the application's.
        session
            .execute("INSERT INTO public.users (login) SELECT n::text FROM generate_series(1, 9) n")
            .await
            .unwrap();
        let user = "INSERT INTO s_identity.users (email) VALUES ('eve@schemas.example')";
        assert_eq!(refusal(&mut session, user).await, "TNLIM");
        let project =
            "INSERT INTO s_projects.projects (name, owner_id) SELECT 'one', id FROM s_identity.users LIMIT 1";
        session.execute(project).await.unwrap();
        assert_eq!(refusal(&mut session, project).await, "TNLIM");
        session.execute("UPDATE s_projects.projects SET archived_at = now()").await.unwrap();
        session.execute(project).await.unwrap();
        is_clean(&server, &tenant, &modules).await;

        // A lost trigger comes back where the table is.
        inside.execute("DROP TRIGGER tenantry_users_insert ON s_identity.users").await.unwrap();
        let report = server.check_structure(&tenant.placement, &modules).await.unwrap();
        assert!(report.left.is_empty() && !report.repaired.is_empty(), "{report:?}");
        assert_eq!(refusal(&mut session, user).await, "TNLIM");

        let own = Some("s_projects");
        let purge = ModulePurge {
            module: "projects",
            own_schema: own,
            schema: "s_projects",
            modules: &modules,
            kept_extensions: &[],
        };
        let purged = server.purge_module(&tenant.placement, &purge).await.unwrap();
        assert!(
            matches!(&purged, PurgedModule::Dropped { limits, .. } if limits == &["projects"]),
            "{purged:?}"
        );
        assert_eq!(one(&mut inside, "SELECT to_regnamespace('s_projects')").await, "");
    }
}

#[tokio::test]
async fn projects_in_public_refer_to_the_users_of_identity_elsewhere() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let modules = modules("core=beside,identity=beside");
        let tenant = seeded(&server, "tenant_schemas_beside", &modules).await;
        is_clean(&server, &tenant, &modules).await;
        let mut inside = postgres.connect(&tenant.placement.database).await.unwrap();
        let owner = "SELECT confrelid::regclass FROM pg_constraint WHERE conname = 'projects_owner_id_fkey' AND conrelid = 'public.projects'::regclass";
        assert_eq!(one(&mut inside, owner).await, "beside.users");
        let mut session = tenant.session(postgres).await.unwrap();
        session.execute("INSERT INTO public.users (login) VALUES ('a')").await.unwrap();
        let project = "INSERT INTO projects (name, owner_id) SELECT 'one', id FROM beside.users LIMIT 1";
        session.execute(project).await.unwrap();
        assert_eq!(refusal(&mut session, project).await, "TNLIM");

        // The same modules come to a tenant that has its admins already.
        let later = Tenant::new("tenant_schemas_later");
        later.provision_with(&server, &ModuleSet::new(vec![shop()]), 1).await;
        let seed = Seed {
            settings: serde_json::from_value(json!({"theme": 1})).unwrap(),
            admins: vec![admin("ada@later.example", OneTimeSecret::ResetToken(generate_password()), 1)],
            ..empty_seed()
        };
        server.seed(&later.placement, &seed, None).await.unwrap();
        server.migrate(&later.placement, &modules).await.unwrap().into_result().unwrap();
        let mut inside = postgres.connect(&later.placement.database).await.unwrap();
        assert_eq!(one(&mut inside, "SELECT email FROM beside.users").await, "ada@later.example");
        assert_eq!(one(&mut inside, "SELECT value FROM beside.settings").await, "1");
        let templates = [&modules, &self::modules("")].map(|modules| modules.digest().to_owned());
        assert_ne!(templates[0], templates[1]);
    }
}
