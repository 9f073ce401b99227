-- What is in every tenant's database, whatever its modules are. A database of the release before has these from the module
-- core: they stay as they are, with what is in them.

-- The settings of the Tenant resource.
CREATE TABLE IF NOT EXISTS tenantry.mirrored_settings (
    key   text  PRIMARY KEY,
    value jsonb NOT NULL
);

-- What was seeded once, and is not seeded again.
CREATE TABLE IF NOT EXISTS tenantry.seeds (
    name       text        PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE OR REPLACE FUNCTION tenantry.touch() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
