//! The accepted content of modules.

use jiff::Timestamp;
use tenantry::{
    api::tenant_module::RehearsalStatus,
    domain::{
        accepted_module::{AcceptedFile, AcceptedModule},
        record::ModuleVersion,
        recorded_purge::RecordedPurge,
    },
    registry::DroppedModule,
};

use crate::system::{System, created, tenant};

fn file(version: i32, checksum: u8) -> AcceptedFile {
    AcceptedFile { version, file: format!("000{version}_a.sql"), checksum: vec![checksum] }
}

#[tokio::test]
async fn accepted_content_is_kept_while_a_tenant_has_it() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let mut module = AcceptedModule {
            name: "wiki".into(),
            schema: "public".into(),
            version: 2,
            digest: "one".into(),
            files: vec![file(1, 1), file(2, 2)],
            rehearsal: Some(RehearsalStatus { statements: 7, ..RehearsalStatus::default() }),
        };
        registry.accept_module(&module).await.unwrap();
        assert_eq!(registry.accepted_modules().await.unwrap()["wiki"], module);
        // A corrected file and a new one; a rehearsal that is not repeated stays.
        module.files = vec![file(1, 1), file(2, 9), file(3, 3)];
        (module.version, module.digest) = (3, "two".into());
        registry.accept_module(&AcceptedModule { rehearsal: None, ..module.clone() }).await.unwrap();
        assert_eq!(registry.accepted_modules().await.unwrap()["wiki"], module);

        let id = created(&registry, &tenant("acme")).await.id;
        let versions = [ModuleVersion { name: "wiki".into(), version: 1 }];
        registry.set_modules(id, &versions).await.unwrap();
        assert!(!registry.forget_module("wiki").await.unwrap());
        assert!(registry.accepted_modules().await.unwrap().contains_key("wiki"));
        registry.set_modules(id, &[]).await.unwrap();
        assert!(registry.forget_module("wiki").await.unwrap());
        assert!(registry.accepted_modules().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn purged_module_has_one_answer_and_no_version() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        let of = |name: &str| ModuleVersion { name: name.into(), version: 1 };
        registry.set_modules(id, &[of("core"), of("wiki")]).await.unwrap();
        let begun = RecordedPurge::Begun { schema: Some("wiki".into()) };
        let row = registry.begin_module_purge(id, "wiki", &begun).await.unwrap().record;
        assert_eq!((row.module_versions, &row.module_purges["wiki"]), (vec![of("core")], &begun));

        let versions = [of("core"), of("wiki")];
        let row = registry.refuse_module_purge(id, "wiki", "no", &versions, id.0).await.unwrap().record;
        assert_eq!(row.module_versions, versions);
        assert_eq!(row.module_purges["wiki"], RecordedPurge::Refused { why: "no".into() });

        registry
            .record_usage(
                &[(id, [("pages".to_owned(), 3), ("users".to_owned(), 1)].into())],
                Timestamp::UNIX_EPOCH,
            )
            .await
            .unwrap();
        registry.begin_module_purge(id, "wiki", &begun).await.unwrap();
        let (objects, limits) = (["table public.pages".to_owned()], ["pages".to_owned()]);
        let dropped = DroppedModule { version: Some(1), objects: &objects, limits: &limits, actor: "ada" };
        let row = registry.end_module_purge(id, "wiki", &dropped, id.0).await.unwrap().record;
        assert_eq!(row.module_purges["wiki"], RecordedPurge::Purged);
        let logged: (String, serde_json::Value) =
            sqlx::query_as("SELECT action, details FROM activity WHERE tenant_id = $1 AND action LIKE 'ModulePurge%' ORDER BY id DESC LIMIT 1")
                .bind(id.0)
                .fetch_one(&mut system.superuser().await)
                .await
                .unwrap();
        assert_eq!(logged.0, "ModulePurged");
        assert_eq!(logged.1["objects"][0], "table public.pages");

        let row = registry.keep_module_purges(id, &["wiki".to_owned()]).await.unwrap();
        assert!(!row.changed && !row.record.usage.contains_key("pages"), "{:?}", row.record.usage);
        let row = registry.keep_module_purges(id, &[]).await.unwrap().record;
        assert!(row.module_purges.is_empty());
    }
}

#[tokio::test]
async fn schema_of_a_built_in_module_is_in_use_while_a_tenant_may_have_it() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let in_use = async || registry.schema_in_use("core").await.unwrap();
        let accept = async |schema: &str| {
            let core = AcceptedModule {
                name: "core".into(),
                schema: schema.into(),
                version: 4,
                ..Default::default()
            };
            registry.accept_module(&core).await.unwrap();
            assert_eq!(registry.accepted_modules().await.unwrap()["core"].schema, schema);
        };
        assert_eq!(in_use().await, None);
        let id = created(&registry, &tenant("acme")).await.id;
        assert_eq!(in_use().await, None);
        // While its database is being made, it is not known what will be in it.
        registry.record_database_exists(id, true).await.unwrap();
        assert_eq!(in_use().await.as_deref(), Some("public"), "without a record");
        let of = |name: &str| ModuleVersion { name: name.into(), version: 4 };
        registry.set_modules(id, &[of("tenantry")]).await.unwrap();
        assert_eq!(in_use().await, None);
        // No tenant has it: another schema takes the place of the first.
        accept("one").await;
        accept("two").await;
        registry.set_modules(id, &[of("tenantry"), of("core")]).await.unwrap();
        assert_eq!(in_use().await.as_deref(), Some("two"));
        assert_eq!(registry.schema_in_use("identity").await.unwrap(), None);
        // A purge takes the version off the record first.
        let begun = RecordedPurge::Begun { schema: Some("two".into()) };
        registry.begin_module_purge(id, "core", &begun).await.unwrap();
        assert_eq!(in_use().await.as_deref(), Some("two"));
        let dropped = DroppedModule { version: Some(4), objects: &[], limits: &[], actor: "ada" };
        registry.end_module_purge(id, "core", &dropped, id.0).await.unwrap();
        assert_eq!(in_use().await, None);
    }
}
