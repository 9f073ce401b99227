-- How far each server had come: one that is found in an older state, or on another timeline, was restored or failed over,
-- also while no operator ran.

ALTER TABLE servers
    -- The next transaction id when the server was last read, at most some minutes ago while an operator runs.
    ADD COLUMN last_transaction bigint,
    -- pg_control_checkpoint().timeline_id: another one after a failover, and after a restore to a point in time.
    ADD COLUMN timeline bigint;
