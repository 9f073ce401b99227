//! The SQL that every tenant database starts with, before any module.

/// What `tenantry_owner` prepares in a new database before any module: default privileges on the objects that it
/// creates, and the migration ledger. No group gets TRUNCATE. (EXECUTE is revoked from PUBLIC in the global form:
/// `IN SCHEMA` has no effect.)
pub const BOOTSTRAP: &str = "\
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tenantry_rw;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public GRANT SELECT, DELETE ON TABLES TO tenantry_shrink;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public GRANT SELECT ON TABLES TO tenantry_ro;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public
    GRANT SELECT, USAGE, UPDATE ON SEQUENCES TO tenantry_rw;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public
    GRANT SELECT ON SEQUENCES TO tenantry_shrink, tenantry_ro;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO tenantry_rw;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA tenantry
    GRANT SELECT ON TABLES TO tenantry_rw, tenantry_shrink, tenantry_ro;
CREATE TABLE tenantry.migrations (
    module     text        NOT NULL,
    version    integer     NOT NULL,
    file       text        NOT NULL,
    checksum   bytea       NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (module, version)
)";
