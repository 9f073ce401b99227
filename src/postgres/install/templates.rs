//! Templates: a migrated database for each set of modules, from which tenants are cloned, so that no migration runs
//! for a new tenant.
//!
//! A template is built under another name and published by a rename, like a tenant's database: a template of the final
//! name is complete. No role may connect to it, since one session on it would block every clone.

use std::{collections::HashSet, sync::Arc};

use sqlx::{PgConnection, Row};

use super::{large_objects::WRITERS_ARE_CLOSED, rights::MissingRight, template_source::TemplateSource};
use crate::{
    domain::{rehearsal::catalog::CatalogSnapshot, structure::SchemaPart},
    modules::{BOOTSTRAP, ModuleSet},
    postgres::{
        catalog::{ownership, snapshot::read_snapshot, structure::read_structure},
        error::{Error, Result, is_duplicate},
        identifier::{DBA, GROUPS, Ident, Literal, OWNER, Script},
        server::{Server, run_on},
        session::{
            connect::{ANSWER_LIMIT, ConnectAs, with_timeout},
            migrator::MigratorSession,
            pool::lock,
        },
        tenant::migrate::{self, OpenDatabase},
    },
};

/// The part of a template's name before the digest.
const PREFIX: &str = "tenantry_template_";

/// The end of the comment of a template in which PUBLIC may write large objects.
const OPEN: &str = " large-objects";

/// The digest in a template's name.
pub(in crate::postgres) fn digest_of(template: &Ident) -> &str {
    template.as_str().strip_prefix(PREFIX).unwrap_or(template.as_str())
}

/// The state of a template.
enum TemplateState {
    Absent,
    Complete,
    /// It is Tenantry's, and is replaced: a DROP DATABASE of it was interrupted, or its collation has another version
    /// than the server's, so that PostgreSQL refuses to clone it.
    Unusable,
}

/// What a template lacks because of its source.
struct SourceFaults {
    /// Its schema `public` has another owner than the database, so that nothing could be revoked there.
    foreign_schema: bool,
    /// PUBLIC may write large objects.
    large_objects: bool,
}

const FIND: &str = "\
SELECT shobj_description(d.oid, 'pg_database') AS comment, pg_get_userbyid(d.datdba) = 'tenantry_dba' AS owned,
       d.datconnlimit = -2
           OR d.datcollversion IS NOT NULL
               AND d.datcollversion IS DISTINCT FROM pg_database_collation_actual_version(d.oid) AS unusable
FROM pg_database AS d WHERE d.datname = $1";

const FIND_ALL: &str = "\
SELECT d.datname::text AS name, shobj_description(d.oid, 'pg_database') AS comment
FROM pg_database AS d WHERE pg_get_userbyid(d.datdba) = 'tenantry_dba' AND starts_with(d.datname, 'tenantry_template_')
ORDER BY d.datname";

const FIND_OPEN: &str = "\
SELECT d.datname::text FROM pg_database AS d
WHERE starts_with(d.datname, 'tenantry_template_') AND pg_get_userbyid(d.datdba) = 'tenantry_dba'
  AND right(shobj_description(d.oid, 'pg_database'), length($1)) = $1
ORDER BY d.datname LIMIT 1";

impl Server {
    /// The name of the template of a set of modules, which is built if it does not exist. It is checked each time: it may
    /// have been dropped, and a template that was changed is not cloned.
    pub async fn ensure_template(&self, modules: &ModuleSet) -> Result<String> {
        let template = Ident::template(modules.digest())?;
        if !matches!(self.find_template(&template).await?, TemplateState::Complete) {
            if let Some(module) = modules.job() {
                return Err(Error::TemplateNeedsRun { module: module.name.to_string() });
            }
            let _one = self.inner.template_lock.lock().await;
            let found = self.find_template(&template).await?;
            if matches!(found, TemplateState::Unusable) {
                self.drop_named(&template).await?;
            }
            if !matches!(found, TemplateState::Complete) {
                self.build_template(modules, &template).await?;
            }
        }
        Ok(template.to_string())
    }

    /// Goes on with a template in which applications' own tools run: from the beginning, or after the run of one was recorded.
    /// Returns the module whose tool has to run now, on the database under its building name; none if the template is there.
    pub async fn continue_template(&self, modules: &ModuleSet, is_new: bool) -> Result<Option<String>> {
        let template = Ident::template(modules.digest())?;
        let _one = self.inner.template_lock.lock().await;
        match self.find_template(&template).await? {
            TemplateState::Complete => return Ok(None),
            TemplateState::Unusable => self.drop_named(&template).await?,
            TemplateState::Absent => {}
        }
        let building = Ident::template_building(modules.digest())?;
        let open_objects = if is_new {
            self.begin_template(modules, &building).await?
        } else {
            self.has_open_objects(&building).await?
        };
        let awaited = self.fill_template(modules, &building, is_new).await?;
        if awaited.is_none() {
            self.publish_template(modules, &building, &template, open_objects).await?;
        }
        Ok(awaited)
    }

    /// Whether PUBLIC may write large objects in a database that is built.
    async fn has_open_objects(&self, building: &Ident) -> Result<bool> {
        let doing = "read the rights in the template";
        let connect_as = ConnectAs::Admin(building.as_str());
        let mut session = self.inner.sessions.single(&connect_as, doing).await?;
        let closed = sqlx::query_scalar::<_, bool>(WRITERS_ARE_CLOSED).fetch_one(&mut *session).await;
        session.close_and_wait().await;
        Ok(!closed.map_err(Error::sql(doing))?)
    }

    /// Drops one template, or the remains of one, whose digest is not needed. Returns its name, if there was one. Only a
    /// database of the operator's, whose comment and name agree on the digest, is a template. One that is in use stays.
    pub async fn drop_old_template(&self, needed: &HashSet<String>) -> Result<Option<String>> {
        let mut session = self.admin().await?;
        let query = sqlx::query_as::<_, (String, Option<String>)>(FIND_ALL).fetch_all(&mut *session);
        let found = with_timeout(ANSWER_LIMIT, "read the templates", query).await?;
        session.release();
        let mut failure = None;
        for (name, comment) in found {
            let Some(digest) = comment.as_deref().and_then(commented_digest) else { continue };
            let names = [Ident::template(digest)?, Ident::template_building(digest)?];
            if let Some(template) = names.iter().find(|template| template.as_str() == name)
                && !needed.contains(digest)
            {
                match self.drop_named(template).await {
                    Ok(()) => return Ok(Some(name)),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// The right that is missing if PUBLIC may write large objects in a template.
    pub async fn large_objects_in_template(&self) -> Result<Option<MissingRight>> {
        let mut session = self.admin().await?;
        let found = open_template(&mut session).await?;
        session.release();
        Ok(found)
    }

    /// What the template of a set of modules has, as the migrator reads it. No role may connect to a template: a clone of it is
    /// read, and dropped. The caller has no session.
    pub(in crate::postgres) async fn template_structure(
        &self,
        modules: &ModuleSet,
    ) -> Result<Arc<Vec<SchemaPart>>> {
        let template = Ident::new(&self.ensure_template(modules).await?)?;
        let _one = self.inner.template_lock.lock().await;
        if let Some(known) = lock(&self.inner.structures).get(modules.digest()) {
            return Ok(Arc::clone(known));
        }
        let (mut session, clone) = self.clone_template(modules, &template).await?;
        let read = read_structure(&mut session).await;
        session.close().await?;
        self.drop_named(&clone).await?;
        let read = Arc::new(read?);
        lock(&self.inner.structures).insert(modules.digest().to_owned(), Arc::clone(&read));
        Ok(read)
    }

    /// All objects of the template of a set of modules, in the same way.
    pub(in crate::postgres) async fn template_snapshot(
        &self,
        modules: &ModuleSet,
    ) -> Result<CatalogSnapshot> {
        let template = Ident::new(&self.ensure_template(modules).await?)?;
        let _one = self.inner.template_lock.lock().await;
        let (mut session, clone) = self.clone_template(modules, &template).await?;
        let read = read_snapshot(&mut session).await;
        session.close().await?;
        self.drop_named(&clone).await?;
        read
    }

    /// A clone of a template, and a session of the migrator in it. The caller holds the lock for templates.
    async fn clone_template(
        &self,
        modules: &ModuleSet,
        template: &Ident,
    ) -> Result<(MigratorSession, Ident)> {
        let building = Ident::template_building(modules.digest())?;
        self.drop_named(&building).await?;
        let clone = Script::of(
            "CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY wal_log ALLOW_CONNECTIONS false",
            &[&building, &DBA, template],
        );
        self.run("clone the template", &clone).await?;
        self.open_building(modules, &building).await?;
        let slot = self.inner.sessions.tenant_slot().await;
        let session = self.migrator(slot, &building, "connect to the clone of the template").await?;
        Ok((session, building))
    }

    async fn find_template(&self, template: &Ident) -> Result<TemplateState> {
        let mut session = self.admin().await?;
        let query = sqlx::query(FIND).bind(template.as_str()).fetch_optional(&mut *session);
        let row = with_timeout(ANSWER_LIMIT, "read the template", query).await?;
        session.release();
        let Some(row) = row else { return Ok(TemplateState::Absent) };
        let read = || -> sqlx::Result<(Option<String>, bool, bool)> {
            Ok((row.try_get("comment")?, row.try_get("owned")?, row.try_get("unusable")?))
        };
        let (comment, owned, unusable) = read().map_err(Error::sql("read the template"))?;
        let comment = comment.unwrap_or_default();
        if commented_digest(&comment) != Some(digest_of(template)) || !owned {
            let detail = "lost its comment or its owner, or is not Tenantry's".to_owned();
            return Err(Error::TemplateBroken { name: template.to_string(), detail });
        }
        if unusable {
            return Ok(TemplateState::Unusable);
        }
        Ok(TemplateState::Complete)
    }

    async fn build_template(&self, modules: &ModuleSet, template: &Ident) -> Result<()> {
        let building = Ident::template_building(modules.digest())?;
        let open_objects = self.begin_template(modules, &building).await?;
        self.fill_template(modules, &building, true).await?;
        self.publish_template(modules, &building, template, open_objects).await
    }

    /// Creates the database that becomes a template. Returns whether PUBLIC may write large objects there.
    async fn begin_template(&self, modules: &ModuleSet, building: &Ident) -> Result<bool> {
        let mut session = self.admin().await?;
        let mut source = TemplateSource::choose(&mut session).await?;
        session.release();
        let faults = loop {
            self.create_building(modules, building, source).await?;
            let faults = self.prepare_schemas(building).await?;
            match source {
                TemplateSource::Template1 if faults.foreign_schema => source = TemplateSource::Template0,
                _ => break faults,
            }
        };
        if faults.foreign_schema {
            return Err(Error::MissingRight(
                "in template0, schema public is not owned by pg_database_owner, so that its rights cannot be set"
                    .to_owned(),
            ));
        }
        Ok(faults.large_objects)
    }

    /// Applies the modules to the database that becomes a template. Returns the module whose tool has to run next.
    async fn fill_template(
        &self,
        modules: &ModuleSet,
        building: &Ident,
        is_new: bool,
    ) -> Result<Option<String>> {
        let slot = self.inner.sessions.tenant_slot().await;
        let mut session = self.migrator(slot, building, "connect to the template").await?;
        if is_new {
            sqlx::raw_sql(BOOTSTRAP)
                .execute(&mut **session)
                .await
                .map_err(Error::sql("prepare the template's privileges"))?;
        }
        let database = OpenDatabase { server: self, name: building };
        let migrated = migrate::apply(&database, &mut session, modules).await?;
        let needs_run = |module: &&migrate::ModuleOutcome| module.awaits == Some(migrate::Awaited::Run);
        let awaited = migrated.modules.iter().find(needs_run).map(|module| module.name.clone());
        session.close().await?;
        migrated.into_result()?;
        Ok(awaited)
    }

    async fn publish_template(
        &self,
        modules: &ModuleSet,
        building: &Ident,
        template: &Ident,
        open_objects: bool,
    ) -> Result<()> {
        let mut publish = Script::new();
        if open_objects {
            let comment = format!("{}{OPEN}", ownership::template(modules.digest()));
            publish.add("COMMENT ON DATABASE {} IS {}", &[building, &Literal::new(&comment)?]);
        }
        let publish = publish
            .then("ALTER DATABASE {} ALLOW_CONNECTIONS false", &[building])
            .then("ALTER DATABASE {} RENAME TO {}", &[building, template]);
        match self.run("publish the template", &publish).await {
            // Another process was faster; its template is the same.
            Err(Error::Sql { source, .. }) if is_duplicate(&source) => self.drop_named(building).await,
            other => other,
        }
    }

    /// Creates the database that becomes a template, instead of what an interrupted attempt left.
    async fn create_building(
        &self,
        modules: &ModuleSet,
        building: &Ident,
        source: TemplateSource,
    ) -> Result<()> {
        self.drop_named(building).await?;
        let create = Script::of(source.create_database(), &[building, &DBA]);
        self.run("create the template", &create).await?;
        self.open_building(modules, building).await
    }

    /// Opens a database that is being built, for the operator alone.
    async fn open_building(&self, modules: &ModuleSet, building: &Ident) -> Result<()> {
        let open = Script::of(
            "COMMENT ON DATABASE {} IS {}",
            &[building, &Literal::new(&ownership::template(modules.digest()))?],
        )
        .then("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[building])
        .then("ALTER DATABASE {} ALLOW_CONNECTIONS true", &[building]);
        self.run("open the template", &open).await
    }

    /// Sets up the schemas `public` and `tenantry`, as the owner of the database.
    async fn prepare_schemas(&self, building: &Ident) -> Result<SourceFaults> {
        let doing = "prepare the template's schemas";
        let connect_as = ConnectAs::Admin(building.as_str());
        let mut session = self.inner.sessions.single(&connect_as, doing).await?;
        session.learn_pid().await;
        let [rw, shrink, ro] = &GROUPS;
        let script = Script::of("SET LOCAL ROLE {}", &[&DBA])
            // An administrator may have dropped it in template1, and some services do.
            .then("CREATE SCHEMA IF NOT EXISTS public", &[])
            .then("REVOKE ALL ON SCHEMA public FROM PUBLIC", &[])
            .then("GRANT USAGE, CREATE ON SCHEMA public TO {}", &[&OWNER])
            .then("GRANT USAGE ON SCHEMA public TO {}, {}, {}", &[rw, shrink, ro])
            .then("CREATE SCHEMA tenantry", &[])
            .then("GRANT USAGE, CREATE ON SCHEMA tenantry TO {}", &[&OWNER])
            .then("GRANT USAGE ON SCHEMA tenantry TO {}, {}, {}", &[rw, shrink, ro]);
        run_on(&mut session, doing, &script).await?;
        // On a server that was upgraded from 14, `public` may have another owner: then nothing was revoked.
        let foreign_schema = sqlx::query_scalar::<_, bool>(
            "SELECT has_schema_privilege('tenantry_rw', 'public', 'CREATE')
                 OR NOT has_schema_privilege('tenantry_owner', 'public', 'CREATE')",
        )
        .fetch_one(&mut *session)
        .await
        .map_err(Error::sql(doing))?;
        let closed = sqlx::query_scalar::<_, bool>(WRITERS_ARE_CLOSED)
            .fetch_one(&mut *session)
            .await
            .map_err(Error::sql(doing))?;
        session.close_and_wait().await;
        Ok(SourceFaults { foreign_schema, large_objects: !closed })
    }
}

/// The right that is missing if PUBLIC may write large objects in a template, by the comments of the templates.
pub(super) async fn open_template(session: &mut PgConnection) -> Result<Option<MissingRight>> {
    let query = sqlx::query_scalar(FIND_OPEN).bind(OPEN).fetch_optional(session);
    let template = with_timeout(ANSWER_LIMIT, "read the templates' comments", query).await?;
    Ok(template.map(|template| MissingRight::LargeObjects { template }))
}

/// The digest in the comment of a template.
pub(in crate::postgres) fn commented_digest(comment: &str) -> Option<&str> {
    let digest = comment.strip_prefix(&ownership::template(""))?;
    let digest = digest.strip_suffix(OPEN).unwrap_or(digest);
    (!digest.is_empty()).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_read_from_the_comments_of_templates_only() {
        let comment = ownership::template("abc");
        assert_eq!(commented_digest(&comment), Some("abc"));
        assert_eq!(commented_digest(&format!("{comment}{OPEN}")), Some("abc"));
        for other in ["", "tenantry:template:", "tenantry:tenant:abc", "my template"] {
            assert_eq!(commented_digest(other), None, "{other}");
        }
    }
}
