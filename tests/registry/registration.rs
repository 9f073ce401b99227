//! Registration of slugs and database names.

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use sqlx::{AssertSqlSafe, Executor};
use tenantry::{
    api::{reason::Reason, tenant::OffboardingTrigger},
    domain::{
        observed::RegistryStatus,
        offboarding::PurgeTerms,
        record::{ModuleVersion, TenantRecord},
    },
    registry::{Declared, Registration, Registry, Tombstone},
};
use uuid::Uuid;

use crate::system::{System, close, created, in_use, passed, tenant};

pub fn tombstone(retain: bool) -> Tombstone {
    let now = Timestamp::now();
    Tombstone {
        reason: Some("has left".to_owned()),
        trigger: OffboardingTrigger::CustomerRequest,
        at: now,
        terms: PurgeTerms { purge_after: now, retain, held: false },
        actor: "ada".to_owned(),
        deletion: None,
        generation: Some(1),
    }
}

/// Activates and deprovisions a tenant.
async fn activate_and_close(registry: &Registry, row: &TenantRecord, retain: bool) {
    let workflow = Uuid::new_v4();
    registry.record_database_exists(row.id, true).await.unwrap();
    registry.activate(row.id, &in_use(), &[], workflow).await.unwrap();
    registry.begin_deprovisioning(row.id, &tombstone(retain), Some(workflow)).await.unwrap();
    registry.record_database_exists(row.id, retain).await.unwrap();
    close(registry, row.id, workflow).await.unwrap();
}

#[tokio::test]
async fn one_of_twenty_concurrent_registrations_gets_the_slug() {
    for system in System::both().await {
        let registries = [system.registry("one").await, system.registry("two").await];
        let wanted: Vec<_> = (0..20)
            .map(|n| {
                let mut new = tenant("acme");
                new.resource_name = format!("acme-{n}");
                new.resource_uid = format!("uid-{n}");
                new
            })
            .collect();
        let outcomes =
            join_all(wanted.iter().enumerate().map(|(n, new)| registries[n % 2].register(new))).await;
        let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
        let winners: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Registration::Created { row, .. } => Some(row),
                _ => None,
            })
            .collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        let losers = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Registration::SlugTaken(row) if row.id == winners[0].id))
            .count();
        assert_eq!(losers, 19, "{outcomes:?}");
        assert_eq!(registries[0].all_registered().await.unwrap(), [winners[0].clone()]);
    }
}

#[tokio::test]
async fn repeated_registration_returns_the_same_row() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let new = tenant("acme-corp");
        let outcomes = join_all((0..10).map(|_| registry.register(&new))).await;
        let rows: Vec<_> = outcomes
            .into_iter()
            .map(|outcome| match outcome.unwrap() {
                Registration::Created { row, .. } => row,
                Registration::Existing(row) => row,
                taken @ Registration::SlugTaken(_) => panic!("{taken:?}"),
            })
            .collect();
        assert!(rows.iter().all(|row| *row == rows[0]), "{rows:?}");
        let row = &rows[0];
        assert_eq!(row.placement.database, "tenant_acme_corp");
        assert_eq!(row.placement.login, "tenant_acme_corp_app");
        assert_eq!((row.slug.as_str(), row.name.as_str()), ("acme-corp", "The company acme-corp"));
        assert_eq!(
            (row.status, row.access, row.database_exists),
            (RegistryStatus::Provisioning, None, false)
        );
        assert_eq!((row.settings.clone(), row.status_updated_by.as_str()), (new.settings.clone(), "ada"));
        let found = registry.by_resource("customers", "acme-corp", "uid-of-acme-corp").await.unwrap();
        assert_eq!(found.as_ref(), Some(row));
        assert_eq!(registry.by_id(row.id).await.unwrap(), found);
        assert_eq!(registry.by_resource("customers", "acme-corp", "another-uid").await.unwrap(), None);
    }
}

#[tokio::test]
async fn retained_database_keeps_its_name() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let mut names = Vec::new();
        for (n, retain) in [true, true, false, false].into_iter().enumerate() {
            let mut new = tenant("acme");
            new.resource_uid = format!("uid-{n}");
            let row = created(&registry, &new).await;
            names.push((row.placement.database.clone(), row.placement.login.clone()));
            activate_and_close(&registry, &row, retain).await;
        }
        let expected = ["tenant_acme", "tenant_acme_2", "tenant_acme_3", "tenant_acme_3"]
            .map(|name| (name.to_owned(), format!("{name}_app")));
        assert_eq!(names, expected);
        // acme's second database has the name that the slug acme-2 would get.
        let row = created(&registry, &tenant("acme-2")).await;
        assert_eq!(row.placement.database, "tenant_acme_2_2");
        // On another server the name is free.
        let mut elsewhere = tenant("acme");
        elsewhere.server = "second".to_owned();
        assert_eq!(created(&registry, &elsewhere).await.placement.database, "tenant_acme");
        assert_eq!(registry.count_by_server("default").await.unwrap(), 3);
        assert_eq!(registry.count_by_server("second").await.unwrap(), 1);
        assert_eq!(registry.count_by_server("third").await.unwrap(), 0);
        // Those that exist.
        let databases = registry.some_databases_on("default").await.unwrap();
        assert!(databases.iter().all(|name| name.starts_with("tenant_acme")), "{databases:?}");
        assert!(registry.some_databases_on("third").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn concurrent_slugs_get_different_database_names() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let retained = created(&registry, &tenant("acme")).await;
        activate_and_close(&registry, &retained, true).await;
        // Both would get tenant_acme_2.
        let mut again = tenant("acme");
        again.resource_uid = "uid-again".to_owned();
        let other = tenant("acme-2");
        let (again, other) = tokio::join!(created(&registry, &again), created(&registry, &other));
        assert_ne!(again.placement.database, other.placement.database);
    }
}

#[tokio::test]
async fn recreated_object_gets_its_former_row() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        registry.activate(row.id, &in_use(), &[], Uuid::new_v4()).await.unwrap();

        let mut recreated = tenant("acme");
        recreated.resource_uid = "uid-recreated".to_owned();
        let Registration::Existing(found) = registry.register(&recreated).await.unwrap() else {
            panic!("not found");
        };
        assert_eq!((found.id, found.resource_uid.as_str()), (row.id, "uid-recreated"));
        assert_eq!(registry.by_resource("customers", "acme", "uid-of-acme").await.unwrap(), None);

        let mut other_namespace = recreated.clone();
        other_namespace.resource_namespace = "others".to_owned();
        other_namespace.resource_uid = "uid-other".to_owned();
        let taken = registry.register(&other_namespace).await.unwrap();
        assert!(matches!(taken, Registration::SlugTaken(_)), "{taken:?}");

        // A tombstone is bound to the recreated object, until its purge has begun.
        registry.begin_deprovisioning(row.id, &tombstone(false), Some(Uuid::new_v4())).await.unwrap();
        recreated.resource_uid = "uid-late".to_owned();
        let found = registry.register(&recreated).await.unwrap();
        assert!(matches!(&found, Registration::Existing(r) if r.id == row.id), "{found:?}");
        let begun =
            registry.begin_purge(row.id, "uid-late", SignedDuration::ZERO, Uuid::new_v4()).await.unwrap();
        assert!(passed(&begun));
        recreated.resource_uid = "uid-too-late".to_owned();
        let taken = registry.register(&recreated).await.unwrap();
        let status = RegistryStatus::Deprovisioning;
        assert!(matches!(&taken, Registration::SlugTaken(row) if row.status == status), "{taken:?}");
    }
}

#[tokio::test]
async fn closed_row_is_never_reopened() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        activate_and_close(&registry, &row, false).await;
        assert_eq!(registry.all_registered().await.unwrap(), []);
        let found = registry.by_resource("customers", "acme", "uid-of-acme").await.unwrap().unwrap();
        assert_eq!((found.id, found.status), (row.id, RegistryStatus::Deprovisioned));
        // The same object does not get a second tenant.
        let Registration::Existing(found) = registry.register(&tenant("acme")).await.unwrap() else {
            panic!("registered again");
        };
        assert_eq!((found.id, found.status), (row.id, RegistryStatus::Deprovisioned));
        // A new object is a new tenant.
        let mut new = tenant("acme");
        new.resource_uid = "uid-new".to_owned();
        assert_ne!(created(&registry, &new).await.id, row.id);
    }
}

#[tokio::test]
async fn only_changes_are_written_and_notified() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let mut listener = sqlx::postgres::PgListener::connect(&system.url()).await.unwrap();
        listener.listen("tenantry_tenants").await.unwrap();
        let row = created(&registry, &tenant("acme")).await;
        let id = row.id;
        let notification = listener.recv().await.unwrap();
        assert_eq!(notification.payload(), id.to_string());

        let settings = [("theme".to_owned(), serde_json::json!("light"))].into();
        let modules = [ModuleVersion { name: "core".into(), version: 2 }];
        let verifier = "SCRAM-SHA-256$4096:salt$stored:server";
        for expected in [true, false] {
            let level = tenantry::domain::access::AccessLevel::ReadWrite;
            let declared = Declared {
                name: "Acme",
                settings: &settings,
                retain: true,
                gates: &[],
                gates_done_at: None,
                gates_changed_by: "ada",
            };
            assert_eq!(registry.update_declared(id, &declared).await.unwrap().changed, expected);
            assert_eq!(registry.set_access(id, Some(level)).await.unwrap().changed, expected);
            assert_eq!(
                registry.set_credential(id, Some(verifier), Some(b"digest")).await.unwrap().changed,
                expected
            );
            assert_eq!(registry.set_modules(id, &modules).await.unwrap().changed, expected);
            assert_eq!(registry.record_database_exists(id, true).await.unwrap().changed, expected);
        }
        let changed = registry.by_id(id).await.unwrap().unwrap();
        assert_eq!((changed.name.as_str(), changed.retain), ("Acme", true));
        assert_eq!((changed.settings, changed.module_versions.as_slice()), (settings, modules.as_slice()));
        assert_eq!(changed.access.unwrap().as_str(), "ReadWrite");
        assert_eq!(changed.password_verifier.unwrap().as_str(), verifier);
        assert_eq!(changed.password_digest.unwrap().as_slice(), b"digest");
        assert!(changed.database_exists);

        // One notification per change: the next one after these five is another tenant's.
        let second = created(&registry, &tenant("second")).await;
        for _ in 0..5 {
            assert_eq!(listener.recv().await.unwrap().payload(), id.to_string());
        }
        assert_eq!(listener.recv().await.unwrap().payload(), second.id.to_string());
    }
}

#[tokio::test]
async fn counts_include_every_status() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        for slug in ["one", "two", "three"] {
            created(&registry, &tenant(slug)).await;
        }
        let gone = created(&registry, &tenant("gone")).await;
        activate_and_close(&registry, &gone, false).await;
        let counts = registry.count_by_status().await.unwrap();
        assert_eq!(counts.len(), RegistryStatus::ALL.len());
        assert_eq!((counts["provisioning"], counts["deprovisioned"], counts["active"]), (3, 1, 0));
    }
}

#[tokio::test]
async fn unknown_value_in_a_row_is_named() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let mut session = system.session().await;
        for (column, value) in [("offboarding_trigger", "Whim"), ("module_versions", "[7]")] {
            let statement = format!("UPDATE tenants SET {column} = '{value}'");
            session.execute(AssertSqlSafe(statement)).await.unwrap();
            let error = registry.by_id(row.id).await.unwrap_err();
            assert_eq!((error.reason(), error.is_permanent()), (Reason::RegistryTooNew, true), "{error}");
            assert!(error.to_string().contains(column) && error.to_string().contains(value), "{error}");
            let statement = format!("UPDATE tenants SET {column} = DEFAULT");
            session.execute(AssertSqlSafe(statement)).await.unwrap();
        }
    }
}
