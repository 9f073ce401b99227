//! The versions of modules whose migrations a tool applies: they have names, and the ledger has them once the tool of a run
//! has succeeded, or once a pipeline has reported them.

use sqlx::PgConnection;

use super::awaited::{Applied, Awaited};
use crate::{
    modules::{Migration, Module, ModuleKind},
    postgres::{
        error::Result,
        session::connect::{STATEMENT_LIMIT, with_timeout},
    },
};

/// What a timeout is reported with.
pub(in crate::postgres) const DOING: &str = "record the version of a tool";

/// What the module waits for; none if the database has its version. A version that was reported is recorded.
pub(super) async fn bring(
    session: &mut PgConnection,
    module: &Module,
    ledger: &[Applied],
) -> Result<Option<Awaited>> {
    let Some(wanted) = module.migrations.last() else { return Ok(None) };
    if ledger.iter().any(|(name, version, _)| *name == module.name && *version >= wanted.version) {
        return Ok(None);
    }
    if module.kind == ModuleKind::Job {
        return Ok(Some(Awaited::Run));
    }
    let query = sqlx::query_scalar("SELECT version FROM tenantry.reported_versions WHERE module = $1")
        .bind(module.name.as_ref())
        .fetch_optional(&mut *session);
    let reported: Option<String> = with_timeout(STATEMENT_LIMIT, "read the reported versions", query).await?;
    if reported.as_deref() != Some(&*wanted.file) {
        return Ok(Some(Awaited::Report { reported }));
    }
    record(session, &module.name, wanted).await?;
    Ok(None)
}

/// Records that the database has a version.
pub(in crate::postgres) async fn record(
    session: &mut PgConnection,
    module: &str,
    version: &Migration,
) -> Result<()> {
    let query = sqlx::query(
        "INSERT INTO tenantry.migrations (module, version, file, checksum) VALUES ($1, $2, $3, $4)
         ON CONFLICT (module, version) DO NOTHING",
    )
    .bind(module)
    .bind(version.version)
    .bind(version.file.as_ref())
    .bind(version.checksum())
    .execute(&mut *session);
    with_timeout(STATEMENT_LIMIT, DOING, query).await.map(drop)
}
