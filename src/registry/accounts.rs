//! What a customer's administrator changed in the TenantAccount, in the tenant's row, and the rows of the activity log about
//! it.

use sqlx::types::Json;

use super::{Registry, Result, declarations::change_rows, record::*};
use crate::domain::{account::AccountRecord, declaration::ChangeRow, record::TenantRecord};

impl Registry {
    /// Records an account, with a row for each change since the one in `row`. Returns none, and writes nothing, if the
    /// registry has another declaration of it by now.
    pub async fn record_account(
        &self,
        row: &TenantRecord,
        account: &AccountRecord,
        changes: &[ChangeRow],
    ) -> Result<Option<TenantRecord>> {
        let before = row.account.declaration.as_ref();
        let before = before.map(|before| (before.object.as_str(), before.generation));
        let record = sqlx::query_as(concat!(
            "WITH changed AS (
                 UPDATE tenants SET account = $2
                 WHERE id = $1 AND account #>> '{declaration,object}' IS NOT DISTINCT FROM $3
                   AND (account #>> '{declaration,generation}')::bigint IS NOT DISTINCT FROM $4 RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, details)
                 SELECT c.id, r.action, r.actor, r.reason, r.details FROM changed c, ",
            change_rows!("$5"),
            " ORDER BY r.number)
             SELECT ",
            columns!(),
            " FROM changed AS tenants"
        ))
        .bind(row.id.0)
        .bind(Json(account))
        .bind(before.map(|(object, _)| object))
        .bind(before.map(|(_, generation)| generation))
        .bind(Json(changes))
        .fetch_optional(&self.pool)
        .await?;
        Ok(record)
    }
}
