-- The tenant's settings. Those of the Tenant resource are mirrored here; the application may keep its own beside
-- them.
CREATE TABLE public.settings (
    key        text        PRIMARY KEY CHECK (key <> '' AND length(key) <= 253),
    value      jsonb       NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- What the Tenant resource last wrote, so that a key it drops is told from one that the application wrote.
CREATE TABLE tenantry.mirrored_settings (
    key   text  PRIMARY KEY,
    value jsonb NOT NULL
);

-- What was seeded once, and is not seeded again.
CREATE TABLE tenantry.seeds (
    name       text        PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION tenantry.touch() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TRIGGER touch BEFORE UPDATE ON public.settings
    FOR EACH ROW WHEN (NEW IS DISTINCT FROM OLD) EXECUTE FUNCTION tenantry.touch();
