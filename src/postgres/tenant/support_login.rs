//! Support logins: with one, a person reads the data of one tenant for a limited time. It is made for one SupportAccess, and
//! taken away after it (`migration_login_end`).
//!
//! It is a member of no role: its rights are its own, on columns of this one database, and go with it. PostgreSQL itself ends
//! it at its time (`VALID UNTIL`), also while no operator runs. The comment, CONNECT and LOGIN are one transaction, so that one
//! that is interrupted while it is made is found by its comment.

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    credentials::{SecretText, is_verifier},
    grants::add_right,
};
use crate::{
    domain::{
        placement::Placement,
        support::{
            login::CONNECTION_LIMIT,
            rights::{ReadRights, SupportRightsChange, support_rights_changes},
        },
        tenant_facts::Ownership,
    },
    postgres::{
        catalog::{inventory, ownership},
        error::{Error, Result, is_duplicate},
        identifier::{DBA, Ident, Keyword, Literal, NO_ATTRIBUTES, Number, Part, PartList, Quoted, Script},
        server::{Server, run_on},
        session::connect::{ANSWER_LIMIT, ConnectAs, STATEMENT_LIMIT, with_timeout},
    },
};

const DOING: &str = "create the support login";

/// Defaults of its sessions. A session may change them: they end what was forgotten, and explain a refused write. What it
/// may do does not depend on them.
const SETTINGS: [(Keyword, &str); 4] = [
    (Keyword("default_transaction_read_only"), "on"),
    (Keyword("idle_session_timeout"), "15min"),
    (Keyword("idle_in_transaction_session_timeout"), "5min"),
    (Keyword("statement_timeout"), "5min"),
];

/// A support login as it is wanted.
#[derive(Clone, Copy, Debug)]
pub struct SupportLogin<'a> {
    /// The SupportAccess that it is for.
    pub access: Uuid,
    /// Its name.
    pub name: &'a str,
    /// The verifier of its password.
    pub verifier: &'a str,
    /// When the password ceases to be valid.
    pub valid_until: Timestamp,
}

impl Server {
    /// Creates a support login of a tenant's database, instead of one that an earlier attempt left, and gives it its rights
    /// there, whatever the tenant's own access level is.
    ///
    /// # Errors
    /// PostgreSQL's. [`Error::Conflict`]: a role of that name, or the database, is another owner's.
    pub async fn open_support_login(&self, placement: &Placement, wanted: &SupportLogin<'_>) -> Result<()> {
        if !is_verifier(wanted.verifier) {
            return Err(Error::NotAVerifier);
        }
        self.close_support_login(wanted.name).await?;
        self.create_support_login(placement, wanted).await?;
        self.settle_rights(placement).await.map(drop)
    }

    async fn create_support_login(&self, placement: &Placement, wanted: &SupportLogin<'_>) -> Result<()> {
        let (database, login) = (Ident::database(placement)?, Ident::new(wanted.name)?);
        let _one = self.lock_tenant(placement.tenant).await;
        let mut session = self.admin().await?;
        let names: (&[&str], &[&str]) = (&[database.as_str()], &[]);
        let facts = inventory::read(&mut session, Some(names)).await?.facts(placement);
        match facts.database.map(|facts| facts.ownership) {
            Some(Ownership::Ours) => {}
            Some(other) => {
                let (name, detail) = (database.to_string(), other.describe());
                return Err(Error::Conflict { kind: "database", name, detail });
            }
            None => return Err(Error::DatabaseMissing(database.to_string())),
        }
        let script = login_script(placement, &database, &login, wanted)?;
        match run_on(&mut session, DOING, &script).await {
            Err(Error::Sql { source, .. }) if is_duplicate(&source) => {
                session.release();
                let detail = "its comment is not that of a support login".to_owned();
                Err(Error::Conflict { kind: "role", name: login.to_string(), detail })
            }
            Err(error) => Err(error),
            Ok(()) => {
                session.release();
                Ok(())
            }
        }
    }

    /// Logs in with a support login.
    pub async fn verify_support_login(
        &self,
        placement: &Placement,
        name: &str,
        password: &SecretText,
    ) -> Result<()> {
        let doing = "log in as the support login";
        let (database, login) = (Ident::database(placement)?, Ident::new(name)?);
        let connect_as = ConnectAs::Tenant { database: &database, login: &login, password };
        let mut session = self.inner.sessions.single(&connect_as, doing).await?;
        let answer = sqlx::query("SELECT 1").execute(&mut *session);
        with_timeout(ANSWER_LIMIT, doing, answer).await?;
        session.close().await;
        Ok(())
    }

    /// Those of these logins that have a session which is not the operator's.
    pub async fn support_logins_in_use(&self, names: &[&str]) -> Result<Vec<String>> {
        let mut session = self.admin().await?;
        let query = sqlx::query_scalar(
            "SELECT DISTINCT usename::text FROM pg_stat_activity
             WHERE usename = ANY ($1) AND application_name IS DISTINCT FROM current_setting('application_name')",
        )
        .bind(names)
        .fetch_all(&mut *session);
        let found = with_timeout(STATEMENT_LIMIT, "look for sessions of support logins", query).await?;
        session.release();
        Ok(found)
    }
}

fn login_script(
    placement: &Placement,
    database: &Ident,
    login: &Ident,
    wanted: &SupportLogin<'_>,
) -> Result<Script> {
    let comment = ownership::support_login(placement.tenant, wanted.access);
    let mut script = Script::of(
        "CREATE ROLE {} LOGIN NOINHERIT {} CONNECTION LIMIT {} VALID UNTIL {} PASSWORD {}",
        &[
            login,
            &NO_ATTRIBUTES,
            &Number(CONNECTION_LIMIT),
            &Literal::new(&wanted.valid_until.to_string())?,
            &Literal::new(wanted.verifier)?,
        ],
    )
    .then("COMMENT ON ROLE {} IS {}", &[login, &Literal::new(&comment)?]);
    for (name, value) in SETTINGS {
        script.add("ALTER ROLE {} SET {} = {}", &[login, &name, &Literal::new(value)?]);
    }
    script.add("GRANT CONNECT ON DATABASE {} TO {}", &[database, login]);
    Ok(script)
}

/// What the owner of the objects, and what the owner of the database, have to do for the rights of support logins.
pub(super) fn support_scripts(read: &ReadRights) -> Result<(Script, Script)> {
    let (mut by_owner, mut by_dba) = (Script::new(), Script::new());
    for change in support_rights_changes(read) {
        let script = if change.needs_dba() { &mut by_dba } else { &mut by_owner };
        match &change {
            SupportRightsChange::Columns { login, table, columns } => {
                let columns: Vec<Quoted<'_>> = columns.iter().map(|name| Quoted::by_postgres(name)).collect();
                let columns: Vec<&dyn Part> = columns.iter().map(|name| name as &dyn Part).collect();
                let (login, table) = (Ident::new(login)?, Quoted::by_postgres(table));
                script.add("GRANT SELECT ({}) ON TABLE {} TO {}", &[&PartList(&columns), &table, &login]);
            }
            SupportRightsChange::Schema { login, schema } => {
                let (login, schema) = (Ident::new(login)?, Quoted::by_postgres(schema));
                script.add("GRANT USAGE ON SCHEMA {} TO {}", &[&schema, &login]);
            }
            SupportRightsChange::Revoke { login, object, privileges } => {
                for privilege in privileges {
                    add_right(script, object, privilege, login, true)?;
                }
            }
        }
    }
    if !by_dba.is_empty() {
        let mut as_dba = Script::of("SET LOCAL ROLE {}", &[&DBA]);
        as_dba.append(by_dba);
        by_dba = as_dba;
    }
    Ok((by_owner, by_dba))
}
