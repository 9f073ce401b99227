//! The rehearsal of a module: its new files are applied to a scratch database before any tenant has them.

use std::time::Instant;

use crate::{
    domain::rehearsal::{FindingClass, Rehearsal, RehearsalFinding, RehearsedFile},
    modules::{Migration, Module, ModuleSet},
    postgres::{
        MigrationError,
        error::{Error, Result},
        identifier::Ident,
        server::Server,
        session::pool::Session,
        tenant::migrate::{self, OpenDatabase, file::ModuleFile, stepwise},
    },
};

impl Server {
    /// Applies a module's files to a scratch database that has the modules of `before`, those that it depends on. Files up to
    /// version `accepted` were rehearsed before, and are only applied. An error is one of the server, and the rehearsal can be
    /// repeated; what is wrong with the module is in the report.
    pub async fn rehearse(
        &self,
        before: &ModuleSet,
        module: &Module,
        accepted: i32,
        allow_destructive: bool,
    ) -> Result<Rehearsal> {
        let _one = self.inner.scratch_lock.lock().await;
        let mut modules = before.modules().to_vec();
        modules.push(module.clone());
        let scratch = self.create_scratch(before, ModuleSet::new(modules).digest()).await?;
        let result = self.rehearse_in(&scratch, module, accepted, allow_destructive).await;
        // What is left is dropped later.
        if let Err(error) = self.drop_named(&scratch).await {
            tracing::warn!(database = %scratch, %error, "could not drop a scratch database");
        }
        result
    }

    async fn rehearse_in(
        &self,
        scratch: &Ident,
        module: &Module,
        accepted: i32,
        _allow_destructive: bool,
    ) -> Result<Rehearsal> {
        let slot = self.inner.sessions.tenant_slot().await;
        let mut session = self.migrator(slot, scratch, "connect to the scratch database").await?;
        session.learn_pid().await;
        let database = OpenDatabase { server: self, name: scratch };
        let mut report = Rehearsal::default();
        let search_path = migrate::prepare(&database, &mut session, module).await?;
        for migration in module.migrations.iter() {
            let began = Instant::now();
            let result = apply(&mut session, module, migration, &search_path).await;
            let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (statements, failure) = match result {
                Ok(statements) => (statements, None),
                Err(Error::Migration(error)) if !error.transient => (0, Some(failed(&error))),
                Err(error) => return Err(error),
            };
            if migration.version > accepted || failure.is_some() {
                report.files.push(RehearsedFile {
                    version: migration.version,
                    file: migration.file.to_string(),
                    statements,
                    duration_millis: millis,
                    ..RehearsedFile::default()
                });
            }
            if let Some(finding) = failure {
                report.findings.push(finding);
                break;
            }
        }
        session.close_and_wait().await;
        Ok(report)
    }
}

async fn apply(
    session: &mut Session,
    module: &Module,
    migration: &Migration,
    search_path: &[Ident],
) -> Result<u32> {
    let file = ModuleFile::new(module, migration, search_path)?;
    if file.is_stepwise() {
        return stepwise::run(session, &file).await;
    }
    let (mut transaction, statements) = file.execute(session).await?;
    file.record(&mut transaction).await?;
    file.commit(transaction).await?;
    Ok(statements)
}

fn failed(error: &MigrationError) -> RehearsalFinding {
    RehearsalFinding {
        file: error.file.clone(),
        line: error.line,
        column: error.column,
        class: FindingClass::SqlFailed,
        object: String::new(),
        message: error.message.clone(),
        refused: true,
    }
}
