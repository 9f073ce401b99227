//! The chain over an upgrade, while an earlier release writes, and when rows are archived and the archive is emptied.

use std::borrow::Cow;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Executor, PgConnection, migrate::Migrator};
use tenantry::{
    domain::{identity::TenantId, retention::Retention},
    registry::Registry,
};
use uuid::Uuid;

use crate::{
    activity_chain::{heads, note, verified},
    system::{System, created, refused, tenant},
};

/// The last migration before the chain.
const BEFORE: i64 = 21;

/// The statement of that release, which moves old rows to the archive.
const OLD_MOVE: &str = "WITH outdated_activity AS (SELECT id FROM activity ORDER BY id LIMIT $1),
     copied AS (
         INSERT INTO activity_archive (id, tenant_id, at, action, actor, reason, details, correlation_id)
         SELECT id, tenant_id, at, action, actor, reason, details, correlation_id
         FROM activity JOIN outdated_activity USING (id)
         ON CONFLICT DO NOTHING),
     activity_gone AS (
         DELETE FROM activity a USING outdated_activity o WHERE a.id = o.id RETURNING 1)
     SELECT count(*) FROM activity_gone";

/// Migrates as the release before the chain does.
async fn migrated_before(system: &System<'_>) {
    let mut session = system.session().await;
    for (ledger, is_first) in [("_sqlx_migrations", true), ("schema_migrations", false)] {
        let known = sqlx::migrate!("migrations/system");
        let known = known.iter().filter(|one| one.version <= BEFORE && (one.version <= 8) == is_first);
        let mut migrator = Migrator::with_migrations(known.cloned().collect());
        migrator.table_name = Cow::Borrowed(ledger);
        migrator.set_ignore_missing(true);
        migrator.run_direct(None, &mut session, false).await.unwrap();
    }
}

async fn old_tenant(session: &mut PgConnection, slug: &str) -> Uuid {
    let id = Uuid::new_v4();
    sqlx::query(
        "INSERT INTO tenants (id, slug, name, plan, server, database_name, login_name, resource_namespace, resource_name,
             resource_uid) VALUES ($1, $2, $2, 'starter', 'default', $2, $2 || '_app', 'customers', $2, $2)",
    )
    .bind(id)
    .bind(slug)
    .execute(session)
    .await
    .unwrap();
    id
}

/// Rows as an earlier release writes them.
async fn old_rows(session: &mut PgConnection, tenant: Option<Uuid>, rows: i32) {
    sqlx::query(
        "INSERT INTO activity (tenant_id, action, actor, reason, details)
         SELECT $1, 'Noted', 'x', 'n ' || n, jsonb_build_object('n', n) FROM generate_series(1, $2) AS n",
    )
    .bind(tenant)
    .bind(rows)
    .execute(session)
    .await
    .unwrap();
}

#[tokio::test]
async fn rows_of_an_earlier_release_are_linked_while_it_writes() {
    for system in System::both_empty().await {
        migrated_before(&system).await;
        let mut session = system.session().await;
        let (one, two) = (old_tenant(&mut session, "one").await, old_tenant(&mut session, "two").await);
        for tenant in [Some(one), Some(two), None] {
            old_rows(&mut session, tenant, if tenant == Some(one) { 1500 } else { 20 }).await;
        }
        let moved: i64 = sqlx::query_scalar(OLD_MOVE).bind(30_i64).fetch_one(&mut session).await.unwrap();
        assert_eq!(moved, 30);

        let registry = system.registry("new").await;
        assert!(!registry.has_activity_chains().await.unwrap());
        registry.migrate().await.unwrap();
        // The earlier release still writes, and archives; a new tenant has a chain from its first row on.
        old_rows(&mut session, Some(one), 5).await;
        old_rows(&mut session, None, 5).await;
        let _: i64 = sqlx::query_scalar(OLD_MOVE).bind(10_i64).fetch_one(&mut session).await.unwrap();
        let new = created(&registry, &tenant("new")).await.id;
        let (found, _) = verified(&registry, vec![]).await;
        assert!(found.len() == 3 && found.iter().all(|line| line.contains("not linked yet")), "{found:?}");
        assert_eq!(refused(&mut session, "DELETE FROM activity_archive").await, "TN003");
        let early = format!("UPDATE activity_heads SET pending = false WHERE chain = '{one}'");
        assert_eq!(refused(&mut session, early).await, "TN003", "not before all rows are linked");

        // While rows are linked, all write.
        let mut statements = 0;
        while registry.link_activity().await.unwrap() {
            statements += 1;
            old_rows(&mut session, Some(one), 2).await;
            old_rows(&mut session, Some(two), 2).await;
            note(&registry, Some(new), 1).await;
            let _: i64 = sqlx::query_scalar(OLD_MOVE).bind(10_i64).fetch_one(&mut session).await.unwrap();
            assert!(statements < 20, "it ends");
        }
        assert!(statements >= 4, "in parts: {statements}");
        let (found, summary) = verified(&registry, vec![]).await;
        let written = 1500 + 20 + 20 + 5 + 5 + 2 + statements * (2 + 2 + 1);
        assert_eq!((found, summary.rows, summary.chains), (vec![], written, 4));
        // Nothing was passed over, and the chain has the order of time.
        let out_of_order: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (
                 SELECT id, lag(id) OVER (PARTITION BY tenant_id ORDER BY position) AS before
                 FROM (SELECT id, tenant_id, position FROM activity
                       UNION ALL SELECT id, tenant_id, position FROM activity_archive) AS a) AS b
             WHERE before > id",
        )
        .fetch_one(&mut session)
        .await
        .unwrap();
        assert_eq!(out_of_order, 0);
        assert!(!registry.link_activity().await.unwrap());
    }
}

/// Moves what is outdated to the archive.
async fn archive(registry: &Registry, kept: i32) {
    let keep = Retention { activity_per_tenant: Some(kept), ..Retention::default() };
    let tenants = registry.tenants_after(None).await.unwrap();
    registry.remove_outdated(&tenants, &keep, Timestamp::now()).await.unwrap();
}

async fn archived(session: &mut PgConnection, tenant: TenantId) -> i64 {
    let count = "SELECT count(*) FROM activity_archive WHERE tenant_id = $1";
    sqlx::query_scalar(count).bind(tenant.0).fetch_one(session).await.unwrap()
}

#[tokio::test]
async fn archive_is_emptied_from_its_beginning_and_the_chain_stays_verifiable() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let mut session = system.session().await;
        let id = created(&registry, &tenant("acme")).await.id;
        let other = created(&registry, &tenant("other")).await.id;
        note(&registry, Some(id), 8).await;
        note(&registry, Some(other), 8).await;
        let before = heads(&registry).await;
        archive(&registry, 4).await;
        assert_eq!(archived(&mut session, id).await, 6);
        let (found, summary) = verified(&registry, before.clone()).await;
        assert_eq!((found, summary.rows, summary.stored), (vec![], 20, 2));

        let of = |condition: &str| {
            format!("DELETE FROM activity_archive WHERE tenant_id = '{id}' AND {condition}")
        };
        // Rows stay for 30 days. As if these were older:
        assert_eq!(refused(&mut session, of("position <= 3")).await, "TN003");
        let old = "CREATE OR REPLACE FUNCTION activity_kept_for() RETURNS interval LANGUAGE sql RETURN interval '0'";
        system.superuser().await.execute(old).await.unwrap();
        for middle in ["position = 3", "position > 1", "position IN (1, 3)"] {
            assert_eq!(refused(&mut session, of(middle)).await, "TN003", "{middle}");
        }
        for beginning in ["position <= 3", "position = 4", "position > 100"] {
            session.execute(AssertSqlSafe(of(beginning))).await.unwrap();
            assert_eq!(verified(&registry, before.clone()).await.0, [""; 0], "{beginning}");
        }
        assert_eq!(archived(&mut session, id).await, 2);
        // All that is archived, of all tenants, as docs/retention.md says.
        let outdated = "DELETE FROM activity_archive a WHERE at < now()
            AND (coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'), position)
                NOT IN (SELECT chain, position FROM activity_heads)";
        session.execute(outdated).await.unwrap();
        assert_eq!(verified(&registry, before.clone()).await.0, [""; 0]);
        // All rows of a tenant but the last, while it exists.
        note(&registry, Some(id), 1).await;
        archive(&registry, 0).await;
        assert_eq!(refused(&mut session, of("true")).await, "TN003");
        session.execute(AssertSqlSafe(of("position < 11"))).await.unwrap();
        let (found, summary) = verified(&registry, heads(&registry).await).await;
        assert_eq!((found, summary.stored), (vec![], 2));
        // An owner of the tables can remove it; that is found.
        let mut owner = system.superuser().await;
        owner.execute("ALTER TABLE activity_archive DISABLE TRIGGER activity_archive_emptied").await.unwrap();
        owner.execute("DELETE FROM activity_archive").await.unwrap();
        assert!(!verified(&registry, heads(&registry).await).await.0.is_empty());
        owner.execute("ALTER TABLE activity_heads DISABLE TRIGGER ALL").await.unwrap();
        let hidden = "UPDATE activity_heads SET removed_position = position, removed_hash = hash";
        owner.execute(hidden).await.unwrap();
        let (found, _) = verified(&registry, heads(&registry).await).await;
        assert!(found.iter().all(|line| line.contains("never removed")) && found.len() == 2, "{found:?}");
        owner.execute("ALTER TABLE activity_heads ENABLE TRIGGER ALL").await.unwrap();
        owner.execute("ALTER TABLE activity_archive ENABLE TRIGGER ALL").await.unwrap();
        // Once it is deprovisioned, its history may end too.
        owner
            .execute("ALTER TABLE tenants DISABLE TRIGGER ALL; UPDATE tenants SET status = 'deprovisioned'")
            .await
            .unwrap();
        let (found, summary) = verified(&registry, heads(&registry).await).await;
        assert_eq!((found, summary.rows, summary.stored), (vec![], 0, 2));
        let (found, _) = verified(&registry, before).await;
        assert!(
            found.iter().any(|line| line.contains("the archive was emptied up to position 11")),
            "{found:?}"
        );
        note(&registry, Some(id), 2).await;
        assert_eq!(verified(&registry, vec![]).await.0, [""; 0]);
    }
}

#[tokio::test]
async fn view_shows_activity_by_slug_and_the_reader_role_only_what_happened() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        created(&registry, &tenant("other")).await;
        note(&registry, Some(id), 3).await;
        note(&registry, None, 1).await;
        archive(&registry, 2).await;
        let mut session = system.session().await;
        let seen: Vec<(String, Option<String>, bool)> = sqlx::query_as(
            "SELECT action, reason, archived FROM tenant_activity WHERE slug = 'acme' AND actor = 'ada' ORDER BY id",
        )
        .fetch_all(&mut session)
        .await
        .unwrap();
        let seen: Vec<_> =
            seen.iter().map(|(action, why, old)| (action.as_str(), why.is_some(), *old)).collect();
        let expected = [
            ("Requested", false, true),
            ("Registered", false, true),
            ("Noted", true, true),
            ("Noted", false, false),
            ("Noted", true, false),
        ];
        assert_eq!(seen, expected);

        let mut reader = system.superuser().await;
        reader.execute("SET ROLE tenantry_registry_reader").await.unwrap();
        let shown: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT slug, tenant_id, id, at, action, correlation_id, archived FROM tenant_activity) s",
        )
        .fetch_one(&mut reader)
        .await
        .unwrap();
        assert_eq!(shown, 7);
        for hidden in ["actor", "reason", "details", "*"] {
            let statement = format!("SELECT {hidden} FROM tenant_activity");
            assert_eq!(refused(&mut reader, statement).await, "42501", "{hidden}");
        }
        let by_reason = "SELECT action FROM tenant_activity WHERE reason LIKE '%bezahlt%'";
        assert_eq!(refused(&mut reader, by_reason).await, "42501");
    }
}
