//! Migration logins: with one, an application's own tool migrates one database. It is made for one run, and dropped after it
//! (`migration_login_end`).
//!
//! At login it becomes `tenantry_owner`, by a setting for its one database: everything that the tool makes belongs to that
//! role, as if a module had made it. It inherits nothing, so that a tool that undoes this (`SET ROLE NONE`, `DISCARD ALL`)
//! can do nothing; `RESET ROLE` leads back to the setting. The comment, the rights and LOGIN are one transaction, so that a
//! login that is interrupted while it is made cannot be used, and is found by its comment.

use jiff::Timestamp;
use uuid::Uuid;

use super::credentials::is_verifier;
use crate::{
    domain::{
        migration_login::{MigrationOwner, may_be_made},
        migration_run::LoginState,
        names::migration_login_name,
        placement::Placement,
        tenant_facts::Ownership,
    },
    postgres::{
        catalog::{inventory, ownership},
        error::{Error, Result, is_duplicate},
        identifier::{Ident, Keyword, Literal, NO_ATTRIBUTES, Number, OWNER, Script},
        install::templates::commented_digest,
        server::{Server, run_on},
        session::{
            connect::{STATEMENT_LIMIT, with_timeout},
            pool::Session,
        },
    },
};

/// How many sessions a tool may have at once: some have a pool even for migrations.
const CONNECTION_LIMIT: i32 = 10;
const DOING: &str = "create the migration login";

/// The database that an application's tool migrates.
#[derive(Clone, Copy, Debug)]
pub enum MigratedDatabase<'a> {
    /// A tenant's, under its final name.
    OfTenant(&'a Placement),
    /// The template that is being built of the module set with this digest.
    Template(&'a str),
}

impl MigratedDatabase<'_> {
    /// Whose it is.
    pub fn owner(&self) -> MigrationOwner {
        match self {
            Self::OfTenant(placement) => MigrationOwner::Tenant(placement.tenant),
            Self::Template(digest) => MigrationOwner::Template((*digest).to_owned()),
        }
    }

    /// Its name on the server.
    pub fn name(&self) -> Result<String> {
        match self {
            Self::OfTenant(placement) => Ok(placement.database.clone()),
            Self::Template(digest) => Ok(Ident::template_building(digest)?.to_string()),
        }
    }

    /// The name of its migration login.
    pub fn login(&self) -> Result<String> {
        Ok(migration_login_name(&self.name()?))
    }
}

/// A migration login as it is wanted.
#[derive(Clone, Debug)]
pub struct MigrationLogin<'a> {
    /// The run that it is for.
    pub run: Uuid,
    /// The schema in which the tool's objects are made unless it names another one.
    pub schema: &'a str,
    /// The verifier of its password.
    pub verifier: &'a str,
    /// When the password ceases to be valid; none: never, for a team's own pipeline.
    pub valid_until: Option<Timestamp>,
}

impl Server {
    /// Creates the migration login of a database, instead of one that an earlier run left. Returns its name.
    ///
    /// # Errors
    /// PostgreSQL's. [`Error::MigrationsRestricted`]: the tenant has less than full access, by its login.
    pub async fn open_migration_login(
        &self,
        database: &MigratedDatabase<'_>,
        wanted: &MigrationLogin<'_>,
    ) -> Result<String> {
        if !is_verifier(wanted.verifier) {
            return Err(Error::NotAVerifier);
        }
        let (name, login) = (Ident::new(&database.name()?)?, Ident::new(&database.login()?)?);
        self.close_migration_login(login.as_str()).await?;
        let _one = self.lock_owner(&database.owner()).await;
        let mut session = self.admin().await?;
        self.check_migrated(&mut session, database, &name).await?;
        let script = login_script(&name, &login, database, wanted, session.has_grant_options())?;
        let created = run_on(&mut session, DOING, &script).await;
        if created.as_ref().err().is_none_or(|error| error.sql_state().is_some()) {
            session.release();
        }
        match created {
            Err(Error::Sql { source, .. }) if is_duplicate(&source) => Err(Error::Conflict {
                kind: "role",
                name: login.to_string(),
                detail: "its comment is not that of a migration login".to_owned(),
            }),
            created => created.map(|()| login.to_string()),
        }
    }

    /// How the migration login of a run stands.
    pub async fn migration_login_state(
        &self,
        database: &MigratedDatabase<'_>,
        run: Uuid,
    ) -> Result<LoginState> {
        let comment = ownership::migration_login(&database.owner(), run);
        let mut session = self.admin().await?;
        let query = sqlx::query_scalar(
            "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1 AND shobj_description(oid, 'pg_authid') = $2",
        )
        .bind(database.login()?)
        .bind(comment)
        .fetch_optional(&mut *session);
        let can_log_in: Option<bool> =
            with_timeout(STATEMENT_LIMIT, "read the migration login", query).await?;
        session.release();
        Ok(match can_log_in {
            None => LoginState::Absent,
            Some(true) => LoginState::Open,
            Some(false) => LoginState::Ending,
        })
    }

    /// Refuses a database that is not the one that is meant.
    async fn check_migrated(
        &self,
        session: &mut Session,
        database: &MigratedDatabase<'_>,
        name: &Ident,
    ) -> Result<()> {
        let detail = match database {
            MigratedDatabase::OfTenant(placement) => {
                let login = Ident::login(placement)?;
                let names: (&[&str], &[&str]) = (&[name.as_str()], &[login.as_str()]);
                let facts = inventory::read(session, Some(names)).await?.facts(placement);
                match facts.database.map(|facts| facts.ownership) {
                    Some(Ownership::Ours) if !may_be_made(facts.login.as_ref()) => {
                        return Err(Error::MigrationsRestricted(name.to_string()));
                    }
                    Some(Ownership::Ours) => return Ok(()),
                    Some(other) => other.describe(),
                    None => return Err(Error::DatabaseMissing(name.to_string())),
                }
            }
            MigratedDatabase::Template(digest) => {
                let query = sqlx::query_scalar::<_, Option<String>>(
                    "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1",
                )
                .bind(name.as_str())
                .fetch_optional(&mut **session);
                let comment = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
                let Some(comment) = comment else { return Err(Error::DatabaseMissing(name.to_string())) };
                if comment.as_deref().and_then(commented_digest) == Some(*digest) {
                    return Ok(());
                }
                "its comment is not that of the template".to_owned()
            }
        };
        Err(Error::Conflict { kind: "database", name: name.to_string(), detail })
    }
}

fn login_script(
    name: &Ident,
    login: &Ident,
    database: &MigratedDatabase<'_>,
    wanted: &MigrationLogin<'_>,
    options_known: bool,
) -> Result<Script> {
    let comment = ownership::migration_login(&database.owner(), wanted.run);
    let until = wanted.valid_until.map_or_else(|| "infinity".to_owned(), |until| until.to_string());
    let options = Keyword(if options_known { "WITH INHERIT FALSE, SET TRUE" } else { "" });
    let mut script = Script::of(
        "CREATE ROLE {} LOGIN NOINHERIT {} CONNECTION LIMIT {} VALID UNTIL {} PASSWORD {}",
        &[
            login,
            &NO_ATTRIBUTES,
            &Number(CONNECTION_LIMIT),
            &Literal::new(&until)?,
            &Literal::new(wanted.verifier)?,
        ],
    )
    .then("COMMENT ON ROLE {} IS {}", &[login, &Literal::new(&comment)?])
    .then("GRANT {} TO {} {}", &[&OWNER, login, &options])
    .then("GRANT CONNECT ON DATABASE {} TO {}", &[name, login])
    // For schemas and trusted extensions, which the tool makes as that role.
    .then("GRANT CREATE ON DATABASE {} TO {}", &[name, &OWNER])
    .then("ALTER ROLE {} IN DATABASE {} SET role = {}", &[login, name, &OWNER]);
    if wanted.schema != "public" {
        let schema = Ident::new(wanted.schema)?;
        script.add("ALTER ROLE {} IN DATABASE {} SET search_path = {}, public", &[login, name, &schema]);
    }
    Ok(script)
}
