-- The registry: every tenant that ever was, what was done to it, and by whom.
--
-- Runs as tenantry_admin, which owns this database and everything in it. The rules that must hold whatever a
-- program does are here, as constraints and triggers; they raise the SQLSTATEs
--   TN001  a transition that a tenant's life does not have
--   TN002  the tenant is in the hands of another process
--   TN003  a record that is written once and never changed
--   TN004  a password where a verifier belongs

DO $$
BEGIN
    IF NOT pg_has_role(current_user, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE') THEN
        RAISE EXCEPTION 'the database % does not belong to %: an administrator must run `tenantry server-setup`',
            current_database(), current_user USING ERRCODE = '42501';
    END IF;
    -- Nobody comes in without being let in. (A new database lets PUBLIC in, with TEMP.)
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    -- Another registry on the same server may be making the role at this very moment.
    BEGIN
        CREATE ROLE tenantry_registry_reader NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO tenantry_registry_reader', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
-- The global form: with IN SCHEMA it would take nothing from PUBLIC.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Who this installation is -------------------------------------------------------------------------------------

CREATE TABLE installation (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- The key of the digests by which a Secret's password is compared with the one in force.
    digest_key bytea NOT NULL DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
    created_at timestamptz NOT NULL DEFAULT now(),
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);
INSERT INTO installation DEFAULT VALUES;

-- Tenants ------------------------------------------------------------------------------------------------------

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    slug text NOT NULL CHECK (length(slug) BETWEEN 3 AND 40),
    name text NOT NULL,
    plan text NOT NULL,
    status text NOT NULL DEFAULT 'provisioning' CHECK (status IN
        ('provisioning', 'trial', 'active', 'suspended', 'deprovisioning', 'deprovisioned', 'failed')),
    status_reason text,
    status_updated_at timestamptz NOT NULL DEFAULT now(),
    status_updated_by text NOT NULL DEFAULT 'unknown',
    -- When the tenant was handed out for the first time. From then on nothing is rolled back or made again.
    activated_at timestamptz,
    suspended_at timestamptz,
    -- When going away began: the grace counts from here.
    deprovisioned_at timestamptz,
    purge_after timestamptz,
    -- When the row was closed.
    closed_at timestamptz,
    offboarding_trigger text,
    deletion_policy text NOT NULL DEFAULT 'Purge' CHECK (deletion_policy IN ('Purge', 'Retain')),
    settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    holds jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(holds) = 'array'),
    server text NOT NULL,
    database_name text NOT NULL CHECK (octet_length(database_name) <= 63),
    schema_name text CHECK (octet_length(schema_name) <= 63),
    login_name text NOT NULL CHECK (octet_length(login_name) <= 63),
    -- Whether a database of that name is on the server under this row's mark.
    database_exists boolean NOT NULL DEFAULT false,
    resource_namespace text NOT NULL,
    resource_name text NOT NULL,
    resource_uid text NOT NULL,
    -- The level that was last seen in force; 'Unknown' before that.
    access text NOT NULL DEFAULT 'Unknown'
        CHECK (access IN ('Unknown', 'Blocked', 'ReadOnly', 'ShrinkOnly', 'ReadWrite')),
    password_verifier text,
    password_digest bytea,
    module_versions jsonb NOT NULL DEFAULT '{}',
    seed_digest text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX tenants_slug ON tenants (slug) WHERE status <> 'deprovisioned';
-- A name is held from registration until its database is gone; a retained database keeps it for good.
CREATE UNIQUE INDEX tenants_database ON tenants (server, database_name, coalesce(schema_name, ''))
    WHERE database_exists OR status <> 'deprovisioned';
CREATE UNIQUE INDEX tenants_resource ON tenants (resource_uid) WHERE status <> 'deprovisioned';
CREATE INDEX tenants_resource_history ON tenants (resource_uid);

CREATE TABLE slug_history (
    tenant_id uuid NOT NULL REFERENCES tenants,
    slug text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    until timestamptz,
    PRIMARY KEY (tenant_id, since)
);
CREATE INDEX slug_history_slug ON slug_history (slug);

-- What is done to them -----------------------------------------------------------------------------------------

CREATE TABLE workflows (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants,
    kind text NOT NULL,
    -- Counts the runs; with the id it is what a run shows to prove that nobody has taken over.
    attempt integer NOT NULL DEFAULT 1,
    -- The application_name of the process that runs it, and the advisory lock that lives as long as it does.
    holder text NOT NULL,
    claim integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    attempt_started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    outcome text CHECK ((outcome IS NULL) = (finished_at IS NULL)),
    -- Failed runs in a row, why the last one failed, and when the next may start: a restart must not forget.
    failures integer NOT NULL DEFAULT 0,
    failure_reason text,
    failure_message text,
    next_attempt_at timestamptz
);
CREATE UNIQUE INDEX workflows_running ON workflows (tenant_id) WHERE finished_at IS NULL;
CREATE INDEX workflows_tenant ON workflows (tenant_id, started_at);
-- Keys of claims. They need only differ among the processes that are alive.
CREATE SEQUENCE claims AS integer CYCLE;

CREATE TABLE workflow_steps (
    workflow_id uuid NOT NULL REFERENCES workflows,
    name text NOT NULL,
    state text NOT NULL,
    attempts integer NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    message text,
    sql_state text,
    PRIMARY KEY (workflow_id, name)
);

CREATE TABLE activity (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid REFERENCES tenants,
    at timestamptz NOT NULL DEFAULT now(),
    action text NOT NULL,
    actor text NOT NULL,
    reason text,
    details jsonb NOT NULL DEFAULT '{}',
    correlation_id uuid
);
CREATE INDEX activity_tenant ON activity (tenant_id, at);

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants,
    at timestamptz NOT NULL DEFAULT now(),
    event text NOT NULL,
    payload jsonb NOT NULL DEFAULT '{}',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    delivered_at timestamptz
);
CREATE INDEX outbox_pending ON outbox (id) WHERE delivered_at IS NULL;

-- What is left to show that a customer's data is gone, or where it is kept.
CREATE TABLE deletion_receipts (
    tenant_id uuid PRIMARY KEY REFERENCES tenants,
    slug text NOT NULL,
    server text NOT NULL,
    database_name text NOT NULL,
    schema_name text,
    database_retained boolean NOT NULL,
    offboarding_trigger text,
    requested_by text NOT NULL,
    reason text,
    requested_at timestamptz,
    closed_at timestamptz NOT NULL DEFAULT now(),
    correlation_id uuid
);

-- Rules --------------------------------------------------------------------------------------------------------

-- The lock that a process holds on its own session for as long as it lives: see workflows.claim. 1413828161 is
-- "TENA". The form with two keys, so that it can never be the lock that guards migrations.
CREATE FUNCTION take_claim() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    key integer;
BEGIN
    LOOP
        key := nextval('public.claims');
        EXIT WHEN pg_try_advisory_lock(1413828161, key);
    END LOOP;
    RETURN key;
END
$$;

CREATE FUNCTION claim_held(key integer) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 2 AND granted
          AND classid = 1413828161::oid AND objid = key::oid
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
$$;

CREATE FUNCTION tenants_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    other text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'provisioning' OR NEW.password_verifier IS NOT NULL THEN
            RAISE EXCEPTION 'a tenant starts as provisioning, without credentials, not as %', NEW.status USING ERRCODE = 'TN001';
        END IF;
        RETURN NEW;
    END IF;

    -- Not a CHECK: the server would log the whole row that failed it, with the password.
    IF NEW.password_verifier NOT LIKE 'SCRAM-SHA-256$%' THEN
        RAISE EXCEPTION 'what was given for tenant % is not a SCRAM verifier', NEW.id USING ERRCODE = 'TN004';
    END IF;

    -- A process that was frozen and woke up again finds its work taken over.
    SELECT holder INTO other FROM workflows
    WHERE tenant_id = NEW.id AND finished_at IS NULL
      AND holder <> current_setting('application_name') AND claim_held(claim);
    IF FOUND THEN
        RAISE EXCEPTION 'tenant % is in the hands of %', NEW.id, other USING ERRCODE = 'TN002';
    END IF;

    IF NEW.id <> OLD.id OR NEW.created_at <> OLD.created_at
       OR NEW.activated_at IS DISTINCT FROM OLD.activated_at AND OLD.activated_at IS NOT NULL THEN
        RAISE EXCEPTION 'id, created_at and activated_at of tenant % are fixed', OLD.id USING ERRCODE = 'TN003';
    END IF;

    IF NEW.status <> OLD.status THEN
        IF NOT (CASE OLD.status
            WHEN 'provisioning' THEN NEW.status IN ('trial', 'active', 'suspended', 'failed', 'deprovisioning')
            WHEN 'failed' THEN NEW.status IN ('provisioning', 'deprovisioning')
            WHEN 'trial' THEN NEW.status IN ('active', 'suspended', 'deprovisioning')
            WHEN 'active' THEN NEW.status IN ('trial', 'suspended', 'deprovisioning')
            WHEN 'suspended' THEN NEW.status IN ('trial', 'active', 'deprovisioning')
            -- Back to provisioning only where there never was anything to lose.
            WHEN 'deprovisioning' THEN NEW.status IN ('trial', 'active', 'suspended', 'deprovisioned')
                OR NEW.status = 'provisioning' AND OLD.activated_at IS NULL
            ELSE false
        END) THEN
            RAISE EXCEPTION 'tenant % cannot go from % to %', OLD.id, OLD.status, NEW.status
                USING ERRCODE = 'TN001';
        END IF;
        IF NEW.status = 'deprovisioned' AND NEW.database_exists AND NEW.deletion_policy <> 'Retain' THEN
            RAISE EXCEPTION 'tenant % cannot be closed: its database % is still there and is not retained',
                OLD.id, OLD.database_name USING ERRCODE = 'TN001';
        END IF;
        NEW.status_updated_at := now();
        IF NEW.status IN ('trial', 'active', 'suspended') AND OLD.activated_at IS NULL THEN
            NEW.activated_at := now();
        END IF;
    END IF;
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER tenants_guard BEFORE INSERT OR UPDATE ON tenants FOR EACH ROW EXECUTE FUNCTION tenants_guard();

CREATE FUNCTION tenants_follow() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.slug <> OLD.slug THEN
        UPDATE slug_history SET until = now() WHERE tenant_id = NEW.id AND until IS NULL;
        INSERT INTO slug_history (tenant_id, slug) VALUES (NEW.id, NEW.slug);
    END IF;
    PERFORM pg_notify('tenantry_tenants', NEW.id::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER tenants_follow AFTER INSERT OR UPDATE ON tenants FOR EACH ROW EXECUTE FUNCTION tenants_follow();

CREATE FUNCTION keep_records() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on % is never allowed', TG_OP, TG_TABLE_NAME USING ERRCODE = 'TN003';
END
$$;
CREATE TRIGGER installation_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON installation
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();
CREATE TRIGGER activity_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON activity
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();
CREATE TRIGGER deletion_receipts_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON deletion_receipts
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();
-- A tenant's row is closed, never removed.
CREATE TRIGGER tenants_kept BEFORE DELETE OR TRUNCATE ON tenants
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();

-- For the company's own software ---------------------------------------------------------------------------------

-- Without anything that explains (reasons, people) or proves (verifiers, digests).
CREATE VIEW tenants_public WITH (security_barrier) AS
SELECT id, slug, name, plan, status, status_updated_at, suspended_at, deprovisioned_at, purge_after, settings,
       server, database_name, schema_name, resource_namespace, resource_name, access, module_versions,
       created_at, updated_at
FROM tenants;

GRANT USAGE ON SCHEMA public TO tenantry_registry_reader;
GRANT SELECT ON tenants_public TO tenantry_registry_reader;
