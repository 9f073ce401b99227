-- The rotation of a tenant's credentials: a tenant has two logins in turn. login_name is the one whose password is published;
-- previous_login is the one before it, until its time is over. Of tenants from before this migration, the age of the password is
-- not known.

ALTER TABLE tenants
    ADD COLUMN previous_login text CHECK (octet_length(previous_login) <= 63),
    ADD COLUMN previous_login_oid bigint,
    -- With it, the previous login gets its password again after a suspension.
    ADD COLUMN previous_verifier text CHECK (previous_verifier LIKE 'SCRAM-SHA-256$%'),
    -- When the credentials after it were published: until then it has no end.
    ADD COLUMN previous_login_since timestamptz,
    ADD COLUMN credentials_issued_at timestamptz,
    -- The value of the annotation that the password answers.
    ADD COLUMN rotation_request text,
    ADD CONSTRAINT one_login_is_not_the_other CHECK (previous_login <> login_name),
    ADD CONSTRAINT previous_login_has_a_name CHECK (
        previous_login IS NOT NULL
        OR previous_login_oid IS NULL AND previous_verifier IS NULL AND previous_login_since IS NULL);
