-- Which releases may run on this schema. Migrations expand; a migration that takes away what an earlier release needs
-- calls require_release.

CREATE TABLE schema_compatibility (
    -- A release must have this migration, or a later one.
    oldest bigint NOT NULL,
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);
INSERT INTO schema_compatibility (oldest) VALUES (8);

-- Releases whose last migration is 0008 or earlier know nothing of this number. They refuse a registry with an unknown
-- migration in _sqlx_migrations, in which later ones are not recorded: this function records one there.
CREATE FUNCTION require_release(migration bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
    UPDATE public.schema_compatibility SET oldest = greatest(oldest, migration);
    INSERT INTO public._sqlx_migrations (version, description, success, checksum, execution_time)
    VALUES (migration, 'needs a later release', true, '', 0) ON CONFLICT DO NOTHING;
$$;
