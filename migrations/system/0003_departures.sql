-- Which PostgreSQL server a DatabaseServer's name stands for: what is not found on another one is not gone.

CREATE TABLE servers (
    name text PRIMARY KEY,
    -- pg_control_system().system_identifier: the same after a failover and after a restore, another after initdb.
    system_identifier text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);

-- Who has led. A process that was frozen can have sessions on a server that no leader after it could reach: whoever
-- reaches it first ends the sessions of all of them.
CREATE TABLE leaders (
    identity text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now()
);
