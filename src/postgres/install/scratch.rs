//! Scratch databases: a clone of a template, in which a module is rehearsed. Only the operator may
//! connect, and it is dropped at the end.

use crate::{
    modules::ModuleSet,
    postgres::{
        catalog::ownership,
        error::Result,
        identifier::{DBA, Ident, Literal, Script},
        server::Server,
        session::connect::{ANSWER_LIMIT, with_timeout},
    },
};

/// A crash between CREATE DATABASE and COMMENT leaves one without a comment, and without connections.
const FIND: &str = "\
SELECT d.datname::text FROM pg_database AS d
WHERE pg_get_userbyid(d.datdba) = 'tenantry_dba' AND d.datname ~ '^tenantry_scratch_[0-9a-f]{24}$'
  AND coalesce(shobj_description(d.oid, 'pg_database') = replace(d.datname, 'tenantry_scratch_', 'tenantry:scratch:'),
               NOT d.datallowconn)
ORDER BY 1";

impl Server {
    /// Clones the template of a set, instead of what an interrupted rehearsal left. The caller holds the lock for scratch
    /// databases.
    pub(super) async fn create_scratch(&self, before: &ModuleSet, digest: &str) -> Result<Ident> {
        let template = Ident::new(&self.ensure_template(before).await?)?;
        let scratch = Ident::scratch(digest)?;
        self.drop_named(&scratch).await?;
        let create = Script::of(
            "CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY wal_log ALLOW_CONNECTIONS false",
            &[&scratch, &DBA, &template],
        );
        self.run("create the scratch database", &create).await?;
        let open = Script::of(
            "COMMENT ON DATABASE {} IS {}",
            &[&scratch, &Literal::new(&ownership::scratch(digest))?],
        )
        .then("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[&scratch])
        .then("ALTER DATABASE {} ALLOW_CONNECTIONS true", &[&scratch]);
        self.run("open the scratch database", &open).await?;
        Ok(scratch)
    }

    /// Drops the scratch databases that interrupted rehearsals left; none while this process rehearses a module there. Only a
    /// database of the operator's, whose comment and name agree on the digest, is one (or one that has no comment yet). Returns their names.
    pub async fn drop_old_scratch(&self) -> Result<Vec<String>> {
        let Ok(_one) = self.inner.scratch_lock.try_lock() else { return Ok(Vec::new()) };
        let mut session = self.admin().await?;
        let query = sqlx::query_scalar::<_, String>(FIND).fetch_all(&mut *session);
        let found = with_timeout(ANSWER_LIMIT, "read the scratch databases", query).await?;
        session.release();
        for name in &found {
            self.drop_named(&Ident::new(name)?).await?;
        }
        Ok(found)
    }
}
