-- The reader login of a tenant, by opt-in: a second login that only reads, with a Secret of its own.

ALTER TABLE tenants
    ADD COLUMN reader_login text CHECK (octet_length(reader_login) <= 63),
    ADD COLUMN reader_login_oid bigint,
    -- Both are recorded once the Secret is written and the login has its password.
    ADD COLUMN reader_verifier text CHECK (reader_verifier LIKE 'SCRAM-SHA-256$%'),
    ADD COLUMN reader_digest bytea,
    ADD COLUMN reader_issued_at timestamptz,
    ADD CONSTRAINT reader_is_another_login CHECK (reader_login <> login_name AND reader_login <> previous_login),
    ADD CONSTRAINT reader_login_has_a_name CHECK (
        reader_login IS NOT NULL
        OR reader_login_oid IS NULL AND reader_verifier IS NULL AND reader_digest IS NULL AND reader_issued_at IS NULL);
