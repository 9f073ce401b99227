-- A notification never fails a commit. All databases of a server share one queue, which a tenant's login can fill: then
-- every commit with a notification fails.

-- Whether the queue has room. Well below full: others may add to it before this transaction commits.
CREATE FUNCTION notification_queue_has_room() RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$ SELECT pg_notification_queue_usage() < 0.5 $$;

CREATE OR REPLACE FUNCTION tenants_follow() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.slug <> OLD.slug THEN
        UPDATE slug_history SET until = now() WHERE tenant_id = NEW.id AND until IS NULL;
        INSERT INTO slug_history (tenant_id, slug) VALUES (NEW.id, NEW.slug);
    END IF;
    IF notification_queue_has_room() THEN
        PERFORM pg_notify('tenantry_tenants', NEW.id::text);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON VIEW tenants_public IS
    'A change of a row is notified on the channel tenantry_tenants, with the id. A notification is a hint: none is sent '
    'while the queue is half full. So also read the rows with a newer updated_at, every minute for example.';
