//! A tenant's row.

use std::{fmt, ops::Deref};

use jiff::Timestamp;
use serde_json::Value;
use sqlx::{FromRow, Row, postgres::PgRow, types::Json};
use uuid::Uuid;

use super::Error;
use crate::domain::{
    access::AccessLevel,
    departure::Terms,
    gates::Gate,
    hold::Hold,
    identity::TenantId,
    limits::{Amounts, Entitlements},
    observed::RegistryStatus,
    slug::Slug,
};

/// All columns of [`TenantRow`], for every statement that returns one.
macro_rules! columns {
    () => {
        "id, slug, name, plan, status, status_reason, status_updated_at, status_updated_by, activated_at, \
         suspended_at, deprovisioned_at, purge_after, closed_at, offboarding_trigger, deletion_policy, settings, \
         holds, server, database_name, schema_name, login_name, database_exists, resource_namespace, \
         resource_name, resource_uid, access, password_verifier, password_digest, module_versions, seed_digest, \
         created_at, updated_at, purge_started_at, purge_held, rolling_back, database_oid, login_oid, \
         warned_of, sessions_seen, last_session_at, inactivity_warned_at, frozen_by, entitlements, gates, \
         default_gates, gates_done_at, \
         (SELECT w.next_attempt_at FROM workflows w WHERE w.tenant_id = tenants.id \
            ORDER BY w.started_at DESC LIMIT 1) AS next_attempt_at, \
         EXISTS (SELECT FROM workflows w WHERE w.tenant_id = tenants.id AND w.finished_at IS NULL) \
            AS has_open_workflow, \
         (SELECT u.amounts FROM usage u WHERE u.tenant_id = tenants.id) AS usage, \
         (SELECT u.measured_at FROM usage u WHERE u.tenant_id = tenants.id) AS measured_at"
    };
}
pub(super) use columns;

/// A value that must not appear in a log line.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden<T>(pub T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl<T> Deref for Hidden<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A row of `tenants`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the columns are described in migrations/system")]
pub struct TenantRow {
    pub id: TenantId,
    pub slug: String,
    pub name: String,
    pub plan: String,
    pub status: RegistryStatus,
    pub status_reason: Option<String>,
    pub status_updated_at: Timestamp,
    pub status_updated_by: String,
    pub activated_at: Option<Timestamp>,
    pub suspended_at: Option<Timestamp>,
    pub deprovisioned_at: Option<Timestamp>,
    pub purge_after: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub offboarding_trigger: Option<String>,
    /// `deletion_policy` is `Retain`: the database is cut off, never dropped.
    pub retain: bool,
    pub settings: Value,
    pub holds: Vec<Hold>,
    pub server: String,
    pub database_name: String,
    pub schema_name: Option<String>,
    pub login_name: String,
    pub database_exists: bool,
    pub resource_namespace: String,
    pub resource_name: String,
    pub resource_uid: String,
    /// The level that was last seen in force; none while it is not known.
    pub access: Option<AccessLevel>,
    pub password_verifier: Option<Hidden<String>>,
    pub password_digest: Option<Hidden<Vec<u8>>>,
    pub module_versions: Value,
    pub seed_digest: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub purge_started_at: Option<Timestamp>,
    pub purge_held: Option<String>,
    pub rolling_back: bool,
    pub database_oid: Option<i64>,
    pub login_oid: Option<i64>,
    pub warned_of: Option<Timestamp>,
    pub sessions_seen: Option<i64>,
    pub last_session_at: Option<Timestamp>,
    pub inactivity_warned_at: Option<Timestamp>,
    pub frozen_by: Option<i64>,
    /// What is in force in the tenant's database; none before it was put in force.
    pub entitlements: Option<Entitlements>,
    pub gates: Vec<Gate>,
    pub default_gates: Option<Vec<String>>,
    pub gates_done_at: Option<Timestamp>,
    /// What the tenant uses, as it was measured last.
    pub usage: Amounts,
    /// When that was.
    pub measured_at: Option<Timestamp>,
    /// When the tenant's last workflow is to be tried again, after a failure.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether the tenant's last workflow has not ended; known of the same rows.
    pub has_open_workflow: bool,
}

impl TenantRow {
    /// The terms on which the tenant goes away, while it does.
    pub fn terms(&self) -> Option<Terms> {
        let purge_after = self.purge_after.filter(|_| self.status == RegistryStatus::Deprovisioning)?;
        Some(Terms { purge_after, retain: self.retain, held: self.purge_held.is_some() })
    }
}

#[cfg(test)]
impl TenantRow {
    /// A row for tests of what is made from it: of a tenant that was in use.
    pub fn example(status: RegistryStatus) -> Self {
        let began = Timestamp::UNIX_EPOCH;
        Self {
            id: TenantId(Uuid::from_u128(1)),
            slug: "acme".into(),
            name: "Acme".into(),
            plan: "starter".into(),
            status,
            status_reason: None,
            status_updated_at: began,
            status_updated_by: "ada".into(),
            activated_at: Some(began),
            suspended_at: None,
            deprovisioned_at: (status == RegistryStatus::Deprovisioning).then_some(began),
            purge_after: (status == RegistryStatus::Deprovisioning).then_some(began),
            closed_at: None,
            offboarding_trigger: None,
            retain: false,
            settings: serde_json::json!({}),
            holds: Vec::new(),
            server: "default".into(),
            database_name: "tenant_acme".into(),
            schema_name: None,
            login_name: "tenant_acme_app".into(),
            database_exists: true,
            resource_namespace: "customers".into(),
            resource_name: "acme".into(),
            resource_uid: "uid".into(),
            access: Some(AccessLevel::Blocked),
            password_verifier: None,
            password_digest: None,
            module_versions: serde_json::json!({}),
            seed_digest: None,
            created_at: began,
            updated_at: began,
            purge_started_at: None,
            purge_held: None,
            rolling_back: false,
            database_oid: None,
            login_oid: None,
            warned_of: None,
            sessions_seen: None,
            last_session_at: None,
            inactivity_warned_at: None,
            frozen_by: None,
            entitlements: None,
            gates: Vec::new(),
            default_gates: None,
            gates_done_at: None,
            usage: Amounts::new(),
            measured_at: None,
            next_attempt_at: None,
            has_open_workflow: false,
        }
    }
}

impl<'r> FromRow<'r, PgRow> for TenantRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let time = |column: &str| row.try_get::<jiff_sqlx::Timestamp, _>(column).map(|time| time.to_jiff());
        let maybe_time = |column: &str| {
            row.try_get::<Option<jiff_sqlx::Timestamp>, _>(column).map(|time| time.map(|time| time.to_jiff()))
        };
        let status: String = row.try_get("status")?;
        let access: String = row.try_get("access")?;
        Ok(Self {
            id: TenantId(row.try_get("id")?),
            slug: row.try_get("slug")?,
            name: row.try_get("name")?,
            plan: row.try_get("plan")?,
            status: RegistryStatus::parse(&status).ok_or_else(|| unknown("status", status))?,
            status_reason: row.try_get("status_reason")?,
            status_updated_at: time("status_updated_at")?,
            status_updated_by: row.try_get("status_updated_by")?,
            activated_at: maybe_time("activated_at")?,
            suspended_at: maybe_time("suspended_at")?,
            deprovisioned_at: maybe_time("deprovisioned_at")?,
            purge_after: maybe_time("purge_after")?,
            closed_at: maybe_time("closed_at")?,
            offboarding_trigger: row.try_get("offboarding_trigger")?,
            retain: row.try_get::<&str, _>("deletion_policy")? == "Retain",
            settings: row.try_get("settings")?,
            holds: row.try_get::<Json<_>, _>("holds")?.0,
            server: row.try_get("server")?,
            database_name: row.try_get("database_name")?,
            schema_name: row.try_get("schema_name")?,
            login_name: row.try_get("login_name")?,
            database_exists: row.try_get("database_exists")?,
            resource_namespace: row.try_get("resource_namespace")?,
            resource_name: row.try_get("resource_name")?,
            resource_uid: row.try_get("resource_uid")?,
            access: AccessLevel::ALL.into_iter().find(|level| level.as_str() == access),
            password_verifier: row.try_get::<Option<_>, _>("password_verifier")?.map(Hidden),
            password_digest: row.try_get::<Option<_>, _>("password_digest")?.map(Hidden),
            module_versions: row.try_get("module_versions")?,
            seed_digest: row.try_get("seed_digest")?,
            created_at: time("created_at")?,
            updated_at: time("updated_at")?,
            purge_started_at: maybe_time("purge_started_at")?,
            purge_held: row.try_get("purge_held")?,
            rolling_back: row.try_get("rolling_back")?,
            database_oid: row.try_get("database_oid")?,
            login_oid: row.try_get("login_oid")?,
            warned_of: maybe_time("warned_of")?,
            sessions_seen: row.try_get("sessions_seen")?,
            last_session_at: maybe_time("last_session_at")?,
            inactivity_warned_at: maybe_time("inactivity_warned_at")?,
            frozen_by: row.try_get("frozen_by")?,
            entitlements: row.try_get::<Option<Json<_>>, _>("entitlements")?.map(|Json(found)| found),
            gates: row.try_get::<Json<_>, _>("gates")?.0,
            default_gates: row.try_get::<Option<Json<_>>, _>("default_gates")?.map(|Json(found)| found),
            gates_done_at: maybe_time("gates_done_at")?,
            usage: row.try_get::<Option<Json<_>>, _>("usage")?.map(|Json(found)| found).unwrap_or_default(),
            measured_at: maybe_time("measured_at")?,
            next_attempt_at: maybe_time("next_attempt_at")?,
            has_open_workflow: row.try_get("has_open_workflow")?,
        })
    }
}

fn unknown(column: &'static str, value: String) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(Error::UnknownValue { column, value }))
}

/// What is known of a tenant when it is registered.
#[derive(Clone, Debug)]
pub struct NewTenant {
    /// The customer's short name.
    pub slug: Slug,
    /// The customer's name for people.
    pub name: String,
    /// The plan's name.
    pub plan: String,
    /// The tenant's settings, an object.
    pub settings: Value,
    /// The server that it will be on.
    pub server: String,
    /// What that server's database names start with.
    pub prefix: String,
    /// The Tenant's namespace.
    pub resource_namespace: String,
    /// The Tenant's name.
    pub resource_name: String,
    /// The Tenant's uid.
    pub resource_uid: String,
    /// Whether the database outlives the tenant.
    pub retain: bool,
    /// Who asked for it.
    pub actor: String,
    /// Under which id the activity log has it, where there is one already.
    pub correlation: Option<Uuid>,
}

/// What became of a registration.
#[derive(Clone, Debug, PartialEq)]
pub enum Registration {
    /// The row was made.
    Created(TenantRow),
    /// The row was there: this Tenant was registered before, or one of the same namespace, name and slug.
    Existing(TenantRow),
    /// Another tenant has the slug.
    SlugTaken {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Where it is in its life.
        status: RegistryStatus,
    },
}
