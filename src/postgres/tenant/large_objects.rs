//! Large objects of a tenant's login in databases other than its own. It can have some where PUBLIC may connect; as long
//! as they exist, PostgreSQL does not drop the login.

use sqlx::Row;

use crate::postgres::{
    error::{Error, Result},
    identifier::{ADMIN, Ident, Keyword, Literal, Number, Script},
    server::{Server, run_despite_read_only},
    session::connect::{ANSWER_LIMIT, ConnectAs, with_timeout},
};

/// How many are deleted in one transaction: each takes a lock.
const BATCH: i32 = 1000;

/// The databases in which the login owns large objects, and which the operator may connect to.
const DATABASES: &str = "\
SELECT d.datname::text FROM pg_database AS d
WHERE d.datallowconn AND has_database_privilege(d.oid, 'CONNECT') AND EXISTS (
    SELECT FROM pg_shdepend AS s
    WHERE s.dbid = d.oid AND s.classid = 'pg_largeobject'::regclass AND s.deptype = 'o'
      AND s.refclassid = 'pg_authid'::regclass
      AND s.refobjid = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = $1))";

impl Server {
    /// Deletes the large objects of a login in all databases that the operator may connect to.
    pub(super) async fn delete_large_objects(&self, login: &Ident) -> Result<()> {
        let mut session = self.admin().await?;
        let query = sqlx::query_scalar(DATABASES).bind(login.as_str()).fetch_all(&mut *session);
        let databases: Vec<String> =
            with_timeout(ANSWER_LIMIT, "find the login's large objects", query).await?;
        session.release();
        for database in databases {
            self.delete_large_objects_in(&database, login).await?;
        }
        Ok(())
    }

    async fn delete_large_objects_in(&self, database: &str, login: &Ident) -> Result<()> {
        let doing = "delete the login's large objects";
        let mut session = self.inner.sessions.single(&ConnectAs::Admin(database), doing).await?;
        session.learn_pid().await;
        // Only their owner may delete them: the operator becomes a member of the login until the end of the transaction.
        let options = Keyword(if session.has_grant_options() { "WITH INHERIT TRUE, SET FALSE" } else { "" });
        let delete = Script::of("GRANT {} TO {} {}", &[login, &ADMIN, &options])
            .then(
                "SELECT lo_unlink(m.oid) FROM (SELECT m.oid FROM pg_largeobject_metadata AS m \
                 WHERE m.lomowner = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = {}) LIMIT {}) AS m",
                &[&Literal::from(login), &Number(BATCH)],
            )
            .then("REVOKE {} FROM {}", &[login, &ADMIN]);
        let left = "SELECT EXISTS (SELECT FROM pg_largeobject_metadata AS m JOIN pg_roles AS r ON r.oid = m.lomowner \
                    WHERE r.rolname = $1) AS left";
        let deleted = loop {
            let query = sqlx::query(left).bind(login.as_str()).fetch_one(&mut *session);
            let is_left = with_timeout(ANSWER_LIMIT, doing, query)
                .await
                .and_then(|row| row.try_get("left").map_err(Error::sql(doing)));
            match is_left {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
            if let Err(error) = run_despite_read_only(&mut session, doing, &delete).await {
                break Err(error);
            }
        };
        session.close().await;
        deleted
    }
}
