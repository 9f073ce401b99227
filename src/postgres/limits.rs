//! What a tenant's plan gives it, as its database and its login hold it to that, and what it uses.
//!
//! Everything in the tenant's database is done as the migrator, never as `tenantry_admin`: a module could put a view in
//! the place of a table, and its functions would run with the rights of whoever reads it.

use sqlx::{PgConnection, types::Json};

use crate::domain::{
    identity::TenantId,
    limits::{Amounts, Entitlements},
};

use super::{
    connect::{STATEMENT_LIMIT, within},
    error::{Error, Result},
    identifier::{Ident, Number, Script},
    server::Server,
};

/// One statement, and so one transaction. Only rows that differ are written. The plan's row is written with every change,
/// for the meters to see that a snapshot is older.
const APPLY: &str = "\
WITH wanted AS (
    SELECT key AS name, CASE jsonb_typeof(value) WHEN 'number' THEN value::text::bigint END AS maximum
    FROM jsonb_each($1)),
gone AS (
    DELETE FROM tenantry.limits l WHERE NOT EXISTS (SELECT FROM wanted w WHERE w.name = l.name) RETURNING 1),
written AS (
    INSERT INTO tenantry.limits AS l (name, maximum) SELECT name, maximum FROM wanted
    ON CONFLICT (name) DO UPDATE SET maximum = excluded.maximum WHERE l.maximum IS DISTINCT FROM excluded.maximum
    RETURNING 1),
plan AS (
    INSERT INTO tenantry.plan AS p (name, features, sla) VALUES ($2, $3, $4)
    ON CONFLICT (singleton) DO UPDATE
    SET name = excluded.name, features = excluded.features, sla = excluded.sla, updated_at = now()
    WHERE (p.name, p.features, p.sla) IS DISTINCT FROM (excluded.name, excluded.features, excluded.sla)
        OR EXISTS (SELECT FROM gone) OR EXISTS (SELECT FROM written))
SELECT coalesce(jsonb_object_agg(name, used), '{}') FROM tenantry.counters";

const COUNTERS: &str = "SELECT coalesce(jsonb_object_agg(name, used), '{}') FROM tenantry.counters";

impl Server {
    /// Holds a tenant's database to these limits and no others, and shows its plan to its application. Returns what is
    /// used. What is over a limit already stays, and does not grow.
    pub async fn apply_limits(
        &self,
        id: TenantId,
        database: &str,
        entitlements: &Entitlements,
    ) -> Result<Amounts> {
        let mut visit = self.enter(id, database, "connect to apply the limits").await?;
        let result = apply(&mut visit.session, entitlements).await;
        self.leave(visit, result).await
    }

    /// What a tenant uses of its metered limits.
    pub async fn read_counters(&self, id: TenantId, database: &str) -> Result<Amounts> {
        let mut visit = self.enter(id, database, "connect to read the counters").await?;
        let result = within(STATEMENT_LIMIT, "read the counters", read(&mut visit.session)).await;
        self.leave(visit, result).await
    }

    /// Sets how many sessions the tenant's login may have at the same time; -1 for any number. Sessions that are there
    /// stay.
    pub async fn set_connection_limit(&self, id: TenantId, login: &str, most: i32) -> Result<()> {
        let login = Ident::new(login)?;
        let _one = self.serialise(id).await;
        if !self.own_login(id, &login).await? {
            return Err(Error::LoginMissing(login.to_string()));
        }
        let script = Script::of("ALTER ROLE {} CONNECTION LIMIT {}", &[&login, &Number(most)]);
        self.run("set the connection limit", &script).await
    }
}

/// Holds the tenant's database that the session is in to these limits and no others. Returns what is used.
pub(super) async fn apply(session: &mut PgConnection, entitlements: &Entitlements) -> Result<Amounts> {
    let apply = sqlx::query_scalar(APPLY)
        .bind(Json(&entitlements.limits))
        .bind(&entitlements.plan)
        .bind(&entitlements.features)
        .bind(&entitlements.sla)
        .fetch_one(session);
    within(STATEMENT_LIMIT, "apply the limits", apply).await.map(|Json(used)| used)
}

/// The counters, in a tenant's database.
pub(super) async fn read(session: &mut PgConnection) -> sqlx::Result<Amounts> {
    let Json(used) = sqlx::query_scalar(COUNTERS).fetch_one(session).await?;
    Ok(used)
}
