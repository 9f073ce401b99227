//! Transactions that a tenant's login left behind with PREPARE TRANSACTION. They outlive the session, keep their locks,
//! and are committed later with what was written when the login still might.

use super::{
    connect::Seat,
    error::Result,
    identifier::{ADMIN, Ident, Literal, Script, Word},
    migrate,
    roles::options_known,
    server::{Server, run_on},
};

/// A transaction that is prepared.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its name.
    pub gid: String,
    /// The login, or before 16 the group as which it acted.
    pub owner: String,
}

impl Server {
    /// Rolls back transactions that are prepared in a tenant's database.
    pub(super) async fn roll_back_prepared(&self, database: &Ident, prepared: &[Prepared]) -> Result<()> {
        let doing = "roll back the tenant's prepared transactions";
        let mut session = self.inner.sessions.single(&Seat::Admin(database.as_str()), doing).await?;
        session.pid = migrate::pid(&mut session).await;
        for Prepared { gid, owner } in prepared {
            let owner = Ident::new(owner)?;
            // Only the owner may (or a superuser), in the same database and outside a transaction: it is borrowed.
            // Cut before it is given back, it is given back by the next attempt.
            let options = Word(if options_known(&session) { "WITH INHERIT FALSE, SET TRUE" } else { "" });
            let borrow =
                Script::of("GRANT {} TO {} {}", &[&owner, &ADMIN, &options]).then("SET ROLE {}", &[&owner]);
            run_on(&mut session, doing, &borrow).await?;
            let undo = Script::of("ROLLBACK PREPARED {}", &[&Literal(gid)]);
            let undone = run_on(&mut session, doing, &undo).await;
            let give_back = Script::of("RESET ROLE", &[]).then("REVOKE {} FROM {}", &[&owner, &ADMIN]);
            run_on(&mut session, doing, &give_back).await?;
            match undone {
                // The tenant was faster; the level is not reported to be in force yet.
                Err(error) if error.sql_state().as_deref() == Some("42704") => {}
                other => other?,
            }
        }
        session.close().await;
        Ok(())
    }
}
