-- What a customer's administrator changed in the TenantAccount, and which plan was granted for it. It survives the object,
-- which is created again with it. Null: the tenant never had one.

ALTER TABLE tenants ADD COLUMN account jsonb CHECK (jsonb_typeof(account) = 'object');
