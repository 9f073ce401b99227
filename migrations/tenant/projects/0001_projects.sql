-- Projects: an example of a module with a limit of its own. Those that are archived do not count.
CREATE TABLE public.projects (
    id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name        text        NOT NULL CHECK (name <> ''),
    owner_id    uuid        REFERENCES public.users ON DELETE SET NULL,
    archived_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX projects_by_owner ON public.projects (owner_id);

CREATE TRIGGER touch BEFORE UPDATE ON public.projects
    FOR EACH ROW WHEN (NEW IS DISTINCT FROM OLD) EXECUTE FUNCTION tenantry.touch();

SELECT tenantry.meter('projects', 'public.projects', 'archived_at IS NULL');
