//! The accepted content of modules.

use tenantry::{
    api::tenant_module::RehearsalStatus,
    domain::{
        accepted_module::{AcceptedFile, AcceptedModule},
        record::ModuleVersion,
    },
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
