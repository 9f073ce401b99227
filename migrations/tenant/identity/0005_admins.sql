-- The admins of the Tenant resource are users with the role admin, and their one-time credentials are among those of all
-- users. One who has used a credential, has one from the application, or has a verified address needs no other: it would
-- be a second key to the account.
CREATE FUNCTION public.identity_seed_admin(admin jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    address text := admin ->> 'email';
    wanted  text := admin ->> 'hash';
    account users;
BEGIN
    IF NOT (admin ->> 'removed')::boolean AND NOT (admin ->> 'renewal')::boolean THEN
        INSERT INTO users AS u (email, name) VALUES (address, admin ->> 'name')
        ON CONFLICT (email) DO UPDATE SET name = CASE WHEN excluded.name = '' THEN u.name ELSE excluded.name END;
        INSERT INTO user_roles (user_id, role_id)
        SELECT u.id, r.id FROM users u CROSS JOIN roles r WHERE u.email = address AND r.name = 'admin'
        ON CONFLICT DO NOTHING;
    END IF;
    SELECT * INTO account FROM users u WHERE u.email = address;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE user_credentials c SET revoked_at = now()
    WHERE c.user_id = account.id AND c.issued_by = 'tenantry' AND c.used_at IS NULL AND c.revoked_at IS NULL
        AND ((admin ->> 'removed')::boolean OR c.secret_hash <> wanted);
    IF (admin ->> 'removed')::boolean OR account.email_verified_at IS NOT NULL OR EXISTS (
        SELECT FROM user_credentials c
        WHERE c.user_id = account.id AND (c.used_at IS NOT NULL OR c.issued_by <> 'tenantry'))
    THEN
        RETURN false;
    END IF;
    IF wanted IS NULL THEN
        RETURN true;
    END IF;
    -- One that was offered before is valid again.
    UPDATE user_credentials c SET revoked_at = NULL, expires_at = (admin ->> 'expiresAt')::timestamptz
    WHERE c.user_id = account.id AND c.kind = admin ->> 'kind' AND c.secret_hash = wanted;
    IF NOT FOUND THEN
        INSERT INTO user_credentials (user_id, kind, secret_hash, issued_by, expires_at)
        VALUES (account.id, admin ->> 'kind', wanted, 'tenantry', (admin ->> 'expiresAt')::timestamptz);
    END IF;
    RETURN true;
END
$$;

CREATE FUNCTION public.identity_demo() RETURNS void LANGUAGE sql AS $$
    WITH people AS (
        INSERT INTO users (email, name, is_demo, email_verified_at)
        VALUES ('ada@demo.example', 'Ada (demo)', true, now()), ('grace@demo.example', 'Grace (demo)', true, now())
        ON CONFLICT (email) DO NOTHING RETURNING id)
    INSERT INTO user_roles (user_id, role_id)
    SELECT people.id, r.id FROM people CROSS JOIN roles r WHERE r.name = 'member' ON CONFLICT DO NOTHING
$$;

SELECT tenantry.on_admin('public.identity_seed_admin', keeps_credential => true);
SELECT tenantry.on_demo('public.identity_demo');

-- The admins of a database of the release before, which has them here alone. Their accounts stay as they are: this comes
-- after the function was registered, which calls it for those that there are.
INSERT INTO tenantry.admins (email, name, credential, expires_at, used_at)
SELECT u.email, u.name, (array_agg(c.kind ORDER BY c.id DESC))[1], max(c.expires_at), max(c.used_at)
FROM users u JOIN user_credentials c ON c.user_id = u.id
WHERE c.issued_by = 'tenantry'
GROUP BY u.email, u.name
ON CONFLICT DO NOTHING;
