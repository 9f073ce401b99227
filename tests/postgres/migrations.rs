//! Migrations of a tenant's database that are corrected after some tenants have them.

use tenantry::{
    domain::record::ModuleVersion,
    modules::{Migration, Module, ModuleSet, hexadecimal},
};

use crate::servers::{SERVERS, Tenant, ready};

/// The built-in modules and one with a single file.
fn with_file(sql: &str) -> (ModuleSet, String) {
    let file = Migration { version: 1, file: "0001_wiki.sql".into(), sql: sql.to_owned().into() };
    let checksum = hexadecimal(&file.checksum());
    let mut modules = ModuleSet::built_in().modules().to_vec();
    modules.push(Module::new("wiki", vec![file]));
    (ModuleSet::new(modules), checksum)
}

#[tokio::test]
async fn correction_is_applied_where_the_wrong_file_was_not() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (has_it, lacks_it) = (Tenant::new("tenant_has_it"), Tenant::new("tenant_lacks_it"));
        for tenant in [&has_it, &lacks_it] {
            tenant.provision(&server, 1).await;
        }
        // Fails for tenants with users only.
        let wrong = "CREATE TABLE wiki (id int); DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM users), 'it is wrong'; END $$";
        let (wrong, checksum) = with_file(wrong);
        let mut inside = postgres.connect(&lacks_it.placement.database).await.unwrap();
        let user = "INSERT INTO users (email) VALUES ('ada@acme.example')";
        sqlx::query(user).execute(&mut inside).await.unwrap();
        server.migrate(&has_it.placement, &wrong).await.unwrap().into_result().unwrap();
        let error =
            server.migrate(&lacks_it.placement, &wrong).await.unwrap().into_result().unwrap_err().to_string();
        assert!(error.contains("it is wrong"), "{error}");

        // A change that names nothing is refused where the file was applied; the message has what it must name.
        let (changed, _) = with_file("CREATE TABLE wiki (id int)");
        let error =
            server.migrate(&has_it.placement, &changed).await.unwrap().into_result().unwrap_err().to_string();
        assert!(error.contains(&format!("-- tenantry: replaces {checksum}")), "{error}");

        let (corrected, _) = with_file(&format!("-- replaces: {checksum}\nCREATE TABLE wiki (id int)"));
        for tenant in [&has_it, &lacks_it] {
            let versions =
                server.migrate(&tenant.placement, &corrected).await.unwrap().into_result().unwrap();
            assert!(versions.contains(&ModuleVersion { name: "wiki".into(), version: 1 }), "{versions:?}");
        }
        // Each database keeps the checksum of what was applied to it.
        let has = "SELECT checksum FROM tenantry.migrations WHERE module = 'wiki'";
        let mut session = postgres.connect(&has_it.placement.database).await.unwrap();
        let recorded: Vec<u8> = sqlx::query_scalar(has).fetch_one(&mut session).await.unwrap();
        assert_eq!(hexadecimal(&recorded), checksum);
    }
}
