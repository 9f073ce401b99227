-- Who changed a tenant: what its Tenant declared when its changes were last recorded, and up to which generation of the
-- Tenant's spec its state and its entitlements account for.

ALTER TABLE tenants
    -- The Tenant's uid, its generation and its spec; of settings and admins, digests. Absent: no change was recorded yet.
    ADD COLUMN declaration jsonb,
    ADD COLUMN status_generation bigint,
    ADD COLUMN entitlements_generation bigint,
    -- Who changed the holds, until the state that follows from that is recorded.
    ADD COLUMN holds_changed_by text,
    -- Who placed each hold, by its name, with the hold's time: one that another release placed has none. Apart from the
    -- holds, which a release before this one compares as a whole.
    ADD COLUMN hold_actors jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(hold_actors) = 'object');
