-- The accepted content of modules, so that a changed file, a version that goes back and another schema are found after a
-- restart too. The files themselves are in the module's source.

CREATE TABLE modules (
    name text PRIMARY KEY,
    -- The schema of the module's objects in the tenants' databases.
    schema_name text NOT NULL,
    -- The version that tenants are brought to.
    version integer NOT NULL CHECK (version > 0),
    -- Of files, schema and extensions.
    digest text NOT NULL,
    -- The report of the last rehearsal.
    rehearsal jsonb,
    accepted_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE module_files (
    module text NOT NULL REFERENCES modules ON DELETE CASCADE,
    version integer NOT NULL CHECK (version > 0),
    file text NOT NULL,
    checksum bytea NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (module, version)
);
