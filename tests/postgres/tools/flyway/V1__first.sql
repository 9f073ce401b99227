CREATE EXTENSION IF NOT EXISTS citext;
CREATE TABLE users (id bigserial PRIMARY KEY, email citext NOT NULL UNIQUE);
CREATE TABLE settings (key text PRIMARY KEY, value jsonb NOT NULL);
SELECT tenantry.meter('users', 'users');
