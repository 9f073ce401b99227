-- Legal holds: while a tenant has one, no purge begins, whatever asks for it.

-- Holds that restrict no access (mode None). They are apart from the others because a release before this one does not
-- know the mode, and would not read the row.
ALTER TABLE tenants ADD COLUMN unrestricting_holds jsonb NOT NULL DEFAULT '[]'
    CHECK (jsonb_typeof(unrestricting_holds) = 'array');

ALTER TABLE tenants ADD COLUMN legal_hold boolean NOT NULL GENERATED ALWAYS AS
    (jsonb_path_exists(holds, '$[*].preserve') OR jsonb_path_exists(unrestricting_holds, '$[*].preserve')) STORED;

CREATE FUNCTION tenants_legal_hold() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'no purge begins and no row is closed under a legal hold: tenant %', NEW.id
        USING ERRCODE = 'TN006';
END
$$;
-- A purge that has begun is finished.
CREATE TRIGGER tenants_legal_hold BEFORE UPDATE ON tenants FOR EACH ROW
    WHEN (OLD.legal_hold AND OLD.purge_started_at IS NULL
          AND (NEW.purge_started_at IS NOT NULL OR NEW.status = 'deprovisioned' AND OLD.status <> 'deprovisioned'))
    EXECUTE FUNCTION tenants_legal_hold();

-- A TenantHold names its tenant by the name of the object.
CREATE INDEX tenants_resource_name ON tenants (resource_namespace, resource_name);
