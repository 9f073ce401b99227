//! Extensions of modules: in templates, and in the databases of existing tenants.

use sqlx::{AssertSqlSafe, Connection, Executor};
use tenantry::{
    api::reason::Reason,
    modules::{Extension, Module},
};

use super::{extension, module, with};
use crate::servers::{SERVERS, Tenant, ready, set_up, start};

#[tokio::test]
async fn extension_is_created_updated_and_looked_up() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_extensions");
        tenant.provision(&server, 1).await;
        let of = |version: Option<&str>, files: &[&str]| Module {
            schema: "ext_app".into(),
            extensions: vec![extension("hstore", version), extension("cube", None)],
            ..module("ext_app", files)
        };
        let first = "CREATE TABLE attributes (all_of hstore, place cube)";
        let migrate = async |module: &Module| {
            server.migrate(&tenant.placement, &with(&[module])).await.unwrap().into_result()
        };
        migrate(&of(Some("1.4"), &[first])).await.unwrap();
        let mut inside = postgres.connect(&tenant.placement.database).await.unwrap();
        let installed = "SELECT extversion::text, extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'hstore'";
        let found: (String, String) = sqlx::query_as(installed).fetch_one(&mut inside).await.unwrap();
        assert_eq!(found, ("1.4".to_owned(), "ext_app".to_owned()));
        // A later version, in a database that has the earlier one.
        migrate(&of(Some("1.8"), &[first, "SELECT 'a=>1'::hstore"])).await.unwrap();
        let found: (String, String) = sqlx::query_as(installed).fetch_one(&mut inside).await.unwrap();
        assert_eq!(found.0, "1.8");
        // Another module that needs it finds it where it is.
        let other = Module {
            schema: "ext_other".into(),
            extensions: vec![extension("hstore", None)],
            ..module("ext_other", &["CREATE TABLE more (a hstore)"])
        };
        migrate(&other).await.unwrap();
        // The application's login uses its functions.
        let mut session = tenant.session(postgres).await.unwrap();
        session.execute("SELECT ext_app.akeys('a=>1'::ext_app.hstore)").await.unwrap();
        let elsewhere = Extension { schema: Some("public".into()), ..extension("hstore", None) };
        let refused = Module { extensions: vec![elsewhere], ..module("ext_third", &["SELECT 1"]) };
        let error = migrate(&refused).await.unwrap_err();
        assert_eq!(error.reason(), Reason::ExtensionNotFound);
        assert!(error.to_string().contains("it is in schema ext_app there, not public"), "{error}");
        let report = server.settle_rights(&tenant.placement).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[tokio::test]
async fn extension_that_cannot_be_had_is_named_with_the_remedy() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let tenant = Tenant::new("tenant_untrusted");
        tenant.provision(&server, 1).await;
        let of = |name: &str, version: Option<&str>| Module {
            extensions: vec![extension(name, version)],
            ..module("untrusted", &["SELECT 1"])
        };
        for (name, version, expected) in [
            ("no_such_extension", None, "the server does not have it: install its package"),
            ("citext", Some("99"), "the server does not have version 99"),
        ] {
            let error = server.ensure_template(&with(&[&of(name, version)])).await.unwrap_err();
            assert_eq!(error.reason(), Reason::ExtensionNotFound, "{error}");
            assert!(error.to_string().contains(expected) && error.is_permanent(), "{error}");
        }
        let set = with(&[&of("pageinspect", None)]);
        let error = server.migrate(&tenant.placement, &set).await.unwrap().into_result().unwrap_err();
        assert!(error.to_string().contains("database tenant_untrusted of server test"), "{error}");
        let error = server.ensure_template(&set).await.unwrap_err().to_string();
        let (_, rest) = error.split_once("of each tenant: ").unwrap();
        let (statement, _) = rest.split_once(" (").unwrap();
        for database in ["template1", "tenant_untrusted"] {
            let mut superuser = postgres.connect(database).await.unwrap();
            superuser.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
            superuser.close().await.unwrap();
        }
        server.migrate(&tenant.placement, &set).await.unwrap().into_result().unwrap();
        server.ensure_template(&set).await.unwrap();
    }
}
