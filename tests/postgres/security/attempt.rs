//! One attempt of an action.

use std::fmt;

use futures::StreamExt;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::actions::What;

/// The role that attempts an action: the tenant's login, or a superuser for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    Tenant,
    Administrator,
}

/// The result, as the table shows it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Yes,
    /// PostgreSQL accepts the statement, and it has no effect.
    NoEffect,
    /// It is refused, with this SQLSTATE.
    Refused(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::NoEffect => f.write_str("no"),
            Self::Refused(code) => write!(f, "no ({code})"),
        }
    }
}

/// What the words in braces mean.
pub type Names = Vec<(&'static str, String)>;

/// Attempts statements in a session.
pub async fn attempt(session: &mut PgConnection, what: What, names: &Names) -> sqlx::Result<Outcome> {
    if let What::Statements(_) | What::Effect(..) = what {
        run(session, "BEGIN").await?;
    }
    let outcome = match what {
        What::Statements(statements) | What::Alone(statements, _) => {
            run_all(session, statements, names).await.map(|()| true)
        }
        What::Effect(statements, effect) | What::AloneEffect(statements, effect) => {
            observed(session, statements, effect, names).await
        }
        What::Login(..) | What::Password | What::Replication => Ok(true),
    };
    match what {
        What::Statements(_) | What::Effect(..) => run(session, "ROLLBACK").await?,
        What::Alone(_, cleanup) if outcome.is_ok() => run_all(session, cleanup, names).await?,
        _ => {}
    }
    outcome.map(|effect| if effect { Outcome::Yes } else { Outcome::NoEffect }).or_else(refused)
}

/// Replaces the words in braces.
pub fn fill(sql: &str, names: &Names) -> String {
    names.iter().fold(sql.to_owned(), |sql, (name, value)| sql.replace(&format!("{{{name}}}"), value))
}

/// A refusal of the server. Another error is not a result.
pub fn refused(error: sqlx::Error) -> sqlx::Result<Outcome> {
    let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
    code.map(Outcome::Refused).ok_or(error)
}

async fn observed(
    session: &mut PgConnection,
    statements: &[&str],
    effect: &str,
    names: &Names,
) -> sqlx::Result<bool> {
    run_all(session, statements, names).await?;
    let effect = format!("SELECT {}", fill(effect, names));
    sqlx::query_scalar(AssertSqlSafe(effect)).fetch_one(session).await
}

async fn run_all(session: &mut PgConnection, statements: &[&str], names: &Names) -> sqlx::Result<()> {
    for statement in statements {
        run(session, &fill(statement, names)).await?;
    }
    Ok(())
}

async fn run(session: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
    if statement.ends_with("FROM STDIN") {
        return session.copy_in_raw(statement).await?.finish().await.map(drop);
    }
    if statement.ends_with("TO STDOUT") {
        let mut rows = session.copy_out_raw(statement).await?;
        while let Some(row) = rows.next().await {
            row?;
        }
        return Ok(());
    }
    session.execute(AssertSqlSafe(statement.to_owned())).await.map(drop)
}

/// Opens a session, or returns why the server refuses it.
pub async fn log_in(url: &str) -> sqlx::Result<Result<PgConnection, Outcome>> {
    match PgConnection::connect(url).await {
        Ok(session) => Ok(Ok(session)),
        Err(error) => refused(error).map(Err),
    }
}
