-- Logins of support accesses read every column but those that are marked like this.
COMMENT ON COLUMN public.user_credentials.secret_hash IS 'tenantry:secret: argon2id, or SHA-256 of a token';
