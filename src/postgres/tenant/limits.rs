//! The limits of a tenant's plan in its database and its login, and the usage counters.
//!
//! Statements in the tenant's database run as the migrator, never as `tenantry_admin`: a module could replace a table by
//! a view, whose functions would run with the rights of the role that reads it.

use sqlx::{PgConnection, types::Json};

use crate::{
    domain::{
        placement::Placement,
        usage::entitlements::{Amounts, Entitlements, LoginLimits},
    },
    postgres::{
        error::{Error, Result},
        identifier::{Ident, Number, Script},
        server::Server,
        session::connect::{STATEMENT_LIMIT, with_timeout},
        tenant::migrate::file,
    },
};

/// One statement, and so one transaction. Only rows that differ are written. Every change rewrites the plan's row, so that
/// the meters detect that their snapshot is older than the limits.
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
SELECT coalesce(jsonb_object_agg(name, used), '{}')
FROM (SELECT left(name::text, 200) AS name, used::bigint FROM tenantry.counters LIMIT 1000) AS c";

/// In place of the table, there may be a view of the tenant's with any number of rows: the operator has little memory.
const COUNTERS: &str = "\
SELECT coalesce(jsonb_object_agg(name, used), '{}')
FROM (SELECT left(name::text, 200) AS name, used::bigint FROM tenantry.counters LIMIT 1000) AS c";

impl Server {
    /// Replaces the limits in a tenant's database, and the plan that its application reads. Returns the usage. Usage over a
    /// limit stays, and cannot grow.
    pub async fn apply_limits(&self, placement: &Placement, entitlements: &Entitlements) -> Result<Amounts> {
        let mut migrator = self.open_looking_session(placement, "connect to apply the limits").await?;
        let result = apply(&mut migrator.session, entitlements).await;
        self.close_migrator_session(migrator, placement, result).await
    }

    /// The usage of the metered limits.
    pub async fn read_counters(&self, placement: &Placement) -> Result<Amounts> {
        let mut migrator = self.open_looking_session(placement, "connect to read the counters").await?;
        let result = async {
            let used =
                with_timeout(STATEMENT_LIMIT, "read the counters", read(&mut migrator.session)).await?;
            file::reset(&mut migrator.session).await?;
            Ok(used)
        };
        let result = result.await;
        self.close_migrator_session(migrator, placement, result).await
    }

    /// Sets the limits of the tenant's logins, each of which has all of them; the reader login has fewer sessions. Open sessions keep theirs. `temp_file_limit` is left alone where
    /// `tenantry_admin` may not set it; the login itself never may.
    pub async fn limit_login(&self, placement: &Placement, limits: LoginLimits) -> Result<()> {
        if let Some(previous) = placement.of_previous_login()
            && self.check_login(&previous).await.is_ok_and(|exists| exists)
        {
            self.limit_one_login(&previous, limits).await?;
        }
        if let Some(reader) = placement.of_reader_login()
            && self.check_login(&reader).await.is_ok_and(|exists| exists)
        {
            self.limit_reader(&reader, limits).await?;
        }
        self.limit_one_login(placement, limits).await
    }

    /// Sets the limits of the reader login, the login of this placement, beside a login with these limits.
    pub async fn limit_reader(&self, reader: &Placement, limits: LoginLimits) -> Result<()> {
        self.limit_one_login(reader, limits.for_reader()).await
    }

    async fn limit_one_login(&self, placement: &Placement, limits: LoginLimits) -> Result<()> {
        let login = Ident::login(placement)?;
        let _one = self.lock_tenant(placement.tenant).await;
        if !self.own_login(placement).await? {
            return Err(Error::LoginMissing(login.to_string()));
        }
        let script = Script::of("ALTER ROLE {} CONNECTION LIMIT {}", &[&login, &Number(limits.connections)])
            .then(
                "DO $limit$ BEGIN \
                     IF has_parameter_privilege('temp_file_limit', 'SET') THEN \
                         ALTER ROLE {} SET temp_file_limit = {}; \
                     END IF; \
                 END $limit$",
                &[&login, &Number(limits.temp_file_kilobytes)],
            );
        self.run("set the limits of the login", &script).await
    }
}

/// Replaces the limits in the tenant's database of the session. Returns the usage.
pub(super) async fn apply(session: &mut PgConnection, entitlements: &Entitlements) -> Result<Amounts> {
    let apply = sqlx::query_scalar(APPLY)
        .bind(Json(&entitlements.limits))
        .bind(&entitlements.plan)
        .bind(&entitlements.features)
        .bind(&entitlements.sla)
        .fetch_one(&mut *session);
    let Json(used) = with_timeout(STATEMENT_LIMIT, "apply the limits", apply).await?;
    file::reset(session).await?;
    Ok(used)
}

/// Reads the counters in a tenant's database.
pub(super) async fn read(session: &mut PgConnection) -> sqlx::Result<Amounts> {
    let Json(used) = sqlx::query_scalar(COUNTERS).fetch_one(session).await?;
    Ok(used)
}
