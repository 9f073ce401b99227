-- The activity log is append-only for every login, and a hash chain: a row that is changed, removed or inserted although
-- the triggers refuse it is found by `tenantry audit verify`. Each tenant has a chain; rows without a tenant have one
-- together, with the nil uuid. docs/audit.md states what the chain proves.

ALTER TABLE activity
    -- The number of the row in its chain, from 1. NULL: written before the chain, and not linked yet.
    ADD COLUMN position bigint,
    -- The hash of the row before it in the chain; 32 zero bytes for the first one.
    ADD COLUMN previous_hash bytea,
    ADD COLUMN hash bytea;
ALTER TABLE activity_archive
    ADD COLUMN position bigint,
    ADD COLUMN previous_hash bytea,
    ADD COLUMN hash bytea;

-- Not unique: the lock of the head keeps positions apart, and a head that was tampered with must not stop what is logged.
CREATE INDEX activity_chain
    ON activity (coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'), position);
CREATE INDEX activity_archive_chain
    ON activity_archive (coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'), position);

-- The end of each chain, so that appending locks one narrow row, and a chain that lacks its end is found.
CREATE TABLE activity_heads (
    chain uuid PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0,
    hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    -- The last row that was removed from the archive: what is left of the chain follows it.
    removed_position bigint NOT NULL DEFAULT 0,
    removed_hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    -- Rows from before the chain are not all linked. New ones wait, so that the order in the chain is that in time.
    pending boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
INSERT INTO activity_heads (chain, pending)
    SELECT id, true FROM tenants
    UNION ALL SELECT '00000000-0000-0000-0000-000000000000', true
    WHERE EXISTS (SELECT FROM activity WHERE tenant_id IS NULL)
       OR EXISTS (SELECT FROM activity_archive WHERE tenant_id IS NULL);
CREATE INDEX activity_heads_pending ON activity_heads (chain) WHERE pending;

-- A field of a row as its hash covers it: with its length in characters, so that no two rows have the same encoding.
CREATE FUNCTION activity_field(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(char_length(value)::text || ':' || value, '-') || ',';

-- Links a row to its chain: one that is inserted, or one from before the chain, whose position is set once.
CREATE FUNCTION link_activity_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    of_chain CONSTANT uuid := coalesce(NEW.tenant_id, '00000000-0000-0000-0000-000000000000');
    head activity_heads;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        NEW.position := OLD.position;
        NEW.previous_hash := OLD.previous_hash;
        NEW.hash := OLD.hash;
        IF OLD.position IS NOT NULL OR NEW *<> OLD THEN
            RAISE EXCEPTION 'UPDATE on % is never allowed', TG_TABLE_NAME USING ERRCODE = 'TN003';
        END IF;
    ELSE
        NEW.position := NULL;
        NEW.previous_hash := NULL;
        NEW.hash := NULL;
        -- The foreign key would lock the tenant's row after the head, and two transactions could wait for each other:
        -- all others lock the tenant's row first.
        PERFORM FROM tenants WHERE id = NEW.tenant_id FOR KEY SHARE;
    END IF;
    LOOP
        SELECT * INTO head FROM activity_heads WHERE chain = of_chain FOR UPDATE;
        EXIT WHEN FOUND;
        -- A new chain; or one whose head is lost, which goes on after its last row.
        INSERT INTO activity_heads (chain, position, hash)
            (SELECT of_chain, a.position, coalesce(a.hash, '') FROM activity a
             WHERE coalesce(a.tenant_id, '00000000-0000-0000-0000-000000000000') = of_chain AND a.position IS NOT NULL
             ORDER BY a.position DESC LIMIT 1)
            UNION ALL (SELECT of_chain, 0, decode(repeat('00', 32), 'hex'))
            ORDER BY 2 DESC LIMIT 1
            ON CONFLICT DO NOTHING;
    END LOOP;
    IF TG_OP = 'INSERT' AND head.pending THEN
        RETURN NEW;
    END IF;
    NEW.position := head.position + 1;
    NEW.previous_hash := head.hash;
    -- src/domain/activity_chain.rs computes the same.
    NEW.hash := sha256(NEW.previous_hash || convert_to(activity_field(NEW.position::text) || activity_field(NEW.id::text)
        || activity_field(NEW.tenant_id::text) || activity_field((extract(epoch FROM NEW.at) * 1000000)::bigint::text)
        || activity_field(NEW.action) || activity_field(NEW.actor) || activity_field(NEW.reason)
        || activity_field(NEW.details::text) || activity_field(NEW.correlation_id::text), 'UTF8'));
    UPDATE activity_heads SET position = NEW.position, hash = NEW.hash WHERE chain = of_chain;
    RETURN NEW;
END
$$;
-- As before, TRUNCATE is refused for every row, and DELETE unless the archive has the rows.
DROP TRIGGER activity_kept ON activity;
CREATE TRIGGER activity_kept BEFORE TRUNCATE ON activity
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();
CREATE TRIGGER activity_linked BEFORE INSERT OR UPDATE ON activity
    FOR EACH ROW EXECUTE FUNCTION link_activity_row();
CREATE TRIGGER activity_archive_kept BEFORE TRUNCATE ON activity_archive
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();
CREATE TRIGGER activity_archive_linked BEFORE UPDATE ON activity_archive
    FOR EACH ROW EXECUTE FUNCTION link_activity_row();

-- The archive gets copies of the log's rows, and nothing else. An earlier release does not name the columns of the
-- chain. STABLE: it sees the rows as the statement that moves them does, which may have deleted them from the log already.
CREATE FUNCTION archive_activity_row() RETURNS trigger
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    original activity;
BEGIN
    SELECT * INTO original FROM activity WHERE id = NEW.id;
    IF ROW(NEW.id, NEW.tenant_id, NEW.at, NEW.action, NEW.actor, NEW.reason, NEW.details, NEW.correlation_id)
        IS DISTINCT FROM ROW(original.id, original.tenant_id, original.at, original.action, original.actor,
            original.reason, original.details, original.correlation_id)
    THEN
        RAISE EXCEPTION 'activity_archive gets rows of activity as they are: row % is not one', NEW.id
            USING ERRCODE = 'TN003';
    END IF;
    NEW.position := original.position;
    NEW.previous_hash := original.previous_hash;
    NEW.hash := original.hash;
    RETURN NEW;
END
$$;
CREATE TRIGGER activity_archive_copied BEFORE INSERT ON activity_archive
    FOR EACH ROW EXECUTE FUNCTION archive_activity_row();

CREATE OR REPLACE FUNCTION keep_unarchived() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT id, tenant_id, at, action, actor, reason, details, correlation_id, position, previous_hash, hash
        FROM gone
        EXCEPT
        SELECT a.id, a.tenant_id, a.at, a.action, a.actor, a.reason, a.details, a.correlation_id, a.position,
            a.previous_hash, a.hash
        FROM activity_archive a JOIN gone g ON g.id = a.id
    ) THEN
        RAISE EXCEPTION 'DELETE on activity is allowed only for rows that activity_archive has' USING ERRCODE = 'TN003';
    END IF;
    RETURN NULL;
END
$$;

-- Each chain of the archive is emptied from its beginning. Its head keeps the hash of the last row that was removed.
CREATE FUNCTION keep_archived_chain() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    removed record;
    kept record;
BEGIN
    FOR removed IN
        SELECT DISTINCT ON (chain) coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') AS chain, id, position,
            hash
        FROM gone ORDER BY chain, position DESC NULLS FIRST
    LOOP
        IF removed.position IS NULL THEN
            RAISE EXCEPTION 'row % of activity_archive is not linked to its chain yet', removed.id
                USING ERRCODE = 'TN003', HINT = 'The leader links all rows after its start: try again in some minutes.';
        END IF;
        SELECT * INTO kept FROM (
            SELECT id, position, 'activity_archive' AS relation FROM activity_archive
            WHERE coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') = removed.chain
            UNION ALL
            SELECT id, position, 'activity' FROM activity
            WHERE coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') = removed.chain) AS left_over
        WHERE position < removed.position ORDER BY position LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'activity_archive is emptied from the beginning of each chain: row % of % is before row %',
                kept.id, kept.relation, removed.id USING ERRCODE = 'TN003',
                HINT = 'Delete the rows with smaller positions of the same tenant first, or together with this one.';
        END IF;
        UPDATE activity_heads SET removed_position = removed.position, removed_hash = removed.hash
        WHERE chain = removed.chain AND removed_position < removed.position;
    END LOOP;
    RETURN NULL;
END
$$;
CREATE TRIGGER activity_archive_emptied AFTER DELETE ON activity_archive REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION keep_archived_chain();

-- Heads change with their chains: in the triggers above, which call this one at a greater depth. Otherwise, a chain can
-- only cease to be pending, once all its rows are linked.
CREATE FUNCTION keep_activity_heads() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF pg_trigger_depth() > 1 AND TG_OP <> 'DELETE' THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.pending AND NOT NEW.pending THEN
        OLD.pending := false;
        IF NOT NEW *<> OLD
            AND NOT EXISTS (SELECT FROM activity WHERE position IS NULL
                AND coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') = NEW.chain)
            AND NOT EXISTS (SELECT FROM activity_archive WHERE position IS NULL
                AND coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') = NEW.chain)
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% on activity_heads is never allowed', TG_OP USING ERRCODE = 'TN003';
END
$$;
CREATE TRIGGER activity_heads_follow BEFORE INSERT OR UPDATE OR DELETE ON activity_heads
    FOR EACH ROW EXECUTE FUNCTION keep_activity_heads();
CREATE TRIGGER activity_heads_kept BEFORE TRUNCATE ON activity_heads
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();

-- Links rows from before the chain, the oldest first: at most so many, of one chain, which cannot be appended to meanwhile.
-- Returns whether a chain was pending. The leader calls it until none is.
CREATE FUNCTION link_activity(most integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    of_chain uuid;
    waiting record;
    linked integer := 0;
BEGIN
    SELECT chain INTO of_chain FROM activity_heads WHERE pending ORDER BY chain LIMIT 1 FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR waiting IN
        SELECT id, true AS archived FROM activity_archive WHERE position IS NULL
            AND coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') = of_chain
        UNION ALL
        SELECT id, false FROM activity WHERE position IS NULL
            AND coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') = of_chain
        ORDER BY id LIMIT most
    LOOP
        IF waiting.archived THEN
            UPDATE activity_archive SET position = NULL WHERE id = waiting.id;
        ELSE
            UPDATE activity SET position = NULL WHERE id = waiting.id;
        END IF;
        linked := linked + 1;
    END LOOP;
    IF linked < most THEN
        UPDATE activity_heads SET pending = false WHERE chain = of_chain;
    END IF;
    RETURN true;
END
$$;

-- What happened to tenants, by slug. The reader role sees what happened and when; who did it and why is for the platform's
-- operators only.
CREATE VIEW tenant_activity WITH (security_barrier) AS
SELECT t.slug, a.tenant_id, a.id, a.at, a.action, a.correlation_id, a.actor, a.reason, a.details, a.archived
FROM (
    SELECT id, tenant_id, at, action, correlation_id, actor, reason, details, false AS archived FROM activity
    UNION ALL
    SELECT id, tenant_id, at, action, correlation_id, actor, reason, details, true FROM activity_archive) AS a
JOIN tenants t ON t.id = a.tenant_id;
GRANT SELECT (slug, tenant_id, id, at, action, correlation_id, archived) ON tenant_activity TO tenantry_registry_reader;
