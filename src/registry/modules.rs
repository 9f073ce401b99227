//! The accepted content of modules.

use std::collections::BTreeMap;

use sqlx::types::Json;

use super::{Registry, Result};
use crate::{
    api::tenant_module::RehearsalStatus,
    domain::accepted_module::{AcceptedFile, AcceptedModule},
};

type ModuleRow = (String, String, i32, String, Option<Json<RehearsalStatus>>);

impl Registry {
    /// The accepted content of all modules, by name.
    pub async fn accepted_modules(&self) -> Result<BTreeMap<String, AcceptedModule>> {
        let modules: Vec<ModuleRow> =
            sqlx::query_as("SELECT name, schema_name, version, digest, rehearsal FROM modules")
                .fetch_all(&self.pool)
                .await?;
        let files: Vec<(String, i32, String, Vec<u8>)> = sqlx::query_as(
            "SELECT module, version, file, checksum FROM module_files ORDER BY module, version",
        )
        .fetch_all(&self.pool)
        .await?;
        let accepted = |(name, schema, version, digest, rehearsal): ModuleRow| {
            let rehearsal = rehearsal.map(|Json(rehearsal)| rehearsal);
            let module =
                AcceptedModule { name: name.clone(), schema, version, digest, files: vec![], rehearsal };
            (name, module)
        };
        let mut found: BTreeMap<String, AcceptedModule> = modules.into_iter().map(accepted).collect();
        for (module, version, file, checksum) in files {
            if let Some(module) = found.get_mut(&module) {
                module.files.push(AcceptedFile { version, file, checksum });
            }
        }
        Ok(found)
    }

    /// Records the content of a module as accepted. One statement, so that no file is recorded without its module.
    pub async fn accept_module(&self, module: &AcceptedModule) -> Result<()> {
        let versions: Vec<i32> = module.files.iter().map(|file| file.version).collect();
        let names: Vec<&str> = module.files.iter().map(|file| file.file.as_str()).collect();
        let checksums: Vec<&[u8]> = module.files.iter().map(|file| file.checksum.as_slice()).collect();
        sqlx::query(
            "WITH accepted AS (
                 INSERT INTO modules AS m (name, schema_name, version, digest, rehearsal) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (name) DO UPDATE
                 SET schema_name = $2, version = $3, digest = $4, rehearsal = coalesce($5, m.rehearsal), accepted_at = now())
             INSERT INTO module_files AS f (module, version, file, checksum)
             SELECT $1, n.version, n.file, n.checksum
             FROM unnest($6::integer[], $7::text[], $8::bytea[]) AS n (version, file, checksum)
             ON CONFLICT (module, version) DO UPDATE
             SET file = excluded.file, checksum = excluded.checksum, accepted_at = now()
             WHERE (f.file, f.checksum) IS DISTINCT FROM (excluded.file, excluded.checksum)",
        )
        .bind(&module.name)
        .bind(&module.schema)
        .bind(module.version)
        .bind(&module.digest)
        .bind(module.rehearsal.as_ref().map(Json))
        .bind(versions)
        .bind(names)
        .bind(checksums)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The schema in which tenants have a module that ships with Tenantry, or may have it: a database that is being made is on
    /// record before its modules are, and one that is being purged of the module has none of its versions on record any more.
    /// Without a record it is `public`, where earlier releases have them all.
    pub async fn schema_in_use(&self, module: &str) -> Result<Option<String>> {
        let schema = sqlx::query_scalar(
            "SELECT coalesce((SELECT schema_name FROM modules WHERE name = $1), 'public') WHERE EXISTS (
                 SELECT FROM tenants WHERE (status <> 'deprovisioned' OR database_exists)
                     AND (jsonb_path_exists(module_versions, '$[*] ? (@.name == $name)', jsonb_build_object('name', $1))
                         OR database_exists AND status <> 'deprovisioned' AND module_versions = '{}'
                         OR module_purges -> $1 ->> 'state' = 'Begun'))",
        );
        Ok(schema.bind(module).fetch_optional(&self.pool).await?)
    }

    /// Forgets what was accepted of a module that does not exist any more, unless a tenant has it. Returns whether it did.
    pub async fn forget_module(&self, name: &str) -> Result<bool> {
        let deleted = sqlx::query(
            "DELETE FROM modules WHERE name = $1 AND NOT EXISTS (
                 SELECT FROM tenants WHERE (status <> 'deprovisioned' OR database_exists)
                     AND jsonb_path_exists(module_versions, '$[*] ? (@.name == $name)', jsonb_build_object('name', $1)))",
        )
        .bind(name)
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected() > 0)
    }
}
