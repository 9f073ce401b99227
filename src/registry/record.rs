//! How a row of `tenants` is read, and how a statement that changes one returns it.

use serde_json::{Map, Value};
use sqlx::{FromRow, Row, postgres::PgRow, types::Json};

use super::Error;
use crate::{
    api::{
        reason::Reason,
        tenant::{DeletionPolicy, OffboardingTrigger},
    },
    domain::{
        access::{AccessLevel, holds::Hold},
        account::AccountRecord,
        breaker::Vanished,
        declaration::Declaration,
        identity::TenantId,
        observed::{RegistryStatus, Takeover},
        placement::Placement,
        record::{Hidden, ModuleVersion, TenantRecord},
        rotation::{CredentialRecord, PreviousCredential, ReaderCredential},
    },
};

/// The columns of `tenants` itself.
macro_rules! own_columns {
    () => {
        "id, slug, name, plan, status, status_reason, status_updated_at, status_updated_by, activated_at, \
         suspended_at, deprovisioned_at, purge_after, closed_at, offboarding_trigger, deletion_policy, settings, \
         holds, unrestricting_holds, server, database_name, schema_name, login_name, database_exists, takeover, resource_namespace, \
         resource_name, resource_uid, access, password_verifier, password_digest, module_versions, seed_digest, \
         created_at, updated_at, purge_started_at, purge_held, rolling_back, database_oid, login_oid, \
         warned_of, sessions_seen, last_session_at, inactivity_warned_at, frozen_by, entitlements, gates, \
         default_gates, gates_done_at, verification_required, purge_hastened_at, vanished, \
         module_purges, previous_login, previous_login_oid, previous_verifier, previous_login_since, \
         previous_login_until, credentials_issued_at, rotation_request, reader_login, reader_login_oid, \
         reader_verifier, reader_digest, reader_issued_at, declaration, status_generation, \
         entitlements_generation, holds_changed_by, hold_actors, account, "
    };
}
pub(super) use own_columns;

/// The columns that describe the tenant's last workflow; `$open` is a further condition of `has_open_workflow`.
macro_rules! workflow_columns {
    () => {
        workflow_columns!("")
    };
    ($open:literal) => {
        concat!(
            "(SELECT w.next_attempt_at FROM workflows w WHERE w.tenant_id = tenants.id \
                ORDER BY w.started_at DESC LIMIT 1) AS next_attempt_at, \
             (SELECT CASE WHEN w.next_attempt_at IS NOT NULL THEN w.failure_reason END FROM workflows w \
                WHERE w.tenant_id = tenants.id ORDER BY w.started_at DESC LIMIT 1) AS last_failure, \
             EXISTS (SELECT FROM workflows w WHERE w.tenant_id = tenants.id AND w.finished_at IS NULL)",
            $open,
            " AS has_open_workflow, "
        )
    };
}
pub(super) use workflow_columns;

/// The usage columns. With `$measured`: as this same statement records them at `$at`, computed, since its snapshot does not
/// show its own write.
macro_rules! usage_columns {
    () => {
        usage_columns!(@
            "(SELECT u.amounts FROM usage u WHERE u.tenant_id = tenants.id)",
            "(SELECT u.measured_at FROM usage u WHERE u.tenant_id = tenants.id)"
        )
    };
    ($measured:literal, $at:literal) => {
        usage_columns!(@
            concat!(
                "coalesce((SELECT u.amounts FROM usage u WHERE u.tenant_id = tenants.id), '{}') || ",
                $measured,
                "::jsonb"
            ),
            concat!($at, "::timestamptz")
        )
    };
    (@ $amounts:expr, $at:expr) => {
        concat!(
            $amounts,
            " AS usage, ",
            $at,
            " AS measured_at, \
             (SELECT u.warned_limits FROM usage u WHERE u.tenant_id = tenants.id) AS warned_limits "
        )
    };
}
pub(super) use usage_columns;

/// All columns of [`TenantRecord`], for every statement that returns one.
macro_rules! columns {
    () => {
        concat!(own_columns!(), workflow_columns!(), usage_columns!())
    };
}
pub(super) use columns;

/// The row after a statement whose common table expressions are `before`, the row as it was, and `changed`, the row as
/// the statement's `UPDATE` returned it, if it updated the row. `before` is read first: PostgreSQL cannot lock a row
/// that the same statement has already updated.
macro_rules! row_afterwards {
    () => {
        " FROM (SELECT t.*, c.id IS NOT NULL AS changed
                FROM before b LEFT JOIN changed c ON true
                CROSS JOIN LATERAL (SELECT c.* WHERE c.id IS NOT NULL UNION ALL SELECT b.* WHERE c.id IS NULL) AS t
               ) AS tenants"
    };
}
pub(super) use row_afterwards;

/// The end of a statement with the same common table expressions, which returns an [`Update`].
macro_rules! select_updated_row {
    () => {
        concat!(" SELECT changed, ", columns!(), row_afterwards!())
    };
}
pub(super) use select_updated_row;

/// What became of a requested change of a tenant's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The row as it is afterwards.
    pub record: TenantRecord,
    /// Whether this request changed it; if not, the row already was as requested.
    pub changed: bool,
}

impl<'r> FromRow<'r, PgRow> for Update {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        Ok(Self { record: TenantRecord::from_row(row)?, changed: row.try_get("changed")? })
    }
}

impl<'r> FromRow<'r, PgRow> for TenantRecord {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let time = |column: &str| row.try_get::<jiff_sqlx::Timestamp, _>(column).map(|time| time.to_jiff());
        let maybe_time = |column: &str| {
            row.try_get::<Option<jiff_sqlx::Timestamp>, _>(column).map(|time| time.map(|time| time.to_jiff()))
        };
        Ok(Self {
            id: TenantId(row.try_get("id")?),
            slug: row.try_get("slug")?,
            name: row.try_get("name")?,
            plan: row.try_get("plan")?,
            status: one_of(row, "status", &RegistryStatus::ALL, RegistryStatus::as_str)?,
            status_reason: row.try_get("status_reason")?,
            status_updated_at: time("status_updated_at")?,
            status_updated_by: row.try_get("status_updated_by")?,
            activated_at: maybe_time("activated_at")?,
            suspended_at: maybe_time("suspended_at")?,
            deprovisioned_at: maybe_time("deprovisioned_at")?,
            purge_after: maybe_time("purge_after")?,
            closed_at: maybe_time("closed_at")?,
            offboarding_trigger: offboarding_trigger(row)?,
            retain: one_of(row, "deletion_policy", DeletionPolicy::ALL, |policy| policy.as_str())?
                == DeletionPolicy::Retain,
            settings: row.try_get::<Json<_>, _>("settings")?.0,
            holds: holds(row)?,
            placement: Placement {
                tenant: TenantId(row.try_get("id")?),
                server: row.try_get("server")?,
                database: row.try_get("database_name")?,
                schema: row.try_get("schema_name")?,
                login: row.try_get("login_name")?,
                previous_login: row.try_get("previous_login")?,
                reader_login: row.try_get("reader_login")?,
            },
            database_exists: row.try_get("database_exists")?,
            takeover: takeover(row)?,
            resource_namespace: row.try_get("resource_namespace")?,
            resource_name: row.try_get("resource_name")?,
            resource_uid: row.try_get("resource_uid")?,
            access: access(row)?,
            password_verifier: row.try_get::<Option<_>, _>("password_verifier")?.map(Hidden),
            password_digest: row.try_get::<Option<_>, _>("password_digest")?.map(Hidden),
            credentials: credentials(row)?,
            module_versions: module_versions(row)?,
            seed_digest: row.try_get("seed_digest")?,
            created_at: time("created_at")?,
            updated_at: time("updated_at")?,
            purge_started_at: maybe_time("purge_started_at")?,
            purge_held: row.try_get("purge_held")?,
            purge_hastened_at: maybe_time("purge_hastened_at")?,
            rolling_back: row.try_get("rolling_back")?,
            database_oid: row.try_get("database_oid")?,
            login_oid: row.try_get("login_oid")?,
            warned_of: maybe_time("warned_of")?,
            sessions_seen: row.try_get("sessions_seen")?,
            last_session_at: maybe_time("last_session_at")?,
            inactivity_warned_at: maybe_time("inactivity_warned_at")?,
            frozen_by: row.try_get("frozen_by")?,
            vanished: vanished(row)?,
            entitlements: row.try_get::<Option<Json<_>>, _>("entitlements")?.map(|Json(found)| found),
            gates: row.try_get::<Json<_>, _>("gates")?.0,
            default_gates: row.try_get::<Option<Json<_>>, _>("default_gates")?.map(|Json(found)| found),
            gates_done_at: maybe_time("gates_done_at")?,
            usage: row.try_get::<Option<Json<_>>, _>("usage")?.map(|Json(found)| found).unwrap_or_default(),
            measured_at: maybe_time("measured_at")?,
            next_attempt_at: maybe_time("next_attempt_at")?,
            has_open_workflow: row.try_get("has_open_workflow")?,
            last_failure: last_failure(row)?,
            warned_limits: row
                .try_get::<Option<Json<_>>, _>("warned_limits")?
                .map(|Json(found)| found)
                .unwrap_or_default(),
            verification_required: row.try_get("verification_required")?,
            module_purges: row.try_get::<Json<_>, _>("module_purges")?.0,
            declaration: declaration(row)?,
            status_generation: row.try_get("status_generation")?,
            entitlements_generation: row.try_get("entitlements_generation")?,
            holds_changed_by: row.try_get("holds_changed_by")?,
            hold_actors: row.try_get::<Json<_>, _>("hold_actors")?.0,
            account: account(row)?,
        })
    }
}

/// The value of a text column, one of these.
pub(super) fn one_of<T: Copy>(
    row: &PgRow,
    column: &'static str,
    values: &[T],
    text: impl Fn(T) -> &'static str,
) -> sqlx::Result<T> {
    let found: &str = row.try_get(column)?;
    let value = values.iter().copied().find(|value| text(*value) == found);
    value.ok_or_else(|| unknown(column, found.to_owned()))
}

fn credentials(row: &PgRow) -> sqlx::Result<CredentialRecord> {
    let time = |column: &str| {
        row.try_get::<Option<jiff_sqlx::Timestamp>, _>(column).map(|time| time.map(|time| time.to_jiff()))
    };
    let previous = match row.try_get::<Option<&str>, _>("previous_login")? {
        None => None,
        Some(_) => Some(PreviousCredential {
            verifier: row.try_get::<Option<_>, _>("previous_verifier")?.map(Hidden),
            oid: row.try_get("previous_login_oid")?,
            since: time("previous_login_since")?,
            kept_until: time("previous_login_until")?,
        }),
    };
    let reader = match row.try_get::<Option<&str>, _>("reader_login")? {
        None => None,
        Some(_) => Some(ReaderCredential {
            verifier: row.try_get::<Option<_>, _>("reader_verifier")?.map(Hidden),
            digest: row.try_get::<Option<_>, _>("reader_digest")?.map(Hidden),
            oid: row.try_get("reader_login_oid")?,
            issued_at: time("reader_issued_at")?,
        }),
    };
    Ok(CredentialRecord {
        issued_at: time("credentials_issued_at")?,
        request: row.try_get("rotation_request")?,
        previous,
        reader,
    })
}

/// The holds of both columns, by name.
fn holds(row: &PgRow) -> sqlx::Result<Vec<Hold>> {
    let mut holds: Vec<Hold> = row.try_get::<Json<_>, _>("holds")?.0;
    holds.extend(row.try_get::<Json<Vec<Hold>>, _>("unrestricting_holds")?.0);
    holds.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(holds)
}

/// One of a later release that this one cannot read is as if it were absent.
fn declaration(row: &PgRow) -> sqlx::Result<Option<Declaration>> {
    let recorded: Option<Value> = row.try_get("declaration")?;
    Ok(recorded.and_then(|recorded| serde_json::from_value(recorded).ok()))
}

fn account(row: &PgRow) -> sqlx::Result<AccountRecord> {
    Ok(row.try_get::<Option<Json<_>>, _>("account")?.map(|Json(found)| found).unwrap_or_default())
}

fn offboarding_trigger(row: &PgRow) -> sqlx::Result<Option<OffboardingTrigger>> {
    const COLUMN: &str = "offboarding_trigger";
    let recorded: Option<&str> = row.try_get(COLUMN)?;
    recorded.map(|_| one_of(row, COLUMN, OffboardingTrigger::ALL, OffboardingTrigger::as_str)).transpose()
}

fn access(row: &PgRow) -> sqlx::Result<Option<AccessLevel>> {
    const COLUMN: &str = "access";
    let known = row.try_get::<&str, _>(COLUMN)? != "Unknown";
    known.then(|| one_of(row, COLUMN, &AccessLevel::ALL, AccessLevel::as_str)).transpose()
}

fn takeover(row: &PgRow) -> sqlx::Result<Option<Takeover>> {
    const COLUMN: &str = "takeover";
    let recorded: Option<&str> = row.try_get(COLUMN)?;
    recorded.map(|_| one_of(row, COLUMN, &Takeover::ALL, Takeover::as_str)).transpose()
}

fn vanished(row: &PgRow) -> sqlx::Result<Option<Vanished>> {
    const COLUMN: &str = "vanished";
    let recorded: Option<&str> = row.try_get(COLUMN)?;
    recorded.map(|_| one_of(row, COLUMN, &Vanished::ALL, Vanished::as_str)).transpose()
}

/// Before the first module is applied, the column is an empty object.
fn module_versions(row: &PgRow) -> sqlx::Result<Vec<ModuleVersion>> {
    const COLUMN: &str = "module_versions";
    let recorded: Value = row.try_get(COLUMN)?;
    if recorded.as_object().is_some_and(Map::is_empty) {
        return Ok(Vec::new());
    }
    serde_json::from_value(recorded.clone()).map_err(|_| unknown(COLUMN, recorded.to_string()))
}

/// A reason that this version does not know was recorded by a newer one: some step failed.
fn last_failure(row: &PgRow) -> sqlx::Result<Option<Reason>> {
    let recorded: Option<&str> = row.try_get("last_failure")?;
    Ok(recorded.map(|reason| Reason::parse(reason).unwrap_or(Reason::StepFailed)))
}

fn unknown(column: &'static str, value: String) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(Error::UnknownValue { column, value }))
}
