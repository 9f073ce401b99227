//! Templates: a migrated database for each set of modules, from which tenants are cloned, so that no migration runs
//! for a new tenant.
//!
//! A template is built under another name and published by a rename, like a tenant's database: a template of the final
//! name is complete. No role may connect to it, since one session on it would block every clone.

use super::setup::{LARGE_OBJECTS_OPEN, OPEN_WRITERS};
use crate::{
    modules::{BOOTSTRAP, ModuleSet},
    postgres::{
        catalog::ownership,
        error::{Error, Result, is_duplicate},
        identifier::{DBA, GROUPS, Ident, Literal, MIGRATOR, OWNER, Script},
        server::{Server, run_on},
        session::connect::ConnectAs,
        tenant::migrate,
    },
};

/// The part of a template's name before the digest.
const PREFIX: &str = "tenantry_template_";

/// The digest in a template's name.
pub(in crate::postgres) fn digest_of(template: &Ident) -> &str {
    template.as_str().strip_prefix(PREFIX).unwrap_or(template.as_str())
}

/// The state of a template.
enum TemplateState {
    Absent,
    Complete,
    /// A DROP DATABASE of it was interrupted.
    DropInterrupted,
}

impl Server {
    /// The name of the template of a set of modules, which is built if it does not exist. It is checked each time: it may
    /// have been dropped, and a template that was changed is not cloned.
    pub async fn ensure_template(&self, modules: &ModuleSet) -> Result<String> {
        let template = Ident::template(modules.digest())?;
        if !matches!(self.find_template(&template).await?, TemplateState::Complete) {
            let _one = self.inner.template_lock.lock().await;
            let found = self.find_template(&template).await?;
            if matches!(found, TemplateState::DropInterrupted) {
                self.drop_named(&template).await?;
            }
            if !matches!(found, TemplateState::Complete) {
                let building = Ident::template_building(modules.digest())?;
                // The remains of an interrupted attempt.
                self.drop_named(&building).await?;
                self.build_template(modules, &building, &template).await?;
            }
        }
        Ok(template.to_string())
    }

    async fn find_template(&self, template: &Ident) -> Result<TemplateState> {
        let inventory = self.read(Some((&[template.as_str()], &[]))).await?;
        let Some(facts) = inventory.template(template.as_str()) else { return Ok(TemplateState::Absent) };
        if facts.comment != Some(&ownership::template(digest_of(template))) || !facts.owned {
            let detail = "lost its comment or its owner, or is not Tenantry's".to_owned();
            return Err(Error::TemplateBroken { name: template.to_string(), detail });
        }
        Ok(if facts.drop_interrupted { TemplateState::DropInterrupted } else { TemplateState::Complete })
    }

    async fn build_template(&self, modules: &ModuleSet, building: &Ident, template: &Ident) -> Result<()> {
        let create = Script::of(
            "CREATE DATABASE {} OWNER {} TEMPLATE template1 STRATEGY wal_log ALLOW_CONNECTIONS false",
            &[building, &DBA],
        );
        self.run("create the template", &create).await?;
        let open = Script::of(
            "COMMENT ON DATABASE {} IS {}",
            &[building, &Literal::new(&ownership::template(modules.digest()))?],
        )
        .then("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[building])
        .then("GRANT CONNECT ON DATABASE {} TO {}", &[building, &MIGRATOR])
        .then("ALTER DATABASE {} ALLOW_CONNECTIONS true", &[building]);
        self.run("open the template", &open).await?;
        self.prepare_schemas(building).await?;

        let mut session = self
            .migrator(self.inner.sessions.tenant_slot().await, building, "connect to the template")
            .await?;
        sqlx::raw_sql(BOOTSTRAP)
            .execute(&mut *session)
            .await
            .map_err(Error::sql("prepare the template's privileges"))?;
        session.learn_pid().await;
        migrate::apply(&mut session, modules).await?;
        session.close_and_wait().await;

        let publish = Script::of("REVOKE CONNECT ON DATABASE {} FROM {}", &[building, &MIGRATOR])
            .then("ALTER DATABASE {} ALLOW_CONNECTIONS false", &[building])
            .then("ALTER DATABASE {} RENAME TO {}", &[building, template]);
        match self.run("publish the template", &publish).await {
            // Another process was faster; its template is the same.
            Err(Error::Sql { source, .. }) if is_duplicate(&source) => self.drop_named(building).await,
            other => other,
        }
    }

    /// Sets up the schemas `public` and `tenantry`, as the owner of the database.
    async fn prepare_schemas(&self, building: &Ident) -> Result<()> {
        let doing = "prepare the template's schemas";
        let connect_as = ConnectAs::Admin(building.as_str());
        let mut session = self.inner.sessions.single(&connect_as, doing).await?;
        session.learn_pid().await;
        let [rw, shrink, ro] = &GROUPS;
        let script = Script::of("SET LOCAL ROLE {}", &[&DBA])
            .then("REVOKE ALL ON SCHEMA public FROM PUBLIC", &[])
            .then("GRANT USAGE, CREATE ON SCHEMA public TO {}", &[&OWNER])
            .then("GRANT USAGE ON SCHEMA public TO {}, {}, {}", &[rw, shrink, ro])
            .then("CREATE SCHEMA tenantry", &[])
            .then("GRANT USAGE, CREATE ON SCHEMA tenantry TO {}", &[&OWNER])
            .then("GRANT USAGE ON SCHEMA tenantry TO {}, {}, {}", &[rw, shrink, ro]);
        run_on(&mut session, doing, &script).await?;
        // On a server that was upgraded from 14, `public` may have another owner: then nothing was revoked.
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
