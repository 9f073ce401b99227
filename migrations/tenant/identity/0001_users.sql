-- Users. An e-mail address alone makes one.
CREATE TABLE public.users (
    id                uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    email             text        NOT NULL UNIQUE
                                  CHECK (email = lower(email) AND email LIKE '_%@_%' AND length(email) <= 254),
    name              text        NOT NULL DEFAULT '',
    email_verified_at timestamptz,
    is_demo           boolean     NOT NULL DEFAULT false,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);

COMMENT ON COLUMN public.users.is_demo IS 'Part of the demo data: not a real person.';

CREATE TRIGGER touch BEFORE UPDATE ON public.users
    FOR EACH ROW WHEN (NEW IS DISTINCT FROM OLD) EXECUTE FUNCTION tenantry.touch();
