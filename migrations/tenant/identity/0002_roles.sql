-- Roles and permissions, and who has which.
CREATE TABLE public.roles (
    id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name        text        NOT NULL UNIQUE CHECK (name <> ''),
    description text        NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE public.permissions (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name        text NOT NULL UNIQUE CHECK (name <> ''),
    description text NOT NULL DEFAULT ''
);

CREATE TABLE public.user_roles (
    user_id    uuid        NOT NULL REFERENCES public.users ON DELETE CASCADE,
    role_id    uuid        NOT NULL REFERENCES public.roles ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, role_id)
);

CREATE INDEX user_roles_by_role ON public.user_roles (role_id);

CREATE TABLE public.role_permissions (
    role_id       uuid NOT NULL REFERENCES public.roles ON DELETE CASCADE,
    permission_id uuid NOT NULL REFERENCES public.permissions ON DELETE CASCADE,
    PRIMARY KEY (role_id, permission_id)
);

CREATE INDEX role_permissions_by_permission ON public.role_permissions (permission_id);

INSERT INTO public.roles (name, description) VALUES
    ('admin', 'Everything, users and their roles included'),
    ('member', 'Daily work'),
    ('viewer', 'Looks, changes nothing');

INSERT INTO public.permissions (name, description) VALUES
    ('users.read', 'See users'),
    ('users.write', 'Invite, change and remove users'),
    ('roles.read', 'See roles and who has them'),
    ('roles.write', 'Change roles and who has them'),
    ('settings.read', 'See settings'),
    ('settings.write', 'Change settings'),
    ('activity.read', 'See the activity log'),
    ('content.read', 'See what the application holds'),
    ('content.write', 'Change what the application holds');

INSERT INTO public.role_permissions (role_id, permission_id)
SELECT r.id, p.id
FROM public.roles r
JOIN public.permissions p ON r.name = 'admin'
    OR (r.name = 'member' AND p.name IN ('users.read', 'settings.read', 'activity.read', 'content.read', 'content.write'))
    OR (r.name = 'viewer' AND p.name IN ('users.read', 'settings.read', 'content.read'));
