//! What a Tenant declares, in its row, and the rows of the activity log about its changes.

use sqlx::types::Json;
use uuid::Uuid;

use super::{Registry, Result, record::*};
use crate::domain::{
    declaration::{ChangeRow, Declaration},
    record::TenantRecord,
};

/// The [`ChangeRow`]s of a parameter as rows `r`, in their order.
macro_rules! change_rows {
    ($parameter:literal) => {
        concat!(
            "ROWS FROM (jsonb_to_recordset(",
            $parameter,
            "::jsonb) AS (action text, actor text, reason text, details jsonb))
             WITH ORDINALITY AS r (action, actor, reason, details, number)"
        )
    };
}
pub(super) use change_rows;

impl Registry {
    /// Records what a Tenant declares now, with a row for each change since the declaration of `row`. Returns none, and
    /// writes nothing, if the registry has another one by now.
    pub async fn record_declaration(
        &self,
        row: &TenantRecord,
        declaration: &Declaration,
        changes: &[ChangeRow],
        correlation: Option<Uuid>,
    ) -> Result<Option<TenantRecord>> {
        let before = row.declaration.as_ref().map(|before| (before.object.as_str(), before.generation));
        let record = sqlx::query_as(concat!(
            "WITH changed AS (
                 UPDATE tenants SET declaration = $2
                 WHERE id = $1 AND declaration ->> 'object' IS NOT DISTINCT FROM $3
                   AND (declaration ->> 'generation')::bigint IS NOT DISTINCT FROM $4 RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                 SELECT c.id, r.action, r.actor, r.reason, $6, r.details FROM changed c, ",
            change_rows!("$5"),
            " ORDER BY r.number)
             SELECT ",
            columns!(),
            " FROM changed AS tenants"
        ))
        .bind(row.id.0)
        .bind(Json(declaration))
        .bind(before.map(|(object, _)| object))
        .bind(before.map(|(_, generation)| generation))
        .bind(Json(changes))
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        Ok(record)
    }
}
