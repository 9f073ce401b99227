//! The shared roles of an installation.

use std::collections::BTreeSet;

use sqlx::Row;
use uuid::Uuid;

use crate::postgres::{
    catalog::ownership,
    error::{Error, Result, is_duplicate},
    identifier::{ADMIN, DBA, GROUPS, Ident, Keyword, Literal, MIGRATOR, NO_ATTRIBUTES, OWNER, Part, Script},
    server::{Server, run_despite_read_only, run_on},
    session::pool::Session,
    tenant::migration_login_end::{ROUNDS, end_sessions, is_connected},
};

/// How often the shared roles are read again after another process created some of them.
const PREPARE_ATTEMPTS: u32 = 5;

impl Server {
    /// Creates or repairs the shared roles, and writes the installation's id into the comment of `tenantry_admin`. Each leader does it once, before any other operation
    /// on the server.
    pub async fn prepare(&self, installation: Uuid) -> Result<()> {
        let _one = self.inner.prepare_lock.lock().await;
        let mut session = self.admin().await?;
        claim(&mut session, installation).await?;
        let mut attempt = 1;
        loop {
            let found = shared_roles(&mut session).await?;
            let script = shared_roles_script(&found, session.has_grant_options());
            match run_despite_read_only(&mut session, "prepare the shared roles", &script).await {
                Ok(()) => break,
                // Another process is creating the same roles: the next read finds them.
                Err(Error::Sql { source, .. }) if attempt < PREPARE_ATTEMPTS && is_duplicate(&source) => {
                    attempt += 1
                }
                Err(error) => return Err(explain_missing_right(error)),
            }
        }
        // An operator that took LOGIN away may have been killed before it ended the sessions.
        if is_connected(&mut session, &MIGRATOR).await? {
            end_sessions(&mut session, &MIGRATOR, &[], ROUNDS).await?;
        }
        let stored = stored_settings(&mut session).await?;
        session.release();
        self.reset_group_settings(&stored).await
    }
}

/// Where settings are stored for the operator's own roles: a tool that acts as one of them can store some for all tenants.
async fn stored_settings(session: &mut Session) -> Result<BTreeSet<(String, Option<String>)>> {
    let roles = [MIGRATOR, OWNER, DBA, ADMIN];
    let query = sqlx::query_as::<_, (String, Option<String>)>(
        "SELECT r.rolname::text, d.datname::text FROM pg_db_role_setting AS s JOIN pg_roles AS r ON r.oid = s.setrole
         LEFT JOIN pg_database AS d ON d.oid = s.setdatabase WHERE r.rolname = ANY ($1)",
    )
    .bind(roles.iter().map(Ident::as_str).collect::<Vec<_>>())
    .fetch_all(&mut **session);
    let found = query.await.map_err(Error::sql("read the settings of the shared roles"))?;
    Ok(found.into_iter().collect())
}

/// From 16 on, a role that another role created cannot be changed: the error lists the possible ones.
fn explain_missing_right(error: Error) -> Error {
    if error.reason() != crate::api::reason::Reason::MissingRight {
        return error;
    }
    Error::MissingRight(format!(
        "{error}: one of the roles tenantry_dba, tenantry_owner, tenantry_migrator, tenantry_rw, tenantry_shrink and \
         tenantry_ro was not created by tenantry_admin; drop or rename it"
    ))
}

/// Writes the installation's id into the comment of `tenantry_admin`, or refuses if another installation's is there.
async fn claim(session: &mut Session, installation: Uuid) -> Result<()> {
    let doing = "claim the server";
    let comment: Option<String> = sqlx::query_scalar(
        "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'tenantry_admin'",
    )
    .fetch_one(&mut **session)
    .await
    .map_err(Error::sql(doing))?;
    let ours = ownership::installation(installation);
    match comment {
        Some(comment) if comment == ours => Ok(()),
        Some(comment) => Err(Error::ServerInUse(ownership::installation_of(&comment))),
        None => {
            // From 16 on, no role has the ADMIN option on itself, which COMMENT requires; the login has it.
            let comment: &[&dyn Part] = &[&ADMIN, &Literal::new(&ours)?];
            let script = Script::of("SET LOCAL ROLE NONE", &[]).then("COMMENT ON ROLE {} IS {}", comment);
            run_on(session, doing, &script).await.map_err(|error| {
                if error.reason() != crate::api::reason::Reason::MissingRight {
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

/// A shared role as it was found.
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
                    AND NOT r.rolcanlogin AND r.rolinherit = (r.rolname <> 'tenantry_migrator') AS as_wanted,
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

fn shared_roles_script(found: &[SharedRole], options_known: bool) -> Script {
    let mut script = Script::new();
    let role = |name: &Ident| found.iter().find(|role| role.name == name.as_str());
    for name in [&DBA, &OWNER].into_iter().chain(&GROUPS) {
        match role(name) {
            None => script.add("CREATE ROLE {} NOLOGIN INHERIT {}", &[name, &NO_ATTRIBUTES]),
            Some(role) if !role.as_wanted => script.add("ALTER ROLE {} NOLOGIN INHERIT", &[name]),
            Some(_) => {}
        }
    }
    // Without INHERIT: a module's SQL that resets its role has no right at all. In earlier releases, all
    // sessions had this login.
    match role(&MIGRATOR) {
        None => script.add("CREATE ROLE {} NOLOGIN NOINHERIT {}", &[&MIGRATOR, &NO_ATTRIBUTES]),
        Some(role) if !role.as_wanted => {
            script.add("ALTER ROLE {} NOLOGIN NOINHERIT PASSWORD NULL", &[&MIGRATOR]);
        }
        Some(_) => {}
    }
    let owner_granted =
        role(&MIGRATOR).is_some_and(|role| role.member_of.iter().any(|name| name == OWNER.as_str()));
    if !owner_granted {
        let options = Keyword(if options_known { "WITH INHERIT FALSE, SET TRUE" } else { "" });
        script.add("GRANT {} TO {} {}", &[&OWNER, &MIGRATOR, &options]);
    }
    // From 16 on, the creator of a role has only the ADMIN option on it: to act for the owner of the databases,
    // tenantry_admin grants itself full membership.
    if !role(&DBA).is_some_and(|role| role.admin_has_it) {
        let options = Keyword(if options_known { "WITH INHERIT TRUE, SET TRUE" } else { "" });
        script.add("GRANT {} TO {} {}", &[&DBA, &ADMIN, &options]);
    }
    script
}
