-- The breaker of mass deletions: while it is open, no purge begins, whoever asks for it.

CREATE TABLE breaker (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- What whoever acknowledges it must say: not a number, which another registry would give again.
    token text NOT NULL UNIQUE DEFAULT left(gen_random_uuid()::text, 8),
    opened_at timestamptz NOT NULL,
    cause text NOT NULL CHECK (cause IN ('MassDeletion', 'DefinitionDeleted', 'DefinitionReplaced')),
    detail text NOT NULL,
    -- The definition that it is about, if it is about one: it opens once for each.
    definition_uid text,
    acknowledged_at timestamptz,
    acknowledged_by text
);
CREATE UNIQUE INDEX breaker_open ON breaker ((true)) WHERE acknowledged_at IS NULL;

-- The CustomResourceDefinition of Tenants, as it was last seen: another one means that all Tenants were deleted.
CREATE TABLE definition (
    uid text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);

-- Which opening of the breaker keeps a tombstone from being purged.
ALTER TABLE tenants ADD COLUMN frozen_by bigint REFERENCES breaker;
CREATE INDEX tenants_departures ON tenants (deprovisioned_at) WHERE deprovisioned_at IS NOT NULL;

CREATE FUNCTION tenants_breaker() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    opening bigint;
BEGIN
    IF NEW.status <> 'deprovisioning' THEN
        NEW.frozen_by := NULL;
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
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER tenants_breaker BEFORE UPDATE ON tenants FOR EACH ROW EXECUTE FUNCTION tenants_breaker();
