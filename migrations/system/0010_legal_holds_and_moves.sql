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

-- Gives a tombstone to another Tenant: one that was moved to another namespace, or renamed. For platform operators.
CREATE FUNCTION move_tenant(moved text, to_namespace text, to_name text) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    tenant tenants;
BEGIN
    IF (to_namespace ~ '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$' AND to_name ~ '^[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?$')
        IS NOT TRUE THEN
        RAISE EXCEPTION 'a Tenant cannot have the namespace % and the name %', quote_nullable(to_namespace),
            quote_nullable(to_name) USING ERRCODE = 'TN001';
    END IF;
    IF EXISTS (SELECT FROM tenants WHERE (resource_namespace, resource_name) = (to_namespace, to_name)
            AND status <> 'deprovisioned' AND slug <> moved) THEN
        RAISE EXCEPTION 'Tenant %/% has a tenant of its own', to_namespace, to_name USING ERRCODE = 'TN001';
    END IF;
    SELECT * INTO tenant FROM tenants WHERE slug = moved AND status <> 'deprovisioned' FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no tenant has the slug %', quote_literal(moved) USING ERRCODE = 'TN001';
    END IF;
    IF tenant.status <> 'deprovisioning' OR tenant.purge_started_at IS NOT NULL THEN
        RAISE EXCEPTION 'tenant % of Tenant %/% is not a tombstone that can be restored: delete that Tenant first, with grace',
            quote_literal(moved), tenant.resource_namespace, tenant.resource_name USING ERRCODE = 'TN001';
    END IF;
    UPDATE tenants SET resource_namespace = to_namespace, resource_name = to_name WHERE id = tenant.id;
    INSERT INTO activity (tenant_id, action, actor, details) VALUES (tenant.id, 'Moved', session_user, jsonb_build_object(
        'from', tenant.resource_namespace || '/' || tenant.resource_name, 'to', to_namespace || '/' || to_name));
    RETURN tenant.id;
END
$$;
