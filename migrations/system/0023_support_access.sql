-- Support accesses: who may read the data of which tenant, why and until when. A row is recorded before the login is made,
-- and stays when both are gone. The id is the uid of the SupportAccess.

CREATE TABLE support_accesses (
    id               uuid        PRIMARY KEY,
    tenant_id        uuid        NOT NULL REFERENCES tenants,
    namespace        text        NOT NULL,
    name             text        NOT NULL,
    reason           text        NOT NULL CHECK (reason <> ''),
    duration         interval    NOT NULL CHECK (duration > '0 s' AND duration <= '8 h'),
    requires_approval boolean    NOT NULL,
    requested_by     text        NOT NULL CHECK (requested_by <> ''),
    requested_at     timestamptz NOT NULL,
    approved_by      text        CHECK (approved_by <> requested_by),
    granted_at       timestamptz,
    expires_at       timestamptz,
    server           text,
    login            text        CHECK (octet_length(login) <= 63),
    published_at     timestamptz,
    first_used_at    timestamptz,
    ended_at         timestamptz,
    end_reason       text,
    CHECK (num_nulls(granted_at, expires_at, server, login) IN (0, 4)),
    CHECK (expires_at <= granted_at + duration),
    CHECK (granted_at IS NULL OR NOT requires_approval OR approved_by IS NOT NULL),
    CHECK (granted_at IS NOT NULL OR num_nonnulls(published_at, first_used_at) = 0),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);

CREATE INDEX support_accesses_by_tenant ON support_accesses (tenant_id);
CREATE INDEX support_accesses_in_force ON support_accesses (id) WHERE granted_at IS NOT NULL AND ended_at IS NULL;
CREATE UNIQUE INDEX support_accesses_by_login ON support_accesses (server, login) WHERE ended_at IS NULL;

-- What was granted is not changed, and what has ended does not begin again.
CREATE FUNCTION support_accesses_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a support access stays on record';
    END IF;
    IF (NEW.id, NEW.tenant_id, NEW.reason, NEW.duration, NEW.requires_approval, NEW.requested_by, NEW.requested_at)
        IS DISTINCT FROM
        (OLD.id, OLD.tenant_id, OLD.reason, OLD.duration, OLD.requires_approval, OLD.requested_by, OLD.requested_at)
        OR OLD.ended_at IS NOT NULL
        OR OLD.granted_at IS NOT NULL
            AND (NEW.approved_by, NEW.granted_at, NEW.expires_at, NEW.server, NEW.login)
                IS DISTINCT FROM (OLD.approved_by, OLD.granted_at, OLD.expires_at, OLD.server, OLD.login)
    THEN
        RAISE EXCEPTION 'support access % cannot be changed: request another one', OLD.id;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON support_accesses
    FOR EACH ROW EXECUTE FUNCTION support_accesses_guard();

-- For an administrator who reads or changes a tenant's data without the operator: to be called before that. It leaves the
-- row of the activity log that no login of Tenantry would leave.
CREATE FUNCTION break_glass(slug text, who text, reason text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found uuid;
    row_id bigint;
BEGIN
    SELECT t.id INTO found FROM tenants t WHERE t.slug = break_glass.slug
    ORDER BY t.status = 'deprovisioned', t.created_at DESC LIMIT 1;
    IF found IS NULL THEN
        RAISE EXCEPTION 'no tenant has the slug %', quote_literal(break_glass.slug);
    END IF;
    IF coalesce(trim(who), '') = '' OR coalesce(trim(break_glass.reason), '') = '' THEN
        RAISE EXCEPTION 'name who does it, and why';
    END IF;
    INSERT INTO activity (tenant_id, action, actor, reason, details)
    VALUES (found, 'BreakGlass', who, break_glass.reason, jsonb_build_object('session', session_user))
    RETURNING id INTO row_id;
    RETURN row_id;
END
$$;
