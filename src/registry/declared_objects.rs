//! What plans, modules and servers declared when their changes were recorded last, and the rows about these changes.

use sqlx::types::Json;

use super::{Registry, Result, declarations::change_rows};
use crate::domain::declaration::{
    ChangeRow, Declaration,
    objects::{ObjectName, RecordedObject},
};

impl Registry {
    /// All that are recorded.
    pub async fn declared_objects(&self) -> Result<Vec<RecordedObject>> {
        let rows: Vec<(String, String, Json<Declaration>)> =
            sqlx::query_as("SELECT kind, name, declaration FROM declared_objects ORDER BY kind, name, uid")
                .fetch_all(&self.pool)
                .await?;
        let recorded = |(kind, name, Json(declaration))| RecordedObject {
            object: ObjectName { kind, name },
            declaration,
        };
        Ok(rows.into_iter().map(recorded).collect())
    }

    /// Records what an object declares now, with a row for each of its changes. Writes nothing if the registry has this
    /// generation or a later one.
    pub async fn record_object(
        &self,
        object: &ObjectName,
        declaration: &Declaration,
        changes: &[ChangeRow],
    ) -> Result<()> {
        sqlx::query(concat!(
            "WITH recorded AS (
                 INSERT INTO declared_objects AS d (uid, kind, name, declaration) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (uid) DO UPDATE SET declaration = excluded.declaration
                 WHERE (d.declaration ->> 'generation')::bigint < (excluded.declaration ->> 'generation')::bigint
                 RETURNING uid)
             INSERT INTO activity (action, actor, reason, details)
             SELECT r.action, r.actor, r.reason, r.details FROM recorded, ",
            change_rows!("$5"),
            " ORDER BY r.number"
        ))
        .bind(&declaration.object)
        .bind(&object.kind)
        .bind(&object.name)
        .bind(Json(declaration))
        .bind(Json(changes))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records that an object is gone. Writes nothing if that is on record.
    pub async fn record_deleted_object(&self, uid: &str, row: &ChangeRow) -> Result<()> {
        sqlx::query(concat!(
            "WITH gone AS (DELETE FROM declared_objects WHERE uid = $1 RETURNING uid)
             INSERT INTO activity (action, actor, reason, details)
             SELECT r.action, r.actor, r.reason, r.details FROM gone, ",
            change_rows!("$2")
        ))
        .bind(uid)
        .bind(Json([row]))
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
