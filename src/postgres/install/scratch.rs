//! Scratch databases: a clone of a template, in which a module is rehearsed. Only `tenantry_migrator` and the operator may
//! connect, and it is dropped at the end.

use crate::{
    modules::ModuleSet,
    postgres::{
        catalog::ownership,
        error::Result,
        identifier::{DBA, Ident, Literal, MIGRATOR, Script},
        server::Server,
    },
};

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
        .then("GRANT CONNECT ON DATABASE {} TO {}", &[&scratch, &MIGRATOR])
        .then("ALTER DATABASE {} ALLOW_CONNECTIONS true", &[&scratch]);
        self.run("open the scratch database", &open).await?;
        Ok(scratch)
    }
}
