//! Changes of slugs: a former slug stays reserved for its tenant, whatever happens at the same time.

use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{Executor, PgConnection, postgres::PgListener};
use tenantry::{
    domain::{observed::RegistryStatus, record::TenantRecord, slug::Slug},
    registry::{Registration, Registry, SlugChange, SlugChanged},
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, close, created, in_use, refused, tenant, until},
};

/// Changes the slug of a tenant, as it is in the registry now.
async fn rename(registry: &Registry, row: &TenantRecord, to: &str) -> SlugChanged {
    let from = registry.by_id(row.id).await.unwrap().unwrap().slug;
    let to = Slug::parse(to).unwrap();
    let change =
        SlugChange { from: &from, to: &to, actor: "ada", reason: Some("new brand"), correlation: None };
    registry.change_slug(row.id, &change).await.unwrap()
}

fn changed(outcome: SlugChanged) -> TenantRecord {
    match outcome {
        SlugChanged::Changed(row) => *row,
        other => panic!("not changed: {other:?}"),
    }
}

fn is_taken_by(outcome: &SlugChanged, owner: &TenantRecord) -> bool {
    matches!(outcome, SlugChanged::Taken(row) if row.id == owner.id)
}

async fn in_use_as(registry: &Registry, slug: &str) -> TenantRecord {
    let row = created(registry, &tenant(slug)).await;
    registry.record_database_exists(row.id, true).await.unwrap();
    registry.activate(row.id, &in_use(), &[], Uuid::new_v4()).await.unwrap().record
}

async fn deprovisioned(registry: &Registry, row: &TenantRecord) {
    let workflow = Uuid::new_v4();
    registry.begin_deprovisioning(row.id, &tombstone(false), Some(workflow)).await.unwrap();
    registry.record_database_exists(row.id, false).await.unwrap();
    close(registry, row.id, workflow).await.unwrap();
}

/// The slugs that are reserved for a tenant, by name.
async fn reserved(session: &mut PgConnection, row: &TenantRecord) -> Vec<String> {
    sqlx::query_scalar("SELECT slug FROM slug_history WHERE tenant_id = $1 AND reserved ORDER BY slug")
        .bind(row.id.0)
        .fetch_all(session)
        .await
        .unwrap()
}

#[tokio::test]
async fn slug_without_a_history_has_an_owner() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (row, other) = (in_use_as(&registry, "acme").await, in_use_as(&registry, "initech").await);
        let mut session = system.session().await;
        for statement in [
            "DELETE FROM slug_history",
            "TRUNCATE slug_history",
            "UPDATE slug_history SET reserved = false",
            "INSERT INTO slug_history (tenant_id, slug) SELECT id, 'grabbed' FROM tenants",
        ] {
            assert_eq!(refused(&mut session, statement).await, "TN003", "{statement}");
        }
        let mut superuser = system.superuser().await;
        superuser.execute("ALTER TABLE slug_history DISABLE TRIGGER ALL").await.unwrap();
        let lost = sqlx::query("DELETE FROM slug_history WHERE tenant_id = $1").bind(other.id.0);
        lost.execute(&mut superuser).await.unwrap();
        superuser.execute("ALTER TABLE slug_history ENABLE TRIGGER ALL").await.unwrap();
        assert!(is_taken_by(&rename(&registry, &row, "initech").await, &other));
        changed(rename(&registry, &row, "acme-inc").await);
        superuser.execute("SET ROLE tenantry_registry_reader").await.unwrap();
        let led: Vec<(String, String)> = sqlx::query_as("SELECT former_slug, slug FROM former_slugs")
            .fetch_all(&mut superuser)
            .await
            .unwrap();
        assert_eq!(led, [("acme".to_owned(), "acme-inc".to_owned())]);
    }
}

#[tokio::test]
async fn only_the_slug_changes_and_the_change_is_on_record() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = in_use_as(&registry, "acme").await;
        let mut listener = PgListener::connect(&system.url()).await.unwrap();
        listener.listen("tenantry_tenants").await.unwrap();
        let renamed = changed(rename(&registry, &row, "initech").await);
        assert_eq!(renamed.slug, "initech");
        assert_eq!(
            (renamed.placement.clone(), renamed.status),
            (row.placement.clone(), RegistryStatus::Active)
        );
        assert_eq!(registry.by_id(row.id).await.unwrap(), Some(renamed.clone()));
        // The application learns of it.
        assert_eq!(listener.recv().await.unwrap().payload(), row.id.to_string());
        let mut session = system.session().await;
        let shown: String = sqlx::query_scalar("SELECT slug FROM tenants_public WHERE id = $1")
            .bind(row.id.0)
            .fetch_one(&mut session)
            .await
            .unwrap();
        assert_eq!(shown, "initech");
        assert_eq!(reserved(&mut session, &row).await, ["acme", "initech"]);
        // Again, as a process does that was killed before it knew: nothing is written.
        assert_eq!(changed(rename(&registry, &row, "initech").await), renamed);
        let logged: Vec<(String, Option<String>, Value)> =
            sqlx::query_as("SELECT actor, reason, details FROM activity WHERE action = 'SlugChanged'")
                .fetch_all(&mut session)
                .await
                .unwrap();
        let details = json!({"from": "acme", "to": "initech"});
        assert_eq!(logged, [("ada".to_owned(), Some("new brand".to_owned()), details)]);
        // Both names find the tenant in the log.
        for slug in ["acme", "initech"] {
            assert_eq!(registry.tenants_with_slug(slug).await.unwrap(), [row.id.0]);
        }
    }
}

#[tokio::test]
async fn former_slug_is_reserved_until_the_tenant_is_deprovisioned() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (row, other) = (in_use_as(&registry, "acme").await, in_use_as(&registry, "hooli").await);
        changed(rename(&registry, &row, "initech").await);
        changed(rename(&registry, &row, "umbrella").await);
        let mut new = tenant("acme");
        new.resource_uid = "another".to_owned();
        for slug in ["acme", "initech", "umbrella"] {
            // Neither a new tenant, even of the same name, nor one that changes its slug gets any.
            new.slug = Slug::parse(slug).unwrap();
            let outcome = registry.register(&new).await.unwrap();
            let is_same = slug == "umbrella";
            match outcome {
                Registration::SlugTaken(owner) if !is_same => assert_eq!(owner.id, row.id),
                // The same Tenant, applied again.
                Registration::Existing(found) if is_same => assert_eq!(found.id, row.id),
                other => panic!("{slug}: {other:?}"),
            }
            assert!(is_taken_by(&rename(&registry, &other, slug).await, &row), "{slug}");
        }
        // No statement gets round it.
        let mut session = system.session().await;
        let sql = "UPDATE tenants SET slug = 'acme' WHERE slug = 'hooli'";
        assert_eq!(refused(&mut session, sql).await, "23505");
        deprovisioned(&registry, &row).await;
        assert!(reserved(&mut session, &row).await.is_empty());
        for slug in ["acme", "initech", "umbrella"] {
            assert_eq!(changed(rename(&registry, &other, slug).await).slug, slug);
        }
        // What is closed has the slug of its receipt.
        assert_eq!(rename(&registry, &row, "another").await, SlugChanged::Outdated);
        let sql = format!("UPDATE tenants SET slug = 'another' WHERE id = '{}'", row.id);
        assert_eq!(refused(&mut session, sql).await, "TN003");
    }
}

#[tokio::test]
async fn former_slug_can_be_taken_back_and_slugs_are_not_swapped() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (one, two) = (in_use_as(&registry, "acme").await, in_use_as(&registry, "hooli").await);
        for slug in ["initech", "acme", "initech", "acme"] {
            assert_eq!(changed(rename(&registry, &one, slug).await).slug, slug);
        }
        let mut session = system.session().await;
        assert_eq!(reserved(&mut session, &one).await, ["acme", "initech"]);
        let history: i64 = sqlx::query_scalar("SELECT count(*) FROM slug_history WHERE tenant_id = $1")
            .bind(one.id.0)
            .fetch_one(&mut session)
            .await
            .unwrap();
        assert_eq!(history, 5);
        for _ in 0..10 {
            let (first, second) =
                tokio::join!(rename(&registry, &one, "hooli"), rename(&registry, &two, "acme"));
            assert!(is_taken_by(&first, &two) && is_taken_by(&second, &one), "{first:?} {second:?}");
        }
    }
}

#[tokio::test]
async fn one_of_many_gets_a_slug_that_all_want_at_once() {
    for system in System::both().await {
        let registries = [system.registry("one").await, system.registry("two").await];
        for round in 0..5 {
            let wanted = format!("wanted-{round}");
            let mut rows = Vec::new();
            for n in 0..8 {
                rows.push(in_use_as(&registries[0], &format!("old-{round}-{n}")).await);
            }
            // Half of them change their slug, half are new.
            let renames = rows.iter().enumerate().map(|(n, row)| rename(&registries[n % 2], row, &wanted));
            let mut new = tenant(&wanted);
            let news: Vec<_> = (0..8)
                .map(|n| {
                    (new.resource_name, new.resource_uid) = (format!("new-{n}"), format!("new-{round}-{n}"));
                    new.clone()
                })
                .collect();
            let registrations = news.iter().enumerate().map(|(n, new)| registries[n % 2].register(new));
            let (renamed, registered) = tokio::join!(join_all(renames), join_all(registrations));
            let won = renamed.iter().filter(|outcome| matches!(outcome, SlugChanged::Changed(_))).count();
            let lost = renamed.iter().filter(|outcome| matches!(outcome, SlugChanged::Taken(_))).count();
            let made: Vec<_> = registered.into_iter().map(Result::unwrap).collect();
            let created = made.iter().filter(|made| matches!(made, Registration::Created { .. })).count();
            let taken = made.iter().filter(|made| matches!(made, Registration::SlugTaken(_))).count();
            assert_eq!((won + created, lost + taken), (1, 15), "{renamed:?} {made:?}");
        }
    }
}

#[tokio::test]
async fn change_of_a_row_that_is_not_as_it_was_read_changes_nothing() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = in_use_as(&registry, "acme").await;
        let to = Slug::parse("initech").unwrap();
        let change = SlugChange { from: "former", to: &to, actor: "ada", reason: None, correlation: None };
        assert_eq!(registry.change_slug(row.id, &change).await.unwrap(), SlugChanged::Outdated);
        assert_eq!(registry.by_id(row.id).await.unwrap().unwrap().slug, "acme");
    }
}

#[tokio::test]
async fn transaction_that_does_not_end_leaves_both_slugs_as_they_were() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = in_use_as(&registry, "acme").await;
        let mut killed = system.session().await;
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut killed).await.unwrap();
        killed.execute("BEGIN").await.unwrap();
        killed.execute("UPDATE tenants SET slug = 'initech'").await.unwrap();
        let mut admin = system.superuser().await;
        sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut admin).await.unwrap();
        let kept = until("the transaction is gone", async || {
            let found = registry.by_id(row.id).await.unwrap().unwrap();
            (reserved(&mut admin, &row).await == ["acme"]).then_some(found)
        })
        .await;
        assert_eq!(kept.slug, "acme");
        assert_eq!(created(&registry, &tenant("initech")).await.slug, "initech");
    }
}

#[tokio::test]
async fn slugs_of_earlier_releases_stay_with_their_tenants() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (open, closed) = (in_use_as(&registry, "acme").await, in_use_as(&registry, "hooli").await);
        deprovisioned(&registry, &closed).await;
        // As a release before this one left them, with a slug that was changed by hand and is another tenant's since.
        let mut session = system.session().await;
        session
            .execute(
                "DROP VIEW former_slugs; DROP TRIGGER slug_history_follows ON slug_history;
                 DROP TRIGGER slug_history_kept ON slug_history; DROP FUNCTION slug_history_guard();
                 DROP TRIGGER support_accesses_kept ON support_accesses; DROP FUNCTION activity_kept_for();
                 DROP INDEX slug_history_reserved; ALTER TABLE slug_history DROP COLUMN reserved;
                 DROP TRIGGER tenants_slug_guard ON tenants; DROP FUNCTION tenants_slug_guard();
                 INSERT INTO slug_history (tenant_id, slug, since, until)
                 SELECT id, 'stolen', now() - interval '2 days', now() - interval '1 day' FROM tenants
                 WHERE slug = 'acme';
                 INSERT INTO slug_history (tenant_id, slug, since, until)
                 SELECT id, 'stolen', now() - interval '4 days', now() - interval '3 days' FROM tenants
                 WHERE slug = 'acme';
                 DELETE FROM schema_migrations WHERE version IN (25, 28)",
            )
            .await
            .unwrap();
        registry.migrate().await.unwrap();
        assert_eq!(reserved(&mut session, &open).await, ["acme"]);
        assert!(reserved(&mut session, &closed).await.is_empty());
        assert_eq!(created(&registry, &tenant("stolen")).await.slug, "stolen");
    }
}
