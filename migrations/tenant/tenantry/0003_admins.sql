-- The admins and the settings of the Tenant resource, and how they reach the application's own tables: by functions that
-- a module registers here, and that are called in the transaction of the seed.

-- Who is or was an admin of the tenant. The token is a random text that only the admin has been sent; `token_hash` is its
-- SHA-256, as long as it can be redeemed.
CREATE TABLE tenantry.admins (
    email      text        PRIMARY KEY,
    name       text        NOT NULL DEFAULT '',
    credential text        CHECK (credential IN ('reset_token', 'one_time_password')),
    token_hash bytea       UNIQUE,
    expires_at timestamptz,
    used_at    timestamptz,
    removed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (token_hash IS NULL OR (credential IS NOT NULL AND expires_at IS NOT NULL))
);

COMMENT ON TABLE tenantry.admins IS 'The admins of the Tenant resource; tenantry.redeem(token) is the way to use a token';

-- Returns whose token it is, and nothing for one that is unknown, used, revoked or expired. What is looked up is the hash:
-- how long that takes says nothing about any other token. The token counts as used when the transaction commits;
-- of two that redeem it at the same time, one gets the admin.
CREATE FUNCTION tenantry.redeem(token text) RETURNS TABLE (email text, name text)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE tenantry.admins AS a SET used_at = clock_timestamp(), token_hash = NULL
    WHERE a.token_hash = sha256(convert_to(left($1, 1000), 'UTF8'))
        AND a.expires_at > clock_timestamp() AND a.used_at IS NULL AND a.removed_at IS NULL
    RETURNING a.email, a.name
$$;

GRANT EXECUTE ON FUNCTION tenantry.redeem(text) TO tenantry_rw;

CREATE VIEW tenantry.settings AS SELECT m.key, m.value FROM tenantry.mirrored_settings m;

COMMENT ON VIEW tenantry.settings IS
    'For the application, which cannot change them: the settings of the Tenant resource, one row for each key';

-- What modules have registered, by name: a module may drop a function and create it again.
CREATE TABLE tenantry.registered_functions (
    event            text    NOT NULL CHECK (event IN ('admin', 'settings', 'demo')),
    schema           text    NOT NULL,
    function         text    NOT NULL,
    module           text,
    keeps_credential boolean NOT NULL DEFAULT false,
    position         bigint  NOT NULL,
    PRIMARY KEY (event, schema, function)
);

-- A registered function. It must be tenantry_owner's: another owner could change what it does with the rights of
-- tenantry_owner, which calls it.
CREATE FUNCTION tenantry.find_function(event text, schema text, function text) RETURNS pg_proc LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    arguments text := CASE event WHEN 'admin' THEN 'jsonb' WHEN 'settings' THEN 'jsonb, jsonb' ELSE '' END;
    full_name text := format('%I.%I(%s)', schema, function, arguments);
    proc      pg_proc;
BEGIN
    SELECT p.* INTO proc FROM pg_proc p WHERE p.oid = to_regprocedure(full_name);
    IF NOT FOUND THEN
        RAISE EXCEPTION '% does not exist', full_name USING ERRCODE = 'undefined_function';
    END IF;
    IF proc.prokind <> 'f' OR proc.proretset
        OR NOT (proc.prorettype = 'void'::regtype OR (event = 'admin' AND proc.prorettype = 'boolean'::regtype))
    THEN
        RAISE EXCEPTION '% must be a function that returns %', full_name,
            CASE event WHEN 'admin' THEN 'void or boolean' ELSE 'void' END
            USING ERRCODE = 'wrong_object_type';
    END IF;
    IF proc.proowner <> 'tenantry_owner'::regrole THEN
        RAISE EXCEPTION '% belongs to %: it must belong to tenantry_owner', full_name, proc.proowner::regrole
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN proc;
END
$$;

-- Calls a registered function, with its own schema as the search_path. An error names the function and its module; that of
-- a limit stays as it is.
CREATE FUNCTION tenantry.call(registered tenantry.registered_functions, first jsonb, second jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    full_name text := format('%I.%I', registered.schema, registered.function);
    caller    text := current_user;
    answer    boolean;
    proc      pg_proc;
    state     text;
    message   text;
    detail    text;
    hint      text;
    context   text;
BEGIN
    proc := tenantry.find_function(registered.event, registered.schema, registered.function);
    PERFORM set_config('search_path', format('%I, pg_temp', registered.schema), true);
    IF registered.event = 'settings' THEN
        EXECUTE format('SELECT %s($1, $2)', full_name) USING first, second;
    ELSIF registered.event = 'demo' THEN
        EXECUTE format('SELECT %s()', full_name);
    ELSIF proc.prorettype = 'void'::regtype THEN
        EXECUTE format('SELECT %s($1)', full_name) USING first;
    ELSE
        EXECUTE format('SELECT %s($1)', full_name) INTO answer USING first;
    END IF;
    IF current_user <> caller THEN
        RAISE EXCEPTION 'it left its caller as the role %', current_user USING ERRCODE = 'invalid_role_specification';
    END IF;
    RETURN answer;
EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
        hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
    IF state = 'TNLIM' THEN
        RAISE;
    END IF;
    RAISE EXCEPTION USING ERRCODE = state, MESSAGE = concat(
        'function ', full_name, ' of module ' || registered.module, ': ', message, ' (' || nullif(detail, '') || ')',
        ' (' || nullif(hint, '') || ')', ' (' || substring(context FROM 'PL/pgSQL function (?!tenantry\.)[^\n]*') || ')');
END
$$;

-- For a module's migration, on behalf of those below. The engine says which module it is applying.
CREATE FUNCTION tenantry.register(event text, function text, keeps_credential boolean DEFAULT false)
RETURNS tenantry.registered_functions LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    parts      text[] := parse_ident(register.function);
    registered tenantry.registered_functions;
BEGIN
    IF cardinality(parts) <> 2 THEN
        RAISE EXCEPTION 'name the function with its schema, such as app.%, not %', parts[cardinality(parts)],
            quote_literal(register.function);
    END IF;
    PERFORM tenantry.find_function(register.event, parts[1], parts[2]);
    INSERT INTO tenantry.registered_functions AS r (event, schema, function, module, keeps_credential, position)
    SELECT register.event, parts[1], parts[2], nullif(current_setting('tenantry.module', true), ''),
        register.keeps_credential, coalesce(max(o.position), 0) + 1 FROM tenantry.registered_functions o
    ON CONFLICT ON CONSTRAINT registered_functions_pkey
        DO UPDATE SET module = excluded.module, keeps_credential = excluded.keeps_credential
    RETURNING r.* INTO registered;
    RETURN registered;
END
$$;

-- For a module's migration: `function(admin jsonb)` is called for each admin of the Tenant resource, and again whenever
-- the admins are seeded. The object has `email`, `name` ('' where none is given), `removed` (true once, for one who is no
-- longer named) and `renewal` (true: only the credential is new, the account stays as the application has it; a function
-- that returns void is then not called). A function that returns boolean says by false that this admin needs no
-- credential, because the account is in use. With `keeps_credential` it stores the credential itself, and none is in
-- tenantry.admins: the object also has `kind` (reset_token or one_time_password), `hash` (SHA-256 in hexadecimal, or
-- argon2id) and `expiresAt`, which are null where no new credential is offered.
--
-- It is called at once for the admins that there are, as when a module is added to a tenant.
CREATE FUNCTION tenantry.on_admin(function text, keeps_credential boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    registered tenantry.registered_functions := tenantry.register('admin', function, keeps_credential);
BEGIN
    PERFORM tenantry.call(registered, jsonb_build_object('email', a.email, 'name', a.name, 'removed', false,
        'renewal', false, 'kind', NULL, 'hash', NULL, 'expiresAt', NULL), NULL)
    FROM (SELECT * FROM tenantry.admins o WHERE o.removed_at IS NULL ORDER BY o.email) a;
END
$$;

-- For a module's migration: `function(settings jsonb, earlier jsonb)`, which returns void, is called with the settings of
-- the Tenant resource, and with those of the call before, whenever they are seeded, and at once with those that there are.
CREATE FUNCTION tenantry.on_settings(function text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    registered tenantry.registered_functions := tenantry.register('settings', function);
    settings   jsonb := (SELECT jsonb_object_agg(m.key, m.value) FROM tenantry.mirrored_settings m);
BEGIN
    IF settings IS NOT NULL THEN
        PERFORM tenantry.call(registered, settings, '{}');
    END IF;
END
$$;

-- For a module's migration: `function()`, which returns void, is called once, for a Tenant resource with `demoData`.
CREATE FUNCTION tenantry.on_demo(function text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tenantry.register('demo', function);
END
$$;

-- For a module's migration: the function is not called any more, for whatever it was registered.
CREATE FUNCTION tenantry.off(function text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- In PL/pgSQL, because a rehearsal knows by the call stack that this is no statement of the module.
    DELETE FROM tenantry.registered_functions r WHERE ARRAY[r.schema, r.function] = parse_ident(off.function);
END
$$;

-- For the operator: the settings of the Tenant resource, all of them.
CREATE FUNCTION tenantry.seed_settings(settings jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    earlier    jsonb := (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}') FROM tenantry.mirrored_settings m);
    registered tenantry.registered_functions;
BEGIN
    DELETE FROM tenantry.mirrored_settings m WHERE NOT settings ? m.key;
    INSERT INTO tenantry.mirrored_settings AS m (key, value) SELECT s.key, s.value FROM jsonb_each(settings) s
    ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE m.value IS DISTINCT FROM excluded.value;
    FOR registered IN SELECT * FROM tenantry.registered_functions r WHERE r.event = 'settings' ORDER BY r.position LOOP
        PERFORM tenantry.call(registered, settings, earlier);
    END LOOP;
END
$$;

-- For the operator: the admins of the Tenant resource, all of them, each with the credential that it may be offered
-- (`email`, `name`, `kind`, `hash`, `expires_at`, and `token_hash`, the SHA-256 in hexadecimal); then demo data. Returns
-- who was offered theirs (`offered`), and the usage (`usage`). Who has used a credential is offered no other: it would be
-- a second key to the account.
CREATE FUNCTION tenantry.seed_admins(wanted jsonb, credentials_only boolean, demo boolean) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    registered tenantry.registered_functions;
    are_kept   boolean := EXISTS (
        SELECT FROM tenantry.registered_functions r WHERE r.event = 'admin' AND r.keeps_credential);
    admin      record;
    known      tenantry.admins;
    details    jsonb;
    offers     boolean;
    offered    jsonb := '[]';
BEGIN
    FOR admin IN
        SELECT coalesce(w.email, a.email) AS email, coalesce(w.name, '') AS name, w.kind, w.hash, w.expires_at,
            decode(w.token_hash, 'hex') AS token_hash, w.email IS NULL AS removed
        FROM jsonb_to_recordset(wanted)
            AS w (email text, name text, kind text, hash text, token_hash text, expires_at timestamptz)
        FULL JOIN (SELECT o.email FROM tenantry.admins o WHERE o.removed_at IS NULL) a ON a.email = w.email
        -- A token that is taken from one may be given to another.
        ORDER BY w.email IS NOT NULL, 1
    LOOP
        INSERT INTO tenantry.admins AS a (email, name) VALUES (admin.email, admin.name)
        ON CONFLICT (email) DO UPDATE SET
            removed_at = CASE WHEN admin.removed THEN now() END,
            name = CASE WHEN excluded.name = '' OR credentials_only THEN a.name ELSE excluded.name END
        RETURNING a.* INTO known;
        offers := NOT admin.removed AND (are_kept OR known.used_at IS NULL);
        details := jsonb_build_object('email', admin.email, 'name', admin.name, 'removed', admin.removed,
            'renewal', credentials_only AND NOT admin.removed);
        FOR registered IN
            SELECT r.* FROM tenantry.registered_functions r WHERE r.event = 'admin' ORDER BY r.position
        LOOP
            CONTINUE WHEN credentials_only AND NOT admin.removed AND (tenantry.find_function(
                registered.event, registered.schema, registered.function)).prorettype = 'void'::regtype;
            offers := coalesce(tenantry.call(registered, details || CASE WHEN registered.keeps_credential
                THEN jsonb_build_object('kind', admin.kind, 'hash', admin.hash, 'expiresAt', admin.expires_at)
                ELSE '{}' END, NULL), true) AND offers;
        END LOOP;
        UPDATE tenantry.admins a SET
            credential = CASE WHEN offers THEN admin.kind ELSE a.credential END,
            expires_at = CASE WHEN offers THEN admin.expires_at ELSE a.expires_at END,
            token_hash = CASE WHEN offers AND NOT are_kept THEN admin.token_hash END
        WHERE a.email = admin.email;
        IF offers THEN
            offered := offered || to_jsonb(admin.email);
        END IF;
    END LOOP;
    IF demo AND NOT credentials_only THEN
        INSERT INTO tenantry.seeds (name) VALUES ('demo') ON CONFLICT DO NOTHING;
        IF FOUND THEN
            FOR registered IN
                SELECT r.* FROM tenantry.registered_functions r WHERE r.event = 'demo' ORDER BY r.position
            LOOP
                PERFORM tenantry.call(registered, NULL, NULL);
            END LOOP;
        END IF;
    END IF;
    RETURN jsonb_build_object('offered', offered, 'usage',
        (SELECT coalesce(jsonb_object_agg(c.name, c.used), '{}') FROM tenantry.counters c));
END
$$;
