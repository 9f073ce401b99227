-- Slugs can be changed. A tenant's former slugs stay reserved for it until it is deprovisioned, as its slug does: links,
-- bookmarks and invoices of the customer still have them.

ALTER TABLE slug_history
    -- Whether no other tenant can have the slug: it is the tenant's, or was, and the tenant is not deprovisioned. Of several
    -- rows of one tenant with the same slug, the last one has it.
    ADD COLUMN reserved boolean NOT NULL DEFAULT true;

-- No release before this one changed a slug: a row that has ended was ended by hand, and another tenant may have its slug.
UPDATE slug_history h SET reserved = false
FROM tenants t WHERE t.id = h.tenant_id AND (t.status = 'deprovisioned' OR h.until IS NOT NULL);

-- Decides who has a slug, whatever a program checks before. tenants_slug stays: an earlier release knows that one only.
CREATE UNIQUE INDEX slug_history_reserved ON slug_history (slug) WHERE reserved;

CREATE OR REPLACE FUNCTION tenants_follow() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.slug <> OLD.slug THEN
        UPDATE slug_history SET until = coalesce(until, now()), reserved = reserved AND slug <> NEW.slug
        WHERE tenant_id = NEW.id AND (until IS NULL OR slug = NEW.slug AND reserved);
        INSERT INTO slug_history (tenant_id, slug) VALUES (NEW.id, NEW.slug);
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.status = 'deprovisioned' AND OLD.status <> 'deprovisioned' THEN
        UPDATE slug_history SET reserved = false WHERE tenant_id = NEW.id AND reserved;
    END IF;
    IF notification_queue_has_room() THEN
        PERFORM pg_notify('tenantry_tenants', NEW.id::text);
    END IF;
    RETURN NULL;
END
$$;

-- What is closed, or about to be, keeps the slug that its receipt has.
CREATE FUNCTION tenants_slug_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF OLD.status = 'deprovisioned' OR OLD.purge_started_at IS NOT NULL THEN
        RAISE EXCEPTION 'the slug of tenant % is fixed: its purge has begun', OLD.id USING ERRCODE = 'TN003';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER tenants_slug_guard BEFORE UPDATE OF slug ON tenants
    FOR EACH ROW WHEN (NEW.slug <> OLD.slug) EXECUTE FUNCTION tenants_slug_guard();

COMMENT ON TABLE slug_history IS
    'The slugs that a tenant has and had. While reserved is true, until it is deprovisioned, no other tenant gets one.';
