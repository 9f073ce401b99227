-- What is kept for how long. Activity is never deleted: old rows are moved to a table that the keeper of the archive may
-- export and empty.

CREATE TABLE activity_archive (
    id bigint PRIMARY KEY,
    tenant_id uuid,
    at timestamptz NOT NULL,
    action text NOT NULL,
    actor text NOT NULL,
    reason text,
    details jsonb NOT NULL,
    correlation_id uuid,
    archived_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX activity_archive_tenant ON activity_archive (tenant_id, at);

-- As before, a row never changes. It is removed only when the archive has it, as it was.
DROP TRIGGER activity_kept ON activity;
CREATE TRIGGER activity_kept BEFORE UPDATE OR TRUNCATE ON activity
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();
CREATE FUNCTION keep_unarchived() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT id, tenant_id, at, action, actor, reason, details, correlation_id FROM gone
        EXCEPT
        SELECT a.id, a.tenant_id, a.at, a.action, a.actor, a.reason, a.details, a.correlation_id
        FROM activity_archive a JOIN gone g ON g.id = a.id
    ) THEN
        RAISE EXCEPTION 'DELETE on activity is allowed only for rows that activity_archive has' USING ERRCODE = 'TN003';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER activity_archived AFTER DELETE ON activity REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION keep_unarchived();

-- The drift check reads the rows that have changed since the last one.
CREATE INDEX tenants_updated ON tenants (updated_at);
