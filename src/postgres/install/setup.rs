//! `tenantry server-setup`: the setup of a server by an administrator, once per server. It can be run again: it changes
//! only what differs.
//!
//! The administrator is a superuser, or the role with CREATEROLE and CREATEDB of a managed service. What such a role may
//! not do is listed and does not end the setup. PostgreSQL answers some statements with a mere warning (a REVOKE by a
//! role that did not grant), so every point is verified.

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

pub use super::points::SetupOptions;
use super::points::{self, Point, Statement, Step};
use crate::postgres::{
    error::{Error, Result},
    session::connect::{MAINTENANCE_DATABASE, connect_by_url},
};

/// The result, line by line, for the administrator.
#[derive(Debug, Default)]
pub struct SetupReport {
    /// What is in place.
    pub done: Vec<String>,
    /// What this administrator was not allowed to do, and the operator can work without.
    pub reduced: Vec<String>,
    /// What this administrator was not allowed to do, and the operator needs.
    pub refused: Vec<String>,
}

/// Sets a server up, with the administrator's connection options.
pub async fn server_setup(admin: PgConnectOptions, options: &SetupOptions) -> Result<SetupReport> {
    let admin = admin
        .application_name("tenantry server-setup")
        // sqlx would log statements, and slow ones as warnings; one contains a password verifier.
        .disable_statement_logging()
        .options([
            ("search_path", "pg_catalog,pg_temp"),
            ("client_min_messages", "error"),
            ("statement_timeout", "0"),
        ]);
    let points = points::in_postgres(options)?;
    let doing = "connect as the administrator";
    let session = connect_by_url(&admin.clone().database(MAINTENANCE_DATABASE), doing).await?;
    let mut setup = Setup::new(session, SetupReport::default());
    for point in &points {
        setup.reach(point).await?;
        // Everything else depends on the first point, the role tenantry_admin.
        if setup.report.done.is_empty() {
            return Ok(setup.report);
        }
    }
    let mut report = setup.close().await?;

    let session = match connect_by_url(&admin.database("template1"), "connect to template1").await {
        Ok(session) => session,
        Err(error) if error.sql_state().is_some() => {
            report
                .reduced
                .extend(points::in_template1().iter().map(|point| format!("{}: {error}", point.what)));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let mut setup = Setup::new(session, report);
    for point in &points::in_template1() {
        setup.reach(point).await?;
    }
    setup.close().await
}

struct Setup {
    session: PgConnection,
    version: u32,
    report: SetupReport,
}

impl Setup {
    fn new(session: PgConnection, report: SetupReport) -> Self {
        let version = session.server_version_num().unwrap_or_default();
        Self { session, version, report }
    }

    async fn close(self) -> Result<SetupReport> {
        self.session.close().await.map_err(Error::sql("close the administrator's session"))?;
        Ok(self.report)
    }

    /// Runs the steps of a point, verifies the result, and reports it.
    async fn reach(&mut self, point: &Point) -> Result<()> {
        let steps: Vec<&Step> = point.steps.iter().filter(|step| step.applies(self.version)).collect();
        if steps.is_empty() {
            return Ok(());
        }
        let mut refusal = None;
        for step in &steps {
            let refused = self.take(step).await?;
            refusal = refusal.or(refused);
        }
        for step in &steps {
            if !self.is_right(step).await? && refusal.is_none() {
                refusal = Some("the server ignored it; the owner of the object can do it".to_owned());
            }
        }
        let Some(why) = refusal else {
            self.report.done.push(point.what.clone());
            return Ok(());
        };
        let lines = if point.required { &mut self.report.refused } else { &mut self.report.reduced };
        lines.push(format!("{}: {why}", point.what));
        Ok(())
    }

    /// Runs a step. A refusal by the server is a result; only a lost connection ends the setup.
    async fn take(&mut self, step: &Step) -> Result<Option<String>> {
        let script = match &step.statement {
            Statement::Block(script) => script,
            Statement::CreateDatabase(_) if self.is_right(step).await? => return Ok(None),
            Statement::CreateDatabase(script) => script,
        };
        match sqlx::raw_sql(script.sql()).execute(&mut self.session).await {
            Ok(_) => Ok(None),
            Err(error) if crate::postgres::error::reported(&error).is_some() => {
                Ok(Some(crate::postgres::error::describe(&error)))
            }
            Err(error) => Err(Error::sql("set the server up")(error)),
        }
    }

    async fn is_right(&mut self, step: &Step) -> Result<bool> {
        let Some(query) = &step.is_right else { return Ok(true) };
        let answer: Option<Option<bool>> = sqlx::query_scalar(query.sql())
            .fetch_optional(&mut self.session)
            .await
            .map_err(Error::sql("read the state of the server"))?;
        Ok(answer.flatten() == Some(true))
    }
}
