-- State that the operator decides by and that was kept in its memory, or read back from the text of a status.

ALTER TABLE tenants
    -- The tenant's server was restored, or its database was found to be older than recorded: module versions and limits
    -- must be verified.
    ADD COLUMN verification_required boolean NOT NULL DEFAULT false;

ALTER TABLE usage
    -- The names of the limits that the user was warned about, sorted. They stay until usage is well below the limit.
    ADD COLUMN warned_limits jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(warned_limits) = 'array');

-- Versions before this one kept the flag in a Tenant's status, as the reason SchemaBehind. Without the guard, which refuses
-- a change while another process, of the version before, runs the tenant's workflow.
ALTER TABLE tenants DISABLE TRIGGER tenants_guard;
UPDATE tenants t SET verification_required = true
FROM workflows w
WHERE w.tenant_id = t.id AND w.finished_at IS NULL AND w.failure_reason = 'SchemaBehind';
ALTER TABLE tenants ENABLE TRIGGER tenants_guard;
