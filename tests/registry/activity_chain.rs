//! The activity log is append-only, and every kind of tampering with it is found.

use futures::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::{
    domain::{
        activity_chain::{ChainSummary, ChainVerifier, StoredHead},
        identity::TenantId,
    },
    registry::{Activity, Registry},
};
use uuid::Uuid;

use crate::system::{System, created, in_use, refused, tenant};

/// Adds rows, of a tenant or without one.
pub async fn note(registry: &Registry, tenant: Option<TenantId>, rows: usize) {
    for number in 0..rows {
        let entry = Activity {
            tenant,
            action: "Noted",
            actor: "ada",
            reason: (number % 2 == 0).then_some("nicht bezahlt, \"ärgerlich\"\n"),
            details: json!({"number": number, "price": 1.50, "nested": {"ü": [1, null, "x"]}}),
            correlation: (number % 3 == 0).then(Uuid::new_v4),
        };
        registry.activity(&entry).await.unwrap();
    }
}

/// What a check finds.
pub async fn verified(registry: &Registry, stored: Vec<StoredHead>) -> (Vec<String>, ChainSummary) {
    let mut snapshot = registry.audit_snapshot().await.unwrap();
    let unlinked = snapshot.unlinked().await.unwrap();
    let mut verifier = ChainVerifier::new(snapshot.heads().await.unwrap(), &unlinked, stored);
    let mut last = None;
    loop {
        let mut page = snapshot.linked_after(last.as_ref()).await.unwrap();
        page.iter().for_each(|row| verifier.check(row));
        match page.pop() {
            Some(row) => last = Some(row),
            None => break,
        }
    }
    let (findings, summary) = verifier.finish();
    (findings.iter().map(ToString::to_string).collect(), summary)
}

/// The heads, as `tenantry audit heads` prints them.
pub async fn heads(registry: &Registry) -> Vec<StoredHead> {
    registry.activity_heads().await.unwrap().iter().map(|head| head.stored()).collect()
}

/// A superuser's session in which no trigger fires.
pub async fn without_triggers(system: &System<'_>) -> PgConnection {
    let mut session = system.superuser().await;
    session.execute("SET session_replication_role = replica").await.unwrap();
    session
}

#[tokio::test]
async fn log_is_append_only_for_its_owner_and_for_superusers() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        note(&registry, Some(id), 3).await;
        let copy =
            "INSERT INTO activity_archive (id, tenant_id, at, action, actor, reason, details, correlation_id)
                    SELECT id, tenant_id, at, action, actor, reason, details, correlation_id FROM activity
                    WHERE position = 1";
        let mut session = system.session().await;
        session.execute(copy).await.unwrap();
        session.execute("DELETE FROM activity WHERE position = 1").await.unwrap();
        for mut session in [session, system.superuser().await] {
            for statement in [
                "UPDATE activity SET actor = 'another'",
                "UPDATE activity SET position = 100",
                "UPDATE activity SET hash = '\\x00'",
                "DELETE FROM activity",
                "TRUNCATE activity",
                "TRUNCATE activity, activity_archive, activity_heads",
                "UPDATE activity_archive SET reason = 'another'",
                "UPDATE activity_archive SET archived_at = now() + interval '1 day'",
                "TRUNCATE activity_archive",
                "INSERT INTO activity_archive (id, tenant_id, at, action, actor, details)
                 SELECT 1000, tenant_id, at, action, actor, details FROM activity",
                "INSERT INTO activity_archive (id, tenant_id, at, action, actor, details, correlation_id)
                 SELECT id, tenant_id, at, action, 'another', details, correlation_id FROM activity",
                "INSERT INTO activity_heads (chain) VALUES (gen_random_uuid())",
                "UPDATE activity_heads SET position = 1",
                "UPDATE activity_heads SET pending = true",
                "DELETE FROM activity_heads",
                "TRUNCATE activity_heads",
            ] {
                assert_eq!(refused(&mut session, statement).await, "TN003", "{statement}");
            }
        }
        // What an INSERT says about the chain is ignored.
        let mut session = system.session().await;
        session
            .execute(
                "INSERT INTO activity (action, actor, position, hash) VALUES ('Noted', 'x', 77, '\\x00')",
            )
            .await
            .unwrap();
        let (found, summary) = verified(&registry, vec![]).await;
        assert_eq!((found, summary.rows, summary.chains), (vec![], 6, 2));
    }
}

/// Two tenants with five notes each, and three rows without a tenant.
async fn prepared(system: &System<'_>) -> (Registry, TenantId, TenantId) {
    let registry = system.registry("one").await;
    let acme = created(&registry, &tenant("acme")).await.id;
    let other = created(&registry, &tenant("other")).await.id;
    for chain in [Some(acme), Some(other), None] {
        note(&registry, chain, if chain.is_some() { 5 } else { 3 }).await;
    }
    (registry, acme, other)
}

/// What was changed without the triggers, and a part of each line that must be found.
const TAMPERINGS: [(&str, &str, &[&str]); 15] = [
    (
        "actor",
        "UPDATE activity SET actor = 'bob' WHERE {acme} AND position = 4",
        &["(position 4) was changed"],
    ),
    (
        "time",
        "UPDATE activity SET at = at - interval '1 us' WHERE {acme} AND position = 4",
        &["(position 4) was changed"],
    ),
    (
        "endless time",
        "UPDATE activity SET at = 'infinity' WHERE {acme} AND position = 4",
        &["(position 4) was changed"],
    ),
    (
        "details",
        "UPDATE activity SET details = details || '{\"number\": 9}' WHERE {acme} AND position = 4",
        &["(position 4) was changed"],
    ),
    (
        "no reason",
        "UPDATE activity SET reason = NULL WHERE {acme} AND position = 5",
        &["(position 5) was changed"],
    ),
    (
        "correlation",
        "UPDATE activity SET correlation_id = gen_random_uuid() WHERE {acme} AND position = 4",
        &["(position 4) was changed"],
    ),
    ("middle", "DELETE FROM activity WHERE {acme} AND position = 4", &["position 4 is missing: removed"]),
    (
        "end",
        "DELETE FROM activity WHERE {acme} AND position > 5",
        &[
            "positions 6 to 7 are missing at the end of the chain: removed",
            "the stored head is at position 7",
        ],
    ),
    (
        "end, with its head",
        "DELETE FROM activity WHERE {acme} AND position > 5;
         UPDATE activity_heads h SET position = 5, hash = a.hash
         FROM activity a WHERE a.position = 5 AND {a.acme} AND h.chain = a.tenant_id",
        &["the stored head is at position 7, and the chain has no such row; it ends at position 5"],
    ),
    (
        "beginning",
        "DELETE FROM activity WHERE {acme} AND position < 3",
        &["positions 1 to 2 are missing: removed"],
    ),
    (
        "all rows",
        "DELETE FROM activity WHERE {acme}",
        &[
            "positions 1 to 7 are missing at the end of the chain: removed",
            "the stored head is at position 7, and the chain has no such row; it ends at position 0",
        ],
    ),
    (
        "all rows and the head",
        "DELETE FROM activity WHERE {acme}; DELETE FROM activity_heads WHERE chain = '{id}'",
        &["the stored head is at position 7, and the chain has no such row; it ends at position 0"],
    ),
    ("head", "DELETE FROM activity_heads WHERE chain = '{id}'", &["its head was removed"]),
    (
        "inserted row",
        "INSERT INTO activity (tenant_id, action, actor, position, previous_hash, hash)
         SELECT tenant_id, action, 'bob', 8, hash, sha256('x') FROM activity WHERE {acme} AND position = 7;
         INSERT INTO activity (tenant_id, action, actor) VALUES ('{id}', 'Noted', 'bob')",
        &[
            "rows without a position: 1",
            "(position 8) was changed",
            "(position 8) is after the end of the chain",
        ],
    ),
    (
        "moved to another tenant",
        "UPDATE activity SET tenant_id = '{other}', position = 8 WHERE {acme} AND position = 7",
        &[
            "the row at position 7 is missing at the end of the chain",
            "the stored head is at position 7",
            "(position 8) was changed",
            "(position 8) is after the end of the chain",
            "has not the hash that row",
        ],
    ),
];

#[tokio::test]
async fn each_kind_of_tampering_is_found() {
    for system in System::both().await {
        let (registry, acme, other) = prepared(&system).await;
        let stored = heads(&registry).await;
        let clean = (vec![], ChainSummary { rows: 17, chains: 3, stored: 3, removed: 0, differences: 0 });
        assert_eq!(verified(&registry, stored.clone()).await, clean);
        for (name, statement, expected) in TAMPERINGS {
            let statement = statement
                .replace("{acme}", &format!("tenant_id = '{acme}'"))
                .replace("{a.acme}", &format!("a.tenant_id = '{acme}'"))
                .replace("{id}", &acme.to_string())
                .replace("{other}", &other.to_string());
            // Its own transaction does not see it: it is committed, and undone from copies.
            let mut session = without_triggers(&system).await;
            let copy = "CREATE TABLE rows_before AS TABLE activity; CREATE TABLE heads_before AS TABLE activity_heads";
            sqlx::raw_sql(copy).execute(&mut session).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut session).await.unwrap();
            let (found, _) = verified(&registry, stored.clone()).await;
            assert_eq!(found.len(), expected.len(), "{name}: {found:#?}");
            for part in expected {
                assert!(found.iter().any(|line| line.contains(part)), "{name}: no {part:?} in {found:#?}");
            }
            let undo = "DELETE FROM activity; DELETE FROM activity_heads;
                        INSERT INTO activity OVERRIDING SYSTEM VALUE TABLE rows_before;
                        INSERT INTO activity_heads TABLE heads_before;
                        DROP TABLE rows_before, heads_before";
            sqlx::raw_sql(undo).execute(&mut session).await.unwrap();
            assert_eq!(verified(&registry, stored.clone()).await, clean, "after {name}");
        }
    }
}

#[tokio::test]
async fn log_goes_on_whatever_was_done_to_its_heads() {
    for system in System::both().await {
        let (registry, acme, other) = prepared(&system).await;
        let stored = heads(&registry).await;
        let tampering = format!(
            "DELETE FROM activity_heads WHERE chain = '{acme}';
             UPDATE activity_heads SET position = 3 WHERE chain = '{other}'"
        );
        sqlx::raw_sql(AssertSqlSafe(tampering)).execute(&mut without_triggers(&system).await).await.unwrap();
        note(&registry, Some(acme), 2).await;
        note(&registry, Some(other), 1).await;
        let (found, summary) = verified(&registry, stored).await;
        assert_eq!(summary.rows, 20);
        let of_other = |line: &String| line.starts_with("tenant other");
        assert!(
            !found.is_empty() && found.iter().all(of_other),
            "acme goes on after its last row: {found:#?}"
        );
        assert!(
            found.iter().any(|line| line.contains("its position 4 belongs to another row")),
            "{found:#?}"
        );
    }
}

#[tokio::test]
async fn chain_written_again_differs_from_stored_heads_alone() {
    for system in System::both().await {
        let (registry, acme, _) = prepared(&system).await;
        let stored = heads(&registry).await;
        // As one who may do everything on the server does, with the registry's own function.
        let rewrite = format!(
            "UPDATE activity SET position = NULL, previous_hash = NULL, hash = NULL WHERE tenant_id = '{acme}';
             UPDATE activity SET actor = 'bob' WHERE tenant_id = '{acme}' AND actor = 'ada';
             UPDATE activity_heads SET position = 0, hash = decode(repeat('00', 32), 'hex'), pending = true
             WHERE chain = '{acme}';
             SET session_replication_role = origin;
             SELECT link_activity(1000)"
        );
        sqlx::raw_sql(AssertSqlSafe(rewrite)).execute(&mut without_triggers(&system).await).await.unwrap();
        let (found, summary) = verified(&registry, vec![]).await;
        assert_eq!((found, summary.rows), (vec![], 17));
        let (found, _) = verified(&registry, stored).await;
        assert!(found.len() == 1 && found[0].contains("the chain was written again"), "{found:?}");
    }
}

#[tokio::test]
async fn parallel_writers_append_to_one_chain_each_and_do_not_block_each_other() {
    for system in System::both().await {
        let mut processes = Vec::new();
        for n in 0..6 {
            processes.push(system.registry(&format!("process-{n}")).await);
        }
        let mut tenants = Vec::new();
        for n in 0..3 {
            tenants.push(created(&processes[0], &tenant(&format!("tenant-{n}"))).await.id);
        }
        // Each writes to all chains, and changes the tenants' rows, which others add activity about.
        let work = processes.iter().enumerate().map(async |(n, registry)| {
            for round in 0..10 {
                let id = tenants[(n + round) % tenants.len()];
                note(registry, Some(id), 2).await;
                note(registry, None, 1).await;
                if round == 5 {
                    registry.activate(id, &in_use(), &[], Uuid::new_v4()).await.unwrap();
                }
            }
        });
        join_all(work).await;
        let (found, summary) = verified(&processes[0], vec![]).await;
        // Two rows of each registration, and one of each activation.
        assert_eq!((found, summary.rows, summary.chains), (vec![], 6 * 10 * 3 + 3 * 3, 4));

        // A transaction that is open delays its own tenant alone.
        let mut session = system.session().await;
        session.execute("BEGIN").await.unwrap();
        let open = "INSERT INTO activity (tenant_id, action, actor) VALUES ($1, 'Noted', 'x')";
        sqlx::query(open).bind(tenants[0].0).execute(&mut session).await.unwrap();
        note(&processes[0], Some(tenants[1]), 1).await;
        note(&processes[0], None, 1).await;
        session.execute("SET lock_timeout = '1s'").await.unwrap();
        let mut other = system.session().await;
        other.execute("SET lock_timeout = '200ms'").await.unwrap();
        let waits = format!(
            "INSERT INTO activity (tenant_id, action, actor) VALUES ('{}', 'Noted', 'x')",
            tenants[0]
        );
        assert_eq!(refused(&mut other, waits).await, "55P03");
        session.execute("ROLLBACK").await.unwrap();
        note(&processes[0], Some(tenants[0]), 1).await;
        assert_eq!(verified(&processes[0], vec![]).await.0, [""; 0]);
    }
}
