-- Runs of applications' own migration tools, so that a run survives a restart of the operator, and its migration login does
-- not outlive it: what is here goes on or is wound up, and a login of any other run is taken away.

CREATE TABLE migration_runs (
    run uuid PRIMARY KEY,
    -- None: a template that is being built. One tool at a time changes a tenant's database.
    tenant_id uuid UNIQUE,
    -- The database, the module and its version, when its Job was created, and how it ended.
    detail jsonb NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now()
);
