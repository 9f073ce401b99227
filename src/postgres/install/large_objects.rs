//! Large objects: a tenant's login must own nothing, but PUBLIC may create them, in every database. The functions belong
//! to the superuser of initdb, so that only a superuser can revoke them, in each database; a clone has the rights of its
//! template.

/// Whether PUBLIC may call none of the functions that write large objects, in the current database. (By default, only
/// superusers may call `lo_import` and `lo_export`.)
pub(super) const WRITERS_ARE_CLOSED: &str = "\
SELECT NOT EXISTS (
    SELECT FROM pg_proc AS p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')
      AND p.proname IN ('lo_creat', 'lo_create', 'lo_export', 'lo_from_bytea', 'lo_import', 'lo_put', 'lo_truncate',
                        'lo_truncate64', 'lo_unlink', 'lowrite'))";

/// Revokes them, within a block.
pub(super) const REVOKE_WRITERS: &str = "\
EXECUTE (
            SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', string_agg(p.oid::regprocedure::text, ', '))
            FROM pg_proc AS p
            WHERE p.pronamespace = 'pg_catalog'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')
              AND p.proname IN ('lo_creat', 'lo_create', 'lo_export', 'lo_from_bytea', 'lo_import', 'lo_put',
                                'lo_truncate', 'lo_truncate64', 'lo_unlink', 'lowrite'))";
