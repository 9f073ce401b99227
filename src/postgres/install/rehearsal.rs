//! The rehearsal of a module: its new files are applied to a scratch database before any tenant has them, and the catalogs
//! are compared. The comparison reads them in a session of its own, which no file can change.

mod place;
mod watch;

use std::time::Instant;

use futures::{FutureExt, future::BoxFuture};

use self::{place::place_of, watch::Watch};
use crate::{
    domain::{
        rehearsal::{
            FindingClass, Rehearsal, RehearsalFinding, RehearsedFile,
            catalog::CatalogSnapshot,
            compare::{Comparison, rights_findings},
        },
        rights::{RightsMismatch, rights_mismatches},
    },
    modules::{Migration, Module, ModuleSet},
    postgres::{
        MigrationError,
        catalog::{rights::read_rights, snapshot::read_snapshot},
        error::{Error, Result},
        identifier::Ident,
        server::Server,
        session::{connect::ConnectAs, migrator::MigratorSession, pool::Session},
        tenant::migrate::{
            self, OpenDatabase,
            file::ModuleFile,
            stepwise::{self, BeforeCommit},
        },
    },
};

const DOING: &str = "rehearse a module";

impl Server {
    /// Applies a module's files to a scratch database that has the modules of `before`, those that it depends on. Files up to
    /// version `accepted` were rehearsed before, and are only applied. What is wrong with the files is in the report. An
    /// error is one of the server, of an extension, or of the schema.
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
        allow_destructive: bool,
    ) -> Result<Rehearsal> {
        let slot = self.inner.sessions.tenant_slot().await;
        let session = self.migrator(slot, scratch, "connect to the scratch database").await?;
        // It waits for no session, since its caller holds one.
        let mut observer =
            self.inner.sessions.single_at_once(&ConnectAs::Admin(scratch.as_str()), DOING).await?;
        observer.learn_pid().await;
        let database = OpenDatabase { server: self, name: scratch };
        let mut rehearsing = Rehearsing { session, observer, module, allow_destructive };
        let result = rehearsing.run(&database, accepted).await;
        rehearsing.observer.close_and_wait().await;
        rehearsing.session.close().await?;
        result
    }
}

/// A rehearsal that runs.
struct Rehearsing<'a> {
    /// The migrator's, as in a tenant's database.
    session: MigratorSession,
    /// The operator's, for the catalogs.
    observer: Session,
    module: &'a Module,
    allow_destructive: bool,
}

/// Reads the locks of a file without a transaction, before each of its statements is committed.
struct LockWatch<'a> {
    watch: &'a mut Watch,
    observer: &'a mut Session,
    pid: Option<i32>,
    tenants: &'a CatalogSnapshot,
}

impl BeforeCommit for LockWatch<'_> {
    fn look(&mut self) -> BoxFuture<'_, Result<()>> {
        self.watch.read_locks(self.observer, self.pid, self.tenants).boxed()
    }
}

/// What the catalogs show between two files.
struct Shown {
    catalog: CatalogSnapshot,
    rights: Vec<RightsMismatch>,
}

impl Rehearsing<'_> {
    async fn run(&mut self, database: &OpenDatabase<'_>, accepted: i32) -> Result<Rehearsal> {
        let mut report = Rehearsal::default();
        let others = read_snapshot(&mut self.observer).await?;
        let search_path = migrate::prepare(database, &mut self.session, self.module).await?;
        let (known, new): (Vec<&Migration>, Vec<&Migration>) =
            self.module.migrations.iter().partition(|migration| migration.version <= accepted);
        for migration in known {
            if let Err(error) = self.apply_known(migration, &search_path).await {
                report.findings.push(finding_of(error)?);
                return Ok(report);
            }
        }
        let mut watch = Watch::begin(&mut self.session, &mut self.observer).await?;
        let tenants = self.look().await?;
        let mut before = Shown { catalog: tenants.catalog.clone(), rights: tenants.rights };
        for migration in new {
            let began = Instant::now();
            let result = self.apply(migration, &search_path, &mut watch, &tenants.catalog).await;
            let mut file = RehearsedFile {
                version: migration.version,
                file: migration.file.to_string(),
                duration_millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                ..RehearsedFile::default()
            };
            match result {
                Ok(statements) => file.statements = statements,
                Err(error) => {
                    report.findings.push(finding_of(error)?);
                    report.files.push(file);
                    break;
                }
            }
            let after = self.look().await?;
            let seen = watch.end_file(&mut self.observer).await?;
            let comparison = Comparison {
                schema: &self.module.schema,
                others: &others,
                accepted: &tenants.catalog,
                before: &before.catalog,
                after: &after.catalog,
                rows: &seen.rows,
                unwatched: &seen.unwatched,
                allow_destructive: self.allow_destructive,
            };
            file.locks = seen.locks;
            file.rewritten = comparison.rewritten();
            let mut findings = seen.findings;
            findings.extend(comparison.findings());
            findings.extend(rights_findings(&before.rights, &after.rights));
            if comparison.has_new_meters() {
                findings.extend(watch::forged_meters(&mut self.session).await?);
            }
            for finding in &mut findings {
                finding.file = migration.file.to_string();
                let place = place_of(&migration.sql, &finding.object, finding.right.as_ref());
                (finding.line, finding.column) = place.unzip();
            }
            // Those of the whole file come last.
            findings.sort_by_key(|finding| (finding.line.is_none(), finding.line, finding.column));
            report.findings.extend(findings);
            report.files.push(file);
            before = after;
        }
        Ok(report)
    }

    async fn look(&mut self) -> Result<Shown> {
        let catalog = read_snapshot(&mut self.observer).await?;
        // No login of a tenant is here.
        let rights = rights_mismatches(&read_rights(&mut self.observer, None, &[]).await?.objects, &[]);
        Ok(Shown { catalog, rights })
    }

    async fn apply_known(&mut self, migration: &Migration, search_path: &[Ident]) -> Result<()> {
        let file = ModuleFile::new(self.module, migration, search_path)?;
        if file.is_stepwise() {
            return stepwise::run(&mut self.session, &file, None).await.map(drop);
        }
        let (mut transaction, _) = file.execute(&mut self.session).await?;
        file.record(&mut transaction).await?;
        file.commit(transaction).await
    }

    async fn apply(
        &mut self,
        migration: &Migration,
        search_path: &[Ident],
        watch: &mut Watch,
        tenants: &CatalogSnapshot,
    ) -> Result<u32> {
        let file = ModuleFile::new(self.module, migration, search_path)?;
        let (session, observer) = (&mut self.session, &mut self.observer);
        let pid = session.pid;
        if file.is_stepwise() {
            let mut locks = LockWatch { watch, observer, pid, tenants };
            return stepwise::run(session, &file, Some(&mut locks)).await;
        }
        let (mut transaction, statements) = file.execute(session).await?;
        watch.read_locks(observer, pid, tenants).await?;
        file.record(&mut transaction).await?;
        file.commit(transaction).await?;
        Ok(statements)
    }
}

/// The finding of an error that is the file's; else the error.
fn finding_of(error: Error) -> Result<RehearsalFinding> {
    match error {
        Error::Migration(error) if !error.transient => Ok(failed(&error)),
        error => Err(error),
    }
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
        right: None,
    }
}
