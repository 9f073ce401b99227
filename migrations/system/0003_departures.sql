-- Which PostgreSQL server a DatabaseServer's name stands for: what is not found on another one is not gone.

CREATE TABLE servers (
    name text PRIMARY KEY,
    -- pg_control_system().system_identifier: the same after a failover and after a restore, another after initdb.
    system_identifier text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
