//! Transactions that a tenant's login prepared with PREPARE TRANSACTION. They outlive the session and keep their locks,
//! and a later COMMIT PREPARED would write what the login may no longer write.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::postgres::{
    error::Result,
    identifier::{ADMIN, Ident, Keyword, Literal, Script},
};

use super::{
    connect::{ConnectAs, STATEMENT_LIMIT, with_timeout},
    pool::Sessions,
};

const DOING: &str = "roll back the tenant's prepared transactions";

/// A prepared transaction.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct Prepared {
    /// Its name.
    pub gid: String,
    /// The login, or before 16 its group.
    pub owner: String,
}

impl Sessions {
    /// Rolls back transactions that are prepared in a tenant's database.
    pub(in crate::postgres) async fn roll_back_prepared(
        self: &Arc<Self>,
        database: &Ident,
        prepared: &[Prepared],
    ) -> Result<()> {
        // One task at a time: two would grant and revoke the same membership.
        let _one = self.rolling_back.lock().await;
        let mut session = self.single_at_once(&ConnectAs::Admin(database.as_str()), DOING).await?;
        session.learn_pid().await;
        // Also on a server that is set to read-only: this revokes access.
        run(&mut session, &Script::of("SET default_transaction_read_only = off", &[])).await?;
        for Prepared { gid, owner } in prepared {
            let owner = Ident::new(owner)?;
            // Only the owner or a superuser may roll it back, in the same database and outside a transaction: the
            // operator becomes a member of the owner. An interruption leaves the membership:
            // `revoke_borrowed_memberships` ends it.
            let options =
                Keyword(if session.has_grant_options() { "WITH INHERIT FALSE, SET TRUE" } else { "" });
            let borrow =
                Script::of("GRANT {} TO {} {}", &[&owner, &ADMIN, &options]).then("SET ROLE {}", &[&owner]);
            run(&mut session, &borrow).await?;
            let undo = Script::of("ROLLBACK PREPARED {}", &[&Literal::new(gid)?]);
            let undone = run(&mut session, &undo).await;
            let give_back = Script::of("RESET ROLE", &[]).then("REVOKE {} FROM {}", &[&owner, &ADMIN]);
            run(&mut session, &give_back).await?;
            match undone {
                // The tenant ended it first; the level is not reported as in force yet.
                Err(error) if error.sql_state().as_deref() == Some("42704") => {}
                other => other?,
            }
        }
        session.close().await;
        Ok(())
    }
}

async fn run(session: &mut PgConnection, script: &Script) -> Result<()> {
    with_timeout(STATEMENT_LIMIT, DOING, sqlx::raw_sql(script.sql()).execute(session)).await.map(drop)
}
