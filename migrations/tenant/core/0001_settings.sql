-- The tenant's settings, as its application uses them: those of the Tenant resource (0004), and its own beside them.
--
-- Until this file was corrected, it also made what every database now has from the module tenantry.
-- replaces: 80aadc9e4914eb416ceb62ce67430cad560379f17e9eb3adf72447c349847ec9
CREATE TABLE public.settings (
    key        text        PRIMARY KEY CHECK (key <> '' AND length(key) <= 253),
    value      jsonb       NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER touch BEFORE UPDATE ON public.settings
    FOR EACH ROW WHEN (NEW IS DISTINCT FROM OLD) EXECUTE FUNCTION tenantry.touch();
