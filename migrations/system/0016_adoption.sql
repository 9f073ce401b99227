-- Databases that existed before their tenant. Until the tenant is active, an undo gives them back; they are never dropped.

ALTER TABLE tenants
    -- Absent: the tenant's database is created. `pending`: it was confirmed, and is not complete. `done`: it is the tenant's.
    ADD COLUMN takeover text CHECK (takeover IN ('pending', 'done')),
    -- What the database was before: its owner, who had rights on it, and the owners of its objects. Written before anything is
    -- changed there.
    ADD COLUMN taken_over_from jsonb;
