-- The login that an adopted database's application had before, which stays valid until a date. It is the tenant's previous login;
-- a role that existed before the tenant is ended at this time, whatever the overlap, and never dropped.

ALTER TABLE tenants ADD COLUMN previous_login_until timestamptz;
