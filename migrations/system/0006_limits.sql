-- What a tenant's plan gives it, what the tenant uses of that, today and on every day before, and the gates of its
-- onboarding.

ALTER TABLE tenants
    -- What is in force in the tenant's database: plan, limits (a number, or null where it is unlimited), features, sla,
    -- modules that it names. None until it was put in force for the first time.
    ADD COLUMN entitlements jsonb CHECK (jsonb_typeof(entitlements) = 'object'),
    -- The gates, an array of name and done.
    ADD COLUMN gates jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(gates) = 'array'),
    -- Those of them that came from the plan, by name: fixed when the tenant is handed out.
    ADD COLUMN default_gates jsonb CHECK (jsonb_typeof(default_gates) = 'array'),
    -- When all of them were done for the first time, or when it was handed out, if there were none: a trial that the plan
    -- gives begins then.
    ADD COLUMN gates_done_at timestamptz;

-- Not in tenants: a sample is no change of the tenant, of which somebody would have to be notified.
CREATE TABLE usage (
    tenant_id uuid PRIMARY KEY REFERENCES tenants,
    -- By the name of the limit, in its unit.
    amounts jsonb NOT NULL,
    measured_at timestamptz NOT NULL,
    -- How many rows PostgreSQL had ever seen written in the tenant's database when its counters were read: while it has
    -- seen no more, there is nothing to be read. None: the sampler has not read them yet.
    counted_at_writes bigint
);

-- For billing. Days are those of UTC. A day with any sample has a row for each amount that is known, and begins with what
-- was so before: one that was not measured on that day, mostly since nobody was there who could have changed it, has no
-- samples.
CREATE TABLE usage_by_day (
    tenant_id uuid NOT NULL REFERENCES tenants,
    day date NOT NULL,
    name text NOT NULL,
    minimum bigint NOT NULL,
    maximum bigint NOT NULL,
    last bigint NOT NULL,
    samples integer NOT NULL,
    PRIMARY KEY (tenant_id, day, name)
);

CREATE FUNCTION record_usage(tenant uuid, measured jsonb, at timestamptz) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
    -- A day begins with what was so before.
    INSERT INTO usage_by_day (tenant_id, day, name, minimum, maximum, last, samples)
    SELECT tenant, (at AT TIME ZONE 'UTC')::date, u.name, u.amount::bigint, u.amount::bigint, u.amount::bigint, 0
    FROM (SELECT n.key, n.value FROM usage, jsonb_each_text(amounts) AS n WHERE tenant_id = tenant) AS u (name, amount)
    ON CONFLICT DO NOTHING;
    INSERT INTO usage AS u (tenant_id, amounts, measured_at) VALUES (tenant, measured, at)
    ON CONFLICT (tenant_id) DO UPDATE SET amounts = u.amounts || excluded.amounts, measured_at = excluded.measured_at;
    INSERT INTO usage_by_day AS d (tenant_id, day, name, minimum, maximum, last, samples)
    SELECT tenant, (at AT TIME ZONE 'UTC')::date, m.name, m.amount::bigint, m.amount::bigint, m.amount::bigint, 1
    FROM jsonb_each_text(measured) AS m (name, amount)
    ON CONFLICT (tenant_id, day, name) DO UPDATE SET
        minimum = least(d.minimum, excluded.minimum), maximum = greatest(d.maximum, excluded.maximum),
        last = excluded.last, samples = d.samples + 1;
    SELECT true;
$$;

CREATE OR REPLACE VIEW tenants_public WITH (security_barrier) AS
SELECT id, slug, name, plan, status, status_updated_at, suspended_at, deprovisioned_at, purge_after, settings,
       server, database_name, schema_name, resource_namespace, resource_name, access, module_versions,
       created_at, updated_at,
       entitlements -> 'limits' AS limits, entitlements -> 'features' AS features, entitlements ->> 'sla' AS sla,
       gates
FROM tenants;

CREATE VIEW usage_public WITH (security_barrier) AS
SELECT d.tenant_id, t.slug, t.plan, d.day, d.name, d.minimum, d.maximum, d.last, d.samples
FROM usage_by_day d JOIN tenants t ON t.id = d.tenant_id;
GRANT SELECT ON usage_public TO tenantry_registry_reader;
