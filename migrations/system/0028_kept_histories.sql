-- What no login may remove with plain statements: the recent past of a tenant, and its end; support accesses; former slugs.

-- For how long at least a row stays, in the log or in its archive.
CREATE FUNCTION activity_kept_for() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '30 days';

-- As before, and: rows stay for that time, and the last row of a chain stays while its tenant exists. Who empties the archive
-- removes what is old, and never a whole history.
CREATE OR REPLACE FUNCTION keep_archived_chain() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    removed record;
    kept record;
BEGIN
    SELECT id, at INTO kept FROM gone WHERE at > now() - activity_kept_for() ORDER BY id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'activity_archive keeps each row for %: row % is of %', activity_kept_for(), kept.id, kept.at
            USING ERRCODE = 'TN003', HINT = 'Delete rows by "at", for example: at < now() - interval ''90 days''.';
    END IF;
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
        IF EXISTS (SELECT FROM activity_heads WHERE chain = removed.chain AND position <= removed.position)
            AND NOT EXISTS (SELECT FROM tenants WHERE id = removed.chain AND status = 'deprovisioned')
        THEN
            RAISE EXCEPTION 'row % is the last one of its chain: it stays until its tenant is deprovisioned', removed.id
                USING ERRCODE = 'TN003', HINT = 'Leave it in the archive: add AND id <> its id.';
        END IF;
        UPDATE activity_heads SET removed_position = removed.position, removed_hash = removed.hash
        WHERE chain = removed.chain AND removed_position < removed.position;
    END LOOP;
    RETURN NULL;
END
$$;

CREATE TRIGGER support_accesses_kept BEFORE TRUNCATE ON support_accesses
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();

-- It follows the tenants' rows, by their trigger, and nothing else changes it.
CREATE TRIGGER slug_history_kept BEFORE DELETE OR TRUNCATE ON slug_history
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();
CREATE FUNCTION slug_history_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF pg_trigger_depth() > 1 THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% on slug_history is never allowed: it follows the slugs of tenants', TG_OP
        USING ERRCODE = 'TN003';
END
$$;
CREATE TRIGGER slug_history_follows BEFORE INSERT OR UPDATE ON slug_history
    FOR EACH ROW EXECUTE FUNCTION slug_history_guard();

-- For the company's own software: where the links of a customer lead whose slug was changed.
CREATE VIEW former_slugs WITH (security_barrier) AS
SELECT h.slug AS former_slug, t.slug, h.until AS changed_at
FROM slug_history h JOIN tenants t ON t.id = h.tenant_id
WHERE h.reserved AND h.slug <> t.slug AND t.status <> 'deprovisioned';
GRANT SELECT ON former_slugs TO tenantry_registry_reader;
