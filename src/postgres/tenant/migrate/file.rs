//! One file of a module: how it is applied, and where its errors are.

use futures::TryStreamExt;
use sqlx::{Acquire, PgConnection, Postgres, Row, Transaction, postgres::PgErrorPosition};

use crate::{
    modules::{Headers, Migration, Module, Statement, position_of, statements},
    postgres::{
        error::{Error, Result, bounded, code, describe, is_transient, reported},
        identifier::{Ident, Keyword, Literal, Number, Part, Script, module_sql},
        migration_error::MigrationError,
    },
};

/// A file, with what the server needs to know for it.
pub(in crate::postgres) struct ModuleFile<'a> {
    pub(super) module: &'a Module,
    pub(super) migration: &'a Migration,
    pub(super) headers: Headers,
    /// Where names without a schema are looked up.
    pub(super) search_path: &'a [Ident],
}

impl<'a> ModuleFile<'a> {
    /// Reads the headers of a file.
    pub(in crate::postgres) fn new(
        module: &'a Module,
        migration: &'a Migration,
        search_path: &'a [Ident],
    ) -> Result<Self> {
        let mut file = Self { module, migration, headers: Headers::default(), search_path };
        match migration.headers() {
            Ok(headers) => file.headers = headers,
            Err(error) => {
                return Err(file.error(Some((error.line, error.column)), error.message, None, false));
            }
        }
        Ok(file)
    }

    /// Whether its statements are committed one by one.
    pub(in crate::postgres) fn is_stepwise(&self) -> bool {
        self.headers.no_transaction
    }

    /// Runs the file in a transaction, which is still open afterwards. Returns how many statements it had.
    pub(in crate::postgres) async fn execute<'s>(
        &self,
        session: &'s mut PgConnection,
    ) -> Result<(Transaction<'s, Postgres>, u32)> {
        let mut transaction = session.begin().await.map_err(|error| self.located(&error, None, 0))?;
        // A file that commits or rolls back destroys the savepoint, and has another transaction if it begins one.
        let mut begin = self.settings(true)?;
        begin.add("SELECT pg_catalog.pg_current_xact_id()::text", &[]);
        begin.add("SAVEPOINT tenantry_file", &[]);
        let transaction_id =
            transaction_id(&mut transaction, &begin).await.map_err(|error| self.located(&error, None, 0))?;
        let mut done = 0;
        let result = {
            let mut results = sqlx::raw_sql(module_sql(&self.migration.sql)).execute_many(&mut *transaction);
            loop {
                match results.try_next().await {
                    Ok(Some(_)) => done += 1,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        };
        if let Err(error) = result {
            let all = statements(&self.migration.sql);
            return Err(self.located(&error, all.get(done), 0));
        }
        let end = Script::of("RELEASE SAVEPOINT tenantry_file", &[])
            // The file may have changed the role, the search_path or a timeout; the next one starts without that.
            .then("RESET ALL", &[])
            .then("RESET ROLE", &[])
            .then("SELECT pg_catalog.pg_current_xact_id()::text", &[]);
        match self::transaction_id(&mut transaction, &end).await {
            Ok(id) if id == transaction_id => Ok((transaction, u32::try_from(done).unwrap_or(u32::MAX))),
            Ok(_) => Err(self.failed(ENDS_TRANSACTION)),
            Err(error) if matches!(code(&error), Some("3B001" | "25P01")) => {
                Err(self.failed(ENDS_TRANSACTION))
            }
            Err(error) => Err(self.located(&error, None, 0)),
        }
    }

    /// The settings with which its statements run.
    pub(super) fn settings(&self, local: bool) -> Result<Script> {
        let scope = Keyword(if local { "LOCAL" } else { "SESSION" });
        let mut path: Vec<&dyn Part> = self.search_path.iter().map(|schema| schema as &dyn Part).collect();
        path.push(&Keyword("pg_temp"));
        let mut script = Script::new();
        script.add_list("SET {} search_path TO {}", &[&scope], &path);
        // A function that the file registers is the module's.
        script.add("SET {} tenantry.module TO {}", &[&scope, &Literal::new(&self.module.name)?]);
        for (template, timeout) in [
            ("SET {} lock_timeout TO {}", self.headers.lock_timeout),
            ("SET {} statement_timeout TO {}", self.headers.statement_timeout),
        ] {
            if let Some(millis) = timeout {
                script.add(template, &[&scope, &Number(millis)]);
            }
        }
        Ok(script)
    }

    /// Records the file as applied.
    pub(in crate::postgres) async fn record(&self, session: &mut PgConnection) -> Result<()> {
        sqlx::query(
            "INSERT INTO tenantry.migrations (module, version, file, checksum) VALUES ($1, $2, $3, $4)",
        )
        .bind(self.module.name.as_ref())
        .bind(self.migration.version)
        .bind(self.migration.file.as_ref())
        .bind(self.migration.checksum())
        .execute(session)
        .await
        .map(drop)
        .map_err(|error| self.located(&error, None, 0))
    }

    /// Commits its transaction: deferred constraints are checked now.
    pub(in crate::postgres) async fn commit(&self, transaction: Transaction<'_, Postgres>) -> Result<()> {
        transaction.commit().await.map_err(|error| self.located(&error, None, 0))
    }

    /// An error of the file as a whole.
    pub(in crate::postgres) fn failed(&self, message: impl Into<String>) -> Error {
        self.error(None, message.into(), None, false)
    }

    /// An error of one statement, which the server did not see.
    pub(super) fn failed_at(&self, statement: &Statement<'_>, message: impl Into<String>) -> Error {
        let place = position_of(&self.migration.sql, statement.start);
        self.error(Some(place), message.into(), None, false)
    }

    /// An error of the server. Its position counts from this byte of the file; without one, it is in the statement.
    pub(super) fn located(
        &self,
        error: &sqlx::Error,
        statement: Option<&Statement<'_>>,
        from: usize,
    ) -> Error {
        let sql = &self.migration.sql;
        let reported_byte = reported(error).and_then(|error| match error.position() {
            Some(PgErrorPosition::Original(position)) => Some(from + byte_of(&sql[from..], position)),
            _ => None,
        });
        let byte = reported_byte.or(statement.map(|statement| statement.start));
        let mut message = describe(error);
        let words = reported(error).map(|error| (error.code().to_owned(), error.message().to_owned()));
        let remedy = words.and_then(|(code, text)| remedy(&code, &text, statement, &self.module.schema));
        if let Some(remedy) = remedy {
            message = format!("{message}: {remedy}");
        }
        let place = byte.map(|byte| position_of(sql, byte));
        self.error(place, bounded(message), code(error).map(str::to_owned), is_transient(error))
    }

    fn error(
        &self,
        place: Option<(usize, usize)>,
        message: String,
        sql_state: Option<String>,
        transient: bool,
    ) -> Error {
        let (line, column) = place.unzip();
        Error::Migration(Box::new(MigrationError {
            module: self.module.name.to_string(),
            version: self.migration.version,
            file: self.migration.file.to_string(),
            line,
            column,
            message,
            sql_state,
            transient,
        }))
    }
}

const ENDS_TRANSACTION: &str = "ends its own transaction: remove COMMIT or ROLLBACK. Its statements before that may be in \
                                the database. (A file that begins with `-- tenantry: no-transaction` has none.)";

async fn transaction_id(session: &mut PgConnection, script: &Script) -> sqlx::Result<String> {
    let rows = sqlx::raw_sql(script.sql()).fetch_all(session).await?;
    rows.first().map_or(Err(sqlx::Error::RowNotFound), |row| row.try_get(0))
}

/// Undoes what a file that ended its own transaction, or a function or view of the tenant's, left in the session.
pub(in crate::postgres::tenant) async fn reset(session: &mut PgConnection) -> Result<()> {
    let query = sqlx::raw_sql("RESET ALL; RESET ROLE").execute(session).await;
    query.map(drop).map_err(Error::sql("reset the session"))
}

/// The byte of a position, which PostgreSQL counts in characters from 1.
fn byte_of(sql: &str, position: usize) -> usize {
    sql.char_indices().nth(position.saturating_sub(1)).map_or(sql.len(), |(byte, _)| byte)
}

/// What a module's author does about an error whose text does not say it.
fn remedy(code: &str, message: &str, statement: Option<&Statement<'_>>, schema: &str) -> Option<String> {
    match code {
        "25001" => Some("begin the file with `-- tenantry: no-transaction`, a line of its own".to_owned()),
        "42501" if message.starts_with("permission denied to create extension") => {
            Some("name it in spec.extensions of the module, and remove the statement".to_owned())
        }
        "42501" => Some(format!(
            "a module's SQL runs as tenantry_owner, which creates objects in schema {schema} and no roles, schemas or \
             temporary tables"
        )),
        "42704" if message.starts_with("role ") => {
            let is_of = |verb: &&str| statement.is_some_and(|statement| statement.begins_with(&[*verb]));
            let verb = ["GRANT", "REVOKE"].into_iter().find(is_of)?;
            Some(format!("a module grants no rights to roles, Tenantry alone does: remove the {verb}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_of_an_unknown_role_is_no_modules_to_grant() {
        let of =
            |sql: &str| remedy("42704", "role \"reporting\" does not exist", statements(sql).first(), "app");
        assert!(of("grant SELECT ON pages TO reporting").unwrap().ends_with("remove the GRANT"));
        assert!(of("REVOKE ALL ON pages FROM reporting").unwrap().ends_with("remove the REVOKE"));
        assert_eq!(of("ALTER TABLE pages OWNER TO reporting"), None);
        let of_type = statements("GRANT USAGE ON TYPE state TO tenantry_ro");
        assert_eq!(remedy("42704", "type \"state\" does not exist", of_type.first(), "app"), None);
    }

    #[test]
    fn positions_in_characters_become_bytes() {
        let sql = "SELECT 1;\nSELECT ü, x;\n";
        let place = |position| position_of(sql, byte_of(sql, position));
        assert_eq!((place(1), place(11), place(21)), ((1, 1), (2, 1), (2, 11)));
        assert_eq!(place(100), (3, 1));
    }
}
