//! Templates: a migrated database for each set of modules, from which tenants are cloned, so that no migration runs
//! for a new tenant.
//!
//! A template is built under another name and published by a rename, like a tenant's database: one that has the
//! final name is whole. Nobody may connect to it, for one session on it would stop every creation.

use std::sync::PoisonError;

use super::{
    connect::Seat,
    error::{Error, Result, is_duplicate},
    identifier::{DBA, GROUPS, Ident, Literal, MIGRATOR, OWNER, Script},
    mark,
    migrate::{self, BOOTSTRAP},
    modules::ModuleSet,
    server::{Server, run_on},
    setup::{LARGE_OBJECTS_OPEN, OPEN_WRITERS},
};

/// The part of a template's name before the digest.
const PREFIX: &str = "tenantry_template_";

/// The digest in a template's name.
pub(super) fn digest_of(template: &Ident) -> &str {
    template.as_str().strip_prefix(PREFIX).unwrap_or(template.as_str())
}

impl Server {
    /// The template of a set of modules, built when it is not there yet.
    pub async fn ensure_template(&self, modules: &ModuleSet) -> Result<String> {
        let template = Ident::template(modules.digest())?;
        if self.knows_template(modules.digest()) {
            return Ok(template.to_string());
        }
        let _one = self.inner.building.lock().await;
        if self.knows_template(modules.digest()) {
            return Ok(template.to_string());
        }
        let building = Ident::template_building(modules.digest())?;
        let found = self.read(Some((&[template.as_str(), building.as_str()], &[]))).await?;
        if found.has_database(template.as_str()) {
            let comment = found.comment(template.as_str());
            if comment != Some(&mark::template(modules.digest())) {
                return Err(Error::Conflict {
                    kind: "database",
                    name: template.to_string(),
                    detail: "it is no template of Tenantry's".to_owned(),
                });
            }
        } else {
            if found.has_database(building.as_str()) {
                self.drop_named(&building).await?;
            }
            self.build_template(modules, &building, &template).await?;
        }
        self.inner
            .templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(modules.digest().to_owned());
        Ok(template.to_string())
    }

    /// Forgets that a template is there, after the server said that it is not.
    pub(super) fn forget_template(&self, digest: &str) {
        self.inner.templates.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }

    fn knows_template(&self, digest: &str) -> bool {
        self.inner.templates.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    async fn build_template(&self, modules: &ModuleSet, building: &Ident, template: &Ident) -> Result<()> {
        let create = Script::of(
            "CREATE DATABASE {} OWNER {} TEMPLATE template1 STRATEGY wal_log ALLOW_CONNECTIONS false",
            &[building, &DBA],
        );
        self.run("create the template", &create).await?;
        let open = Script::of(
            "COMMENT ON DATABASE {} IS {}",
            &[building, &Literal(&mark::template(modules.digest()))],
        )
        .then("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[building])
        .then("GRANT CONNECT ON DATABASE {} TO {}", &[building, &MIGRATOR])
        .then("ALTER DATABASE {} ALLOW_CONNECTIONS true", &[building]);
        self.run("open the template", &open).await?;
        self.lay_schemas(building).await?;

        let mut session = self.migrator(building, "connect to the template").await?;
        sqlx::raw_sql(BOOTSTRAP)
            .execute(&mut *session)
            .await
            .map_err(Error::sql("prepare the template's privileges"))?;
        session.pid = migrate::pid(&mut session).await;
        migrate::apply(&mut session, modules).await?;
        session.close_and_wait().await;

        let publish = Script::of("REVOKE CONNECT ON DATABASE {} FROM {}", &[building, &MIGRATOR])
            .then("ALTER DATABASE {} ALLOW_CONNECTIONS false", &[building])
            .then("ALTER DATABASE {} RENAME TO {}", &[building, template]);
        match self.run("publish the template", &publish).await {
            // Another process was faster; its template is as good.
            Err(Error::Sql { source, .. }) if is_duplicate(&source) => self.drop_named(building).await,
            other => other,
        }
    }

    /// What the database's owner prepares: who may use the schema `public`, and the schema `tenantry`.
    async fn lay_schemas(&self, building: &Ident) -> Result<()> {
        let doing = "prepare the template's schemas";
        let seat = Seat::Admin(building.as_str());
        let mut session = self.inner.sessions.single(&seat, doing).await?;
        session.pid = migrate::pid(&mut session).await;
        let [rw, shrink, ro] = &GROUPS;
        let script = Script::of("SET LOCAL ROLE {}", &[&DBA])
            .then("REVOKE ALL ON SCHEMA public FROM PUBLIC", &[])
            .then("GRANT USAGE, CREATE ON SCHEMA public TO {}", &[&OWNER])
            .then("GRANT USAGE ON SCHEMA public TO {}, {}, {}", &[rw, shrink, ro])
            .then("CREATE SCHEMA tenantry", &[])
            .then("GRANT USAGE, CREATE ON SCHEMA tenantry TO {}", &[&OWNER])
            .then("GRANT USAGE ON SCHEMA tenantry TO {}, {}, {}", &[rw, shrink, ro]);
        run_on(&mut session, doing, &script).await?;
        // The owner of `public` may be somebody else, where a server was upgraded from 14: then nothing was revoked.
        let open = sqlx::query_scalar::<_, bool>(
            "SELECT has_schema_privilege('tenantry_rw', 'public', 'CREATE')
                 OR NOT has_schema_privilege('tenantry_owner', 'public', 'CREATE')",
        )
        .fetch_one(&mut *session)
        .await
        .map_err(Error::sql(doing))?;
        let writers: i64 =
            sqlx::query_scalar(OPEN_WRITERS).fetch_one(&mut *session).await.map_err(Error::sql(doing))?;
        session.close_and_wait().await;
        if writers > 0 {
            return Err(Error::MissingRight(LARGE_OBJECTS_OPEN.to_owned()));
        }
        if open {
            return Err(Error::MissingRight(
                "in template1, schema public is not owned by pg_database_owner, so that its rights cannot be set; \
                 run `tenantry server-setup`"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}
