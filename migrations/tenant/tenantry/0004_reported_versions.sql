-- What a pipeline of the team's own has brought this database to: for modules whose migrations Tenantry does not apply.

CREATE TABLE tenantry.reported_versions (
    module      text        PRIMARY KEY CHECK (module ~ '^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$'),
    version     text        NOT NULL CHECK (version ~ '^[[:graph:]]{1,63}$'),
    reported_at timestamptz NOT NULL DEFAULT now(),
    reported_by name        NOT NULL DEFAULT session_user
);

-- Called last, in the migration login's session, and in the migration's own transaction where it has one: then the version
-- is reported if and only if the migration is there. No other login may: the file of a module has a version already.
CREATE FUNCTION tenantry.report_version(module text, version text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NOT starts_with(coalesce(shobj_description(quote_ident(session_user)::regrole, 'pg_authid'), ''), 'tenantry:migration:') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = format('%s may not report a version', quote_ident(session_user)),
            HINT = 'Connect with the migration login, from the Secret that the TenantModule names.';
    END IF;
    IF report_version.module IS NULL OR report_version.module !~ '^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$' THEN
        RAISE EXCEPTION 'the first argument must be the name of a TenantModule, as in billing, not %',
            quote_nullable(report_version.module);
    END IF;
    IF report_version.version IS NULL OR report_version.version !~ '^[[:graph:]]{1,63}$' THEN
        RAISE EXCEPTION 'the second argument must be a version of 1 to 63 characters without spaces, as in 2026.11.3, not %',
            quote_nullable(report_version.version);
    END IF;
    INSERT INTO tenantry.reported_versions AS r (module, version)
    VALUES (report_version.module, report_version.version)
    ON CONFLICT (module) DO UPDATE SET version = excluded.version, reported_at = now(), reported_by = session_user;
END
$$;
