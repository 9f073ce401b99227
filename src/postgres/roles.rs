//! Roles: the shared ones of an installation, and each tenant's login.

use sqlx::Row;
use uuid::Uuid;

use crate::domain::identity::TenantId;

use super::{
    credentials::{is_verifier, scram_verifier},
    error::{Error, Result, code, describe, is_duplicate},
    identifier::{ADMIN, DBA, GROUPS, Ident, Literal, MIGRATOR, OWNER, Part, Script, Word},
    mark::{self, Mark},
    server::{MIGRATOR_PASSWORD, Server, run_anyway, run_on},
    sessions::Session,
};

/// GRANT has INHERIT and SET options from here on.
pub(super) const GRANT_OPTIONS_SINCE: u32 = 160_000;

/// How often roles are looked for again that appeared in between.
const PREPARE_ATTEMPTS: u32 = 5;

/// What every tenant's login is, besides LOGIN.
const PLAIN: Word = Word("NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS");

impl Server {
    /// Makes the shared roles, or brings them to what they should be, gives `tenantry_migrator` the password that
    /// this process holds, and writes the installation's id onto the server. Done once by each leader, before
    /// anything else on the server.
    pub async fn prepare(&self, installation: Uuid) -> Result<()> {
        let _one = self.inner.preparing.lock().await;
        let mut session = self.admin().await?;
        claim(&mut session, installation).await?;
        let verifier = scram_verifier(&MIGRATOR_PASSWORD);
        let mut attempt = 1;
        loop {
            let found = shared_roles(&mut session).await?;
            let script = shared_roles_script(&found, options_known(&session), &verifier);
            match run_anyway(&mut session, "prepare the shared roles", &script).await {
                Ok(()) => break,
                // Another process makes the same roles at this moment: they are there when looked for again.
                Err(Error::Sql { source, .. }) if attempt < PREPARE_ATTEMPTS && is_duplicate(&source) => {
                    attempt += 1
                }
                Err(error) => return Err(whose_roles(error)),
            }
        }
        session.give_back();
        Ok(())
    }

    /// Gives `tenantry_migrator` the password that this process holds.
    pub(super) async fn set_migrator_password(&self) -> Result<()> {
        let verifier = scram_verifier(&MIGRATOR_PASSWORD);
        let script = Script::of("ALTER ROLE {} PASSWORD {}", &[&MIGRATOR, &Literal(&verifier)]);
        self.run("set the migrator's password", &script).await
    }

    /// Makes the tenant's login: without LOGIN, without a password, without any right, marked.
    pub async fn create_login(&self, id: TenantId, login: &str) -> Result<()> {
        let login = Ident::new(login)?;
        let _one = self.serialise(id).await;
        let script = Script::of("CREATE ROLE {} NOLOGIN {}", &[&login, &PLAIN])
            .then("COMMENT ON ROLE {} IS {}", &[&login, &Literal(&mark::login(id, false))]);
        match self.run("create the login", &script).await {
            Err(Error::Sql { source, .. }) if is_duplicate(&source) => {
                self.own_login(id, &login).await.map(drop)
            }
            other => other,
        }
    }

    /// Gives the login its password, as a verifier, and the right to log in or not.
    pub async fn set_login(&self, id: TenantId, login: &str, verifier: &str, can_login: bool) -> Result<()> {
        if !is_verifier(verifier) {
            return Err(Error::NotAVerifier);
        }
        let login = Ident::new(login)?;
        let _one = self.serialise(id).await;
        if !self.own_login(id, &login).await? {
            return Err(Error::LoginMissing(login.to_string()));
        }
        let may = Word(if can_login { "LOGIN" } else { "NOLOGIN" });
        let script = Script::of("ALTER ROLE {} {} PASSWORD {}", &[&login, &may, &Literal(verifier)]);
        self.run("set the login's password", &script).await
    }

    /// Drops the tenant's login. One that is not there is fine; one that is not ours is a conflict.
    pub async fn drop_login(&self, id: TenantId, login: &str) -> Result<()> {
        let login = Ident::new(login)?;
        let _one = self.serialise(id).await;
        if !self.own_login(id, &login).await? {
            return Ok(());
        }
        let mut session = self.admin().await?;
        let dropped =
            run_anyway(&mut session, "drop the login", &Script::of("DROP ROLE {}", &[&login])).await;
        if dropped.as_ref().err().is_none_or(|error| error.sql_state().is_some()) {
            session.give_back();
        }
        match dropped {
            Err(Error::Sql { source, .. }) if code(&source) == Some("2BP01") => {
                Err(Error::LoginInUse { login: login.to_string(), detail: describe(&source) })
            }
            // Somebody was faster.
            Err(Error::Sql { source, .. }) if code(&source) == Some("42704") => Ok(()),
            other => other,
        }
    }

    /// Whether the tenant's login is there. Somebody else's role of that name is a conflict.
    pub(super) async fn own_login(&self, id: TenantId, login: &Ident) -> Result<bool> {
        let inventory = self.read(Some((&[], &[login.as_str()]))).await?;
        match inventory.facts(id, "", login.as_str()).login {
            None => Ok(false),
            Some(facts) if facts.mark.is_ours() => Ok(true),
            Some(facts) => Err(conflict(login, &facts.mark)),
        }
    }
}

pub(super) fn conflict(login: &Ident, mark: &Mark) -> Error {
    Error::Conflict { kind: "role", name: login.to_string(), detail: mark.describe() }
}

/// A role that somebody else made cannot be changed from 16 on: say which ones they may be.
fn whose_roles(error: Error) -> Error {
    if error.reason() != "MissingRight" {
        return error;
    }
    Error::MissingRight(format!(
        "{error}: one of the roles tenantry_dba, tenantry_owner, tenantry_migrator, tenantry_rw, tenantry_shrink and \
         tenantry_ro was made by somebody else than tenantry_admin; drop or rename it"
    ))
}

/// Whether the server knows `WITH INHERIT …, SET …`.
pub(super) fn options_known(session: &Session) -> bool {
    session.server_version_num().is_some_and(|version| version >= GRANT_OPTIONS_SINCE)
}

/// Writes the installation's id into the comment of `tenantry_admin`, or refuses when another's is there.
async fn claim(session: &mut Session, installation: Uuid) -> Result<()> {
    let doing = "claim the server";
    let comment: Option<String> = sqlx::query_scalar(
        "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'tenantry_admin'",
    )
    .fetch_one(&mut **session)
    .await
    .map_err(Error::sql(doing))?;
    let ours = mark::installation(installation);
    match comment {
        Some(comment) if comment == ours => Ok(()),
        Some(comment) => Err(Error::ServerInUse(mark::installation_of(&comment))),
        None => {
            // From 16 on no role has the ADMIN option on itself, which COMMENT asks for; the login has it.
            let comment: &[&dyn Part] = &[&ADMIN, &Literal(&ours)];
            let script = Script::of("SET LOCAL ROLE NONE", &[]).then("COMMENT ON ROLE {} IS {}", comment);
            run_on(session, doing, &script).await.map_err(|error| {
                if error.reason() != "MissingRight" {
                    return error;
                }
                Error::MissingRight(format!(
                    "{error}: the operator's login needs CREATEROLE and tenantry_admin WITH ADMIN OPTION; \
                     run `tenantry server-setup`"
                ))
            })
        }
    }
}

/// A shared role as it is.
struct SharedRole {
    name: String,
    as_wanted: bool,
    member_of: Vec<String>,
    admin_has_it: bool,
}

async fn shared_roles(session: &mut Session) -> Result<Vec<SharedRole>> {
    let doing = "read the shared roles";
    let rows = sqlx::query(
        "SELECT r.rolname::text AS name,
                NOT (r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls)
                    AND r.rolcanlogin = (r.rolname = 'tenantry_migrator')
                    AND r.rolinherit = (r.rolname <> 'tenantry_migrator') AS as_wanted,
                ARRAY(SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members m WHERE m.member = r.oid) AS member_of,
                pg_has_role('tenantry_admin', r.oid, 'USAGE') AS admin_has_it
         FROM pg_roles r WHERE r.rolname = ANY ($1)",
    )
    .bind([&DBA, &OWNER, &MIGRATOR].into_iter().chain(&GROUPS).map(Ident::as_str).collect::<Vec<_>>())
    .fetch_all(&mut **session)
    .await
    .map_err(Error::sql(doing))?;
    rows.iter()
        .map(|row| {
            Ok(SharedRole {
                name: row.try_get("name")?,
                as_wanted: row.try_get("as_wanted")?,
                member_of: row.try_get("member_of")?,
                admin_has_it: row.try_get("admin_has_it")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Error::sql(doing))
}

fn shared_roles_script(found: &[SharedRole], options_known: bool, migrator_verifier: &str) -> Script {
    let mut script = Script::new();
    let role = |name: &Ident| found.iter().find(|role| role.name == name.as_str());
    for name in [&DBA, &OWNER].into_iter().chain(&GROUPS) {
        match role(name) {
            None => script.add("CREATE ROLE {} NOLOGIN INHERIT {}", &[name, &PLAIN]),
            Some(role) if !role.as_wanted => script.add("ALTER ROLE {} NOLOGIN INHERIT", &[name]),
            Some(_) => {}
        }
    }
    // Without INHERIT: a module's SQL that resets its role is left with no right at all.
    let migrator: &[&dyn Part] = &[&MIGRATOR, &Literal(migrator_verifier)];
    match role(&MIGRATOR) {
        None => script.add(
            "CREATE ROLE {} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS \
             PASSWORD {}",
            migrator,
        ),
        Some(_) => script.add("ALTER ROLE {} LOGIN NOINHERIT PASSWORD {}", migrator),
    }
    let owner_granted =
        role(&MIGRATOR).is_some_and(|role| role.member_of.iter().any(|name| name == OWNER.as_str()));
    if !owner_granted {
        let options = Word(if options_known { "WITH INHERIT FALSE, SET TRUE" } else { "" });
        script.add("GRANT {} TO {} {}", &[&OWNER, &MIGRATOR, &options]);
    }
    // Makers of roles have only the ADMIN option on them from 16 on: to act for the owner of the databases,
    // tenantry_admin makes itself a full member.
    if !role(&DBA).is_some_and(|role| role.admin_has_it) {
        let options = Word(if options_known { "WITH INHERIT TRUE, SET TRUE" } else { "" });
        script.add("GRANT {} TO {} {}", &[&DBA, &ADMIN, &options]);
    }
    script
}
