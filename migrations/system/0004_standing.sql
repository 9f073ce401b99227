-- The life of a tenant as one table, the same that the operator decides by (a test holds them together); what is kept
-- of warnings and of the use that is made of a tenant.

CREATE TABLE lifecycle (
    "from" text NOT NULL,
    "to" text NOT NULL,
    PRIMARY KEY ("from", "to")
);
INSERT INTO lifecycle VALUES
    ('provisioning', 'trial'),
    ('provisioning', 'active'),
    ('provisioning', 'suspended'),
    ('provisioning', 'failed'),
    ('provisioning', 'deprovisioning'),
    ('failed', 'provisioning'),
    ('failed', 'deprovisioning'),
    ('trial', 'active'),
    ('trial', 'suspended'),
    ('trial', 'deprovisioning'),
    ('active', 'trial'),
    ('active', 'suspended'),
    ('active', 'deprovisioning'),
    ('suspended', 'trial'),
    ('suspended', 'active'),
    ('suspended', 'deprovisioning'),
    -- Back, and cut off until its access is judged; where there never was anything to lose, back to the beginning.
    ('deprovisioning', 'suspended'),
    ('deprovisioning', 'provisioning'),
    ('deprovisioning', 'deprovisioned');
CREATE TRIGGER lifecycle_kept BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lifecycle
    FOR EACH STATEMENT EXECUTE FUNCTION keep_records();

ALTER TABLE tenants
    -- The end (of a trial, of the validity) that somebody was warned of.
    ADD COLUMN warned_of timestamptz,
    -- How many sessions PostgreSQL had counted in the database when that number last changed, and when that was seen.
    ADD COLUMN sessions_seen bigint,
    ADD COLUMN last_session_at timestamptz,
    -- When somebody was warned that nobody uses the tenant; none since it was last used.
    ADD COLUMN inactivity_warned_at timestamptz;

CREATE OR REPLACE FUNCTION tenants_guard() RETURNS trigger
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
        IF NOT EXISTS (SELECT FROM lifecycle l WHERE l."from" = OLD.status AND l."to" = NEW.status)
           OR OLD.status = 'deprovisioning' AND NEW.status <> 'deprovisioned'
              AND (NEW.status = 'provisioning') <> (OLD.activated_at IS NULL) THEN
            RAISE EXCEPTION 'tenant % cannot go from % to %', OLD.id, OLD.status, NEW.status
                USING ERRCODE = 'TN001';
        END IF;
        IF NEW.status = 'deprovisioned' AND NEW.database_exists AND NEW.deletion_policy <> 'Retain' THEN
            RAISE EXCEPTION 'tenant % cannot be closed: its database % is still there and is not retained',
                OLD.id, OLD.database_name USING ERRCODE = 'TN001';
        END IF;
        NEW.status_updated_at := now();
        IF NEW.status IN ('trial', 'active', 'suspended') AND OLD.activated_at IS NULL THEN
            NEW.activated_at := coalesce(NEW.activated_at, now());
        END IF;
    END IF;
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
