-- The breaker of mass deletions also counts purges that come due, graces that are made shorter, and tenants whose objects
-- vanished.

ALTER TABLE breaker DROP CONSTRAINT breaker_cause_check;
ALTER TABLE breaker ADD CONSTRAINT breaker_cause_check CHECK (cause IN
    ('MassDeletion', 'DefinitionDeleted', 'DefinitionReplaced', 'MassPurge', 'GraceShortened', 'TenantsVanished'));

ALTER TABLE tenants
    -- When the terms of a tombstone last changed so that its purge may begin earlier.
    ADD COLUMN purge_hastened_at timestamptz,
    -- The `purge_after` that an operator acknowledged: the breaker does not count a purge on that date or later.
    ADD COLUMN purge_acknowledged timestamptz,
    -- The object of a living tenant does not exist, like those of many others: `Held` until an operator acknowledges it.
    ADD COLUMN vanished text CHECK (vanished IN ('Held', 'Acknowledged'));

CREATE OR REPLACE FUNCTION tenants_breaker() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    opening bigint;
BEGIN
    IF NEW.status <> 'deprovisioning' THEN
        NEW.frozen_by := NULL;
        IF NEW.status <> 'deprovisioned' THEN
            NEW.purge_hastened_at := NULL;
            NEW.purge_acknowledged := NULL;
        END IF;
        RETURN NEW;
    END IF;
    SELECT id INTO opening FROM breaker WHERE acknowledged_at IS NULL;
    IF NEW.purge_started_at IS NOT NULL AND OLD.purge_started_at IS NULL AND opening IS NOT NULL
       AND NEW.activated_at IS NOT NULL THEN
        RAISE EXCEPTION 'no purge begins while the breaker of mass deletions is open (opening %): tenant %',
            opening, NEW.id USING ERRCODE = 'TN005';
    END IF;
    IF OLD.status <> 'deprovisioning' THEN
        NEW.frozen_by := opening;
        -- With its vanished object, this was acknowledged too.
        NEW.purge_acknowledged := CASE WHEN OLD.vanished = 'Acknowledged' THEN NEW.purge_after END;
        NEW.vanished := NULL;
    ELSIF NEW.deletion_policy <> 'Retain' AND NEW.purge_held IS NULL
          AND (OLD.deletion_policy = 'Retain' OR OLD.purge_held IS NOT NULL OR NEW.purge_after < OLD.purge_after) THEN
        NEW.purge_hastened_at := now();
    ELSIF NEW.deletion_policy = 'Retain' OR NEW.purge_held IS NOT NULL OR NEW.purge_after > OLD.purge_after THEN
        NEW.purge_hastened_at := NULL;
    END IF;
    RETURN NEW;
END
$$;
