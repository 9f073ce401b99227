//! Columns that a module marks as secret. Each way to them is tried, and each object that shows them under another name.

use sqlx::Executor;

use super::{Stage, refused};
use crate::servers::SERVERS;

const KEYS: &str = "
    CREATE TABLE keys (id int PRIMARY KEY, owner text NOT NULL, secret text NOT NULL,
        shout text GENERATED ALWAYS AS (upper(secret)) STORED, length int);
    COMMENT ON COLUMN keys.secret IS 'tenantry:secret: an API key';
    INSERT INTO keys (id, owner, secret) SELECT n, 'ada', 'k-secret' FROM generate_series(1, 100) AS n;
    CREATE TABLE wholly (a text, b text);
    COMMENT ON TABLE wholly IS 'tenantry:secret';
    CREATE TABLE parts (id int, secret text) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
    COMMENT ON COLUMN parts.secret IS 'tenantry:secret';
    CREATE TABLE parent (id int, secret text);
    CREATE TABLE child () INHERITS (parent);
    COMMENT ON COLUMN child.secret IS 'tenantry:secret';
    CREATE VIEW by_owner AS SELECT owner, secret AS harmless FROM keys;
    CREATE VIEW whole_rows AS SELECT to_jsonb(k) AS everything FROM keys AS k;
    CREATE VIEW counted AS SELECT count(*) AS n FROM keys;
    CREATE VIEW of_a_view AS SELECT * FROM whole_rows;
    CREATE VIEW invoker WITH (security_invoker = true) AS SELECT id, owner FROM keys;
    CREATE VIEW invoker_of_secret WITH (security_invoker = on) AS SELECT secret FROM keys;
    CREATE VIEW over_invoker AS SELECT * FROM invoker_of_secret;
    CREATE VIEW orders_seen AS SELECT * FROM orders;
    CREATE MATERIALIZED VIEW stored AS SELECT secret FROM keys;
    CREATE MATERIALIZED VIEW stored_orders AS SELECT item FROM orders;
    CREATE VIEW tokens AS SELECT a.* FROM tenantry.admins AS a;
    CREATE TABLE near (upper text, inside text, spaced text, line text, secretary text);
    COMMENT ON COLUMN near.upper IS 'Tenantry:Secret';
    COMMENT ON COLUMN near.inside IS 'An API key; tenantry:secret.';
    COMMENT ON COLUMN near.spaced IS ' tenantry : secret ';
    COMMENT ON COLUMN near.line IS E'Note\\ntenantry:secret';
    COMMENT ON COLUMN near.secretary IS 'tenantry:secretary';
    CREATE TABLE wraps (id int, one keys, many keys[]);
    CREATE TYPE envelope AS (label text, content keys);
    CREATE DOMAIN sealed AS envelope;
    CREATE TABLE letters (id int, letter envelope, letters sealed[]);
    INSERT INTO wraps SELECT 1, k, ARRAY[k] FROM keys AS k WHERE id = 1;
    CREATE FUNCTION secret_of(key int) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = shop
        AS 'SELECT secret FROM keys WHERE id = key';
    CREATE VIEW by_function AS SELECT secret_of(1)";

/// Ways to what is secret.
const SECRETS: [&str; 45] = [
    "SELECT secret FROM shop.keys",
    "SELECT shout FROM shop.keys",
    "SELECT * FROM shop.keys",
    "SELECT k FROM shop.keys AS k",
    "SELECT (k.*)::text FROM shop.keys AS k",
    "SELECT to_jsonb(k) FROM shop.keys AS k",
    "SELECT row_to_json(k) FROM shop.keys AS k",
    "SELECT (k).secret FROM shop.keys AS k",
    "TABLE shop.keys",
    "COPY shop.keys TO STDOUT",
    "COPY (SELECT secret FROM shop.keys) TO STDOUT",
    "SELECT id FROM shop.keys WHERE secret = 'k-secret'",
    "SELECT id FROM shop.keys ORDER BY secret",
    "SELECT count(secret) FROM shop.keys",
    "SELECT 1 / (secret = 'k')::int FROM shop.keys",
    "SELECT secret::int FROM shop.keys",
    "SELECT id FROM shop.keys JOIN shop.orders AS o USING (id) GROUP BY id, secret",
    "EXPLAIN SELECT id FROM shop.keys WHERE secret = 'k-secret'",
    "DECLARE c CURSOR FOR SELECT secret FROM shop.keys",
    "PREPARE p AS SELECT secret FROM shop.keys; EXECUTE p",
    "DO $$ BEGIN RAISE NOTICE '%', (SELECT max(secret) FROM shop.keys); END $$",
    "WITH s AS (SELECT secret FROM shop.keys) SELECT count(*) FROM s",
    "SELECT a FROM shop.wholly",
    "SELECT secret FROM shop.parts",
    "SELECT secret FROM shop.parts_2",
    "SELECT secret FROM shop.child",
    "SELECT secret FROM shop.parent",
    "SELECT owner FROM shop.by_owner",
    "SELECT everything FROM shop.whole_rows",
    "SELECT n FROM shop.counted",
    "SELECT everything FROM shop.of_a_view",
    "SELECT secret FROM shop.invoker_of_secret",
    "SELECT secret FROM shop.over_invoker",
    "SELECT secret FROM shop.stored",
    "SELECT email FROM shop.tokens",
    "SELECT * FROM shop.by_function",
    "SELECT upper FROM shop.near",
    "SELECT inside FROM shop.near",
    "SELECT spaced FROM shop.near",
    "SELECT line FROM shop.near",
    "SELECT (one).secret FROM shop.wraps",
    "SELECT many[1] FROM shop.wraps",
    "SELECT (letter).label FROM shop.letters",
    "SELECT letters FROM shop.letters",
    "SELECT w FROM shop.wraps AS w",
];

#[tokio::test]
async fn no_way_leads_to_a_secret_column() {
    for postgres in &*SERVERS {
        let mut stage = Stage::new(postgres, "tenant_support_secrets").await;
        stage.migrate(KEYS).await;
        stage.superuser("ANALYZE shop.keys").await;
        let support = stage.open().await;
        let mut session = stage.session(&support).await.unwrap();
        for sql in SECRETS {
            let (code, text) = refused(&mut session, sql).await.unwrap_or_else(|| panic!("{sql}"));
            assert_eq!(code, "42501", "{sql}: {text}");
            assert!(!text.contains("k-secret"), "{sql}: {text}");
        }
        for sql in ["SELECT secret_hash FROM public.user_credentials", "SELECT * FROM tenantry.admins"] {
            assert_eq!(refused(&mut session, sql).await.unwrap().0, "42501", "{sql}");
        }
        for sql in [
            "SELECT id, owner, length FROM shop.keys",
            "SELECT secretary FROM shop.near",
            "SELECT id FROM shop.wraps",
            "SELECT id FROM shop.letters",
            "SELECT id FROM shop.parts",
            "SELECT id FROM shop.parts_1",
            "SELECT id FROM shop.parent",
            "SELECT owner FROM shop.invoker",
            "SELECT * FROM shop.orders_seen",
            "SELECT item FROM shop.stored_orders",
        ] {
            assert_eq!(refused(&mut session, sql).await, None, "{sql}");
        }
        let query = "SELECT count(*) FILTER (WHERE attname IN ('secret', 'shout')), count(*) FROM pg_stats
                     WHERE schemaname = 'shop' AND tablename = 'keys'";
        let (secrets, all): (i64, i64) = sqlx::query_as(query).fetch_one(&mut session).await.unwrap();
        assert!(secrets == 0 && all > 0, "statistics: {secrets} of {all}");
    }
}

#[tokio::test]
async fn what_a_later_migration_adds_is_hidden_until_it_is_known_to_be_no_secret() {
    for postgres in &*SERVERS {
        let mut stage = Stage::new(postgres, "tenant_support_later").await;
        let support = stage.open().await;
        let mut session = stage.session(&support).await.unwrap();
        // By hand, so that nothing settles the rights: neither a new table nor a new column is open by default.
        stage
            .superuser(
                "SET ROLE tenantry_owner; ALTER TABLE shop.orders ADD COLUMN card text; CREATE TABLE shop.fresh (a int)",
            )
            .await;
        for sql in ["SELECT card FROM shop.orders", "SELECT * FROM shop.orders", "SELECT a FROM shop.fresh"] {
            assert_eq!(refused(&mut session, sql).await.unwrap().0, "42501", "{sql}");
        }
        stage.migrate("COMMENT ON COLUMN orders.card IS 'tenantry:secret'; CREATE TABLE later (b int)").await;
        for sql in
            ["SELECT id, item FROM shop.orders", "SELECT a FROM shop.fresh", "SELECT b FROM shop.later"]
        {
            assert_eq!(refused(&mut session, sql).await, None, "{sql}");
        }
        assert_eq!(refused(&mut session, "SELECT card FROM shop.orders").await.unwrap().0, "42501");
        // One that is marked later is closed by the file that marks it.
        stage.migrate("COMMENT ON COLUMN orders.item IS 'tenantry:secret'").await;
        assert_eq!(refused(&mut session, "SELECT item FROM shop.orders").await.unwrap().0, "42501");
        session.execute("SELECT id FROM shop.orders").await.unwrap();
    }
}
