//! Transactions that a tenant's login prepared with PREPARE TRANSACTION. They outlive the session and keep their locks,
//! and a later COMMIT PREPARED would write what the login may no longer write.

use crate::postgres::{
    error::Result,
    identifier::{ADMIN, Ident, Keyword, Literal, Script},
    server::{Server, run_on},
    session::connect::ConnectAs,
};

/// A prepared transaction.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its name.
    pub gid: String,
    /// The login, or before 16 its group.
    pub owner: String,
}

impl Server {
    /// Rolls back transactions that are prepared in a tenant's database.
    pub(super) async fn roll_back_prepared(&self, database: &Ident, prepared: &[Prepared]) -> Result<()> {
        let doing = "roll back the tenant's prepared transactions";
        let mut session = self.single(&ConnectAs::Admin(database.as_str()), doing).await?;
        session.learn_pid().await;
        for Prepared { gid, owner } in prepared {
            let owner = Ident::new(owner)?;
            // Only the owner or a superuser may roll it back, in the same database and outside a transaction: the
            // operator becomes a member of the owner. After an interruption, the next attempt ends the membership.
            let options =
                Keyword(if session.has_grant_options() { "WITH INHERIT FALSE, SET TRUE" } else { "" });
            let borrow =
                Script::of("GRANT {} TO {} {}", &[&owner, &ADMIN, &options]).then("SET ROLE {}", &[&owner]);
            run_on(&mut session, doing, &borrow).await?;
            let undo = Script::of("ROLLBACK PREPARED {}", &[&Literal::new(gid)?]);
            let undone = run_on(&mut session, doing, &undo).await;
            let give_back = Script::of("RESET ROLE", &[]).then("REVOKE {} FROM {}", &[&owner, &ADMIN]);
            run_on(&mut session, doing, &give_back).await?;
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
