-- Tombstones that can be undone, until their purge has begun; failed provisionings that are taken back; what tells a
-- tenant's database and login from others of the same name when their comments are lost.

ALTER TABLE tenants
    -- The point of no return: set just before the first thing is destroyed. From then on there is no undelete.
    ADD COLUMN purge_started_at timestamptz,
    -- Why the purge waits although its time has come; none while nothing holds it.
    ADD COLUMN purge_held text,
    -- As they were last seen with their marks.
    ADD COLUMN database_oid bigint,
    ADD COLUMN login_oid bigint,
    -- A first provisioning failed and what it made is being removed. Not set on a tenant that was ever handed out.
    ADD COLUMN rolling_back boolean NOT NULL DEFAULT false CHECK (NOT rolling_back OR activated_at IS NULL);

CREATE INDEX tenants_purge ON tenants (purge_after) WHERE status = 'deprovisioning';

CREATE FUNCTION tenants_purge_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF OLD.purge_started_at IS NOT NULL THEN
        IF NEW.purge_started_at IS DISTINCT FROM OLD.purge_started_at THEN
            RAISE EXCEPTION 'the beginning of the purge of tenant % is fixed', OLD.id USING ERRCODE = 'TN003';
        END IF;
        IF NEW.status NOT IN ('deprovisioning', 'deprovisioned') THEN
            RAISE EXCEPTION 'tenant % cannot come back: its purge has begun', OLD.id USING ERRCODE = 'TN001';
        END IF;
    ELSIF NEW.purge_started_at IS NOT NULL AND
          (OLD.status <> 'deprovisioning' OR NEW.deletion_policy = 'Retain' OR NEW.purge_held IS NOT NULL) THEN
        RAISE EXCEPTION 'the purge of tenant % cannot begin: it is %, %, held by %', OLD.id, OLD.status,
            NEW.deletion_policy, coalesce(NEW.purge_held, 'nothing') USING ERRCODE = 'TN001';
    END IF;
    RETURN NEW;
END
$$;
-- After tenants_guard, by its name.
CREATE TRIGGER tenants_purge_guard BEFORE UPDATE ON tenants FOR EACH ROW EXECUTE FUNCTION tenants_purge_guard();
