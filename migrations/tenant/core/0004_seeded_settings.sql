-- The settings of the Tenant resource arrive in the table: its keys get its values. A key that it dropped is deleted,
-- unless the application has changed the value; a key that it never had is the application's.
CREATE FUNCTION public.core_apply_settings(wanted jsonb, earlier jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM settings s USING jsonb_each(earlier) e
    WHERE s.key = e.key AND s.value = e.value AND NOT wanted ? e.key;
    INSERT INTO settings AS s (key, value) SELECT w.key, w.value FROM jsonb_each(wanted) w
    ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE s.value IS DISTINCT FROM excluded.value;
END
$$;

CREATE FUNCTION public.core_demo() RETURNS void LANGUAGE sql AS $$
    INSERT INTO activity_log (action, entity_type, details) VALUES ('demo.seeded', 'demo', '{"demo": true}')
$$;

SELECT tenantry.on_demo('public.core_demo');

-- In a database of the release before, the table has them, and what the application has changed since stays.
SELECT CASE
    WHEN EXISTS (
        SELECT FROM tenantry.migrations m
        WHERE m.module = 'core' AND m.version = 1
            AND m.checksum = '\x80aadc9e4914eb416ceb62ce67430cad560379f17e9eb3adf72447c349847ec9')
    THEN tenantry.register('settings', 'public.core_apply_settings') IS NULL
    ELSE tenantry.on_settings('public.core_apply_settings') IS NULL
END;

-- After a rollback, the release before finds its own files in the ledger: together with the module tenantry, the corrected
-- ones give the same result.
UPDATE tenantry.migrations SET checksum = CASE version
    WHEN 1 THEN '\x80aadc9e4914eb416ceb62ce67430cad560379f17e9eb3adf72447c349847ec9'::bytea
    ELSE '\x9bb200cde591dccad3b393c1ffe33f19545038bc2612f5765a74ce0548339e07'
END
WHERE module = 'core' AND version IN (1, 3);
