//! The access level: the group of a tenant's login, its CONNECT, and the proof that no session keeps a revoked right.
//!
//! Narrowing revokes the groups first, in a transaction of its own: no lock of a tenant delays that. What follows may wait for
//! the tenant's sessions, and one that ignores termination cannot be ended.
//!
//! A REVOKE does not affect what is running: a COPY, a plan prepared in an open transaction and a session after SET ROLE
//! keep the right. So after the change the tenant's earlier sessions are ended. The level counts as in force only when
//! the server shows none of them any more, nor a session that was just starting, and when the transactions that they
//! prepared are rolled back. Until that is proven, the login's comment records it, so that the next attempt finishes an
//! interrupted one.

mod earlier_sessions;

use self::earlier_sessions::Narrowing;
use crate::{
    api::reason::Reason,
    domain::{
        access::AccessLevel,
        drift::{self, Mismatch},
        migration_login::level_ends_migrations,
        names::migration_login_name,
        placement::Placement,
        tenant_facts::{DatabaseProperties, LoginProperties, RecordedOids},
    },
    postgres::{
        catalog::{inventory, ownership},
        error::{Error, Result},
        identifier::{ADMIN, GROUPS, Ident, Keyword, Literal, Script},
        server::{Server, run_despite_read_only, run_on, run_restricting},
    },
};

use super::{
    logins::conflict,
    migration_login_end::disarm_at_once,
    properties::properties_script,
    settings::{Extent, reset_settings},
};

impl Server {
    /// Sets the access level of the tenant's logins. Each is tried, whatever becomes of the others: a previous login or a reader
    /// login that does not exist, or is another owner's, has nothing to lose.
    ///
    /// A level that ends the migration login of the tenant's database is in force only when that login is gone: see
    /// [`level_ends_migrations`].
    pub async fn set_access(&self, placement: &Placement, level: AccessLevel) -> Result<()> {
        let _one = self.lock_tenant(placement.tenant).await;
        if !level_ends_migrations(level) {
            return self.set_logins_access(placement, level, None).await;
        }
        let tool = Ident::new(&migration_login_name(&placement.database))?;
        let restricted = self.set_logins_access(placement, level, Some(&tool)).await;
        // Also where the tenant's own logins could not be restricted.
        let closed = self.close_login(&tool).await;
        restricted.and(closed.map(drop))
    }

    /// Sets the access level of the tenant's reader login alone.
    pub async fn set_reader_access(&self, placement: &Placement, level: AccessLevel) -> Result<()> {
        let Some(reader) = placement.of_reader_login() else { return Ok(()) };
        let _one = self.lock_tenant(placement.tenant).await;
        self.set_login_access(&reader, level.for_reader(), None).await
    }

    /// Takes all access from one login of the tenant's, that of this placement, and ends its sessions.
    pub(super) async fn block_login(&self, placement: &Placement) -> Result<()> {
        let _one = self.lock_tenant(placement.tenant).await;
        self.set_login_access(placement, AccessLevel::Blocked, None).await
    }

    async fn set_logins_access(
        &self,
        placement: &Placement,
        level: AccessLevel,
        tool: Option<&Ident>,
    ) -> Result<()> {
        let previous = placement.of_previous_login().map(|previous| (previous, level));
        let reader = placement.of_reader_login().map(|reader| (reader, level.for_reader()));
        let mut others = Ok(());
        for (other, level) in previous.into_iter().chain(reader) {
            let set = match self.set_login_access(&other, level, tool).await {
                Err(Error::LoginMissing(_) | Error::Conflict { kind: "role", .. }) => Ok(()),
                set => set,
            };
            others = others.and(set);
        }
        self.set_login_access(placement, level, tool).await.and(others)
    }

    /// Sets the access level of one login. If that revokes a right, it ends the sessions that had it, and proves that they have
    /// ended. Granting is one transaction, and ends no session. `Blocked` also revokes LOGIN, which no level grants (see
    /// [`Server::set_login`]).
    ///
    /// Without the login or the database, `Blocked` is in force already.
    /// The tenant's lock is the caller's. The migration login `tool` is shut out before anything that may wait for a session.
    async fn set_login_access(
        &self,
        placement: &Placement,
        level: AccessLevel,
        tool: Option<&Ident>,
    ) -> Result<()> {
        let (id, database, login) = (placement.tenant, Ident::database(placement)?, Ident::login(placement)?);
        let mut session = self.admin().await?;
        let names: (&[&str], &[&str]) = (&[database.as_str()], &[login.as_str()]);
        let inventory = inventory::read(&mut session, Some(names)).await?;
        // The other logins have their own turn.
        let facts = inventory.facts(placement).without_others();
        let recorded = RecordedOids::default();
        let now = drift::access_in_force(&facts, recorded);
        // What a superuser granted does not keep the rest from being revoked: it is found again at the end.
        let superuser_only = drift::contradictions(&facts, recorded, level).find(|mismatch| {
            mismatch.repaired_by().is_none()
                && mismatch.reason() == Reason::MissingRight
                && !matches!(mismatch, Mismatch::SuperuserGrants(_))
        });
        let blocked = level == AccessLevel::Blocked;

        let login_facts = match facts.login {
            None if blocked => {
                session.release();
                return Ok(());
            }
            None => return Err(Error::LoginMissing(login.to_string())),
            Some(facts) if !facts.ownership.is_ours() => return Err(conflict(&login, facts.ownership)),
            Some(facts) => facts,
        };
        if let Some(mismatch) = superuser_only.filter(|_| !blocked) {
            return Err(Error::MissingRight(mismatch.to_string()));
        }
        let database_facts = match facts.database {
            Some(facts) if facts.ownership.is_ours() => Some(facts),
            // A database of another owner is not changed.
            _ if blocked => None,
            Some(facts) => {
                return Err(Error::Conflict {
                    kind: "database",
                    name: database.to_string(),
                    detail: facts.ownership.describe(),
                });
            }
            None => return Err(Error::DatabaseMissing(database.to_string())),
        };

        // Granting ReadWrite revokes nothing. An unknown present level counts as wider than any level.
        let narrows = blocked || level != AccessLevel::ReadWrite && now.is_none_or(|now| now > level);
        let options = session.has_grant_options();
        let mut script = rights_script(&database, database_facts.as_ref(), &login, &login_facts, level);
        let groups = groups_script(&login, &login_facts, level, options);
        let memberships = memberships_script(&login, &login_facts);
        let is_changed = !(script.is_empty() && groups.is_empty() && memberships.is_empty());
        if narrows && is_changed {
            let unproven = ownership::unproven(id, login_facts.is_kept);
            let mut first = Script::new();
            // Of a role that may not be changed any more, at least the groups are revoked before that is reported.
            if !login_facts.is_out_of_reach {
                first.add("COMMENT ON ROLE {} IS {}", &[&login, &Literal::new(&unproven)?]);
            }
            first.append(groups);
            run_restricting(&mut session, "revoke the groups of the login", &first, &login).await?;
        } else {
            script.append(groups);
        }
        script.append(memberships);
        if let Some(tool) = tool
            && let Err(error) = disarm_at_once(&mut session, tool).await
        {
            // It is tried again, and reported, once the tenant's login is restricted.
            tracing::warn!(login = %tool, %error, "could not shut a migration login out at once");
        }
        if narrows {
            let narrowing = Narrowing {
                database: &database,
                login: &login,
                others: placement.other_logins().collect(),
                level,
                rights: inventory.rights(),
                has_grant_options: options,
            };
            if let Err(error) = run_restricting(&mut session, "set the access level", &script, &login).await {
                return Err(narrowing.explain(error, &mut session).await);
            }
            let prepared = narrowing.end_earlier_sessions(&mut session).await?;
            if database_facts.is_some() && !prepared.is_empty() {
                // An operation holds one session at a time.
                session.release();
                self.inner.sessions.roll_back_prepared(&database, &prepared).await?;
                session = self.admin().await?;
            }
        } else {
            run_on(&mut session, "set the access level", &script).await?;
        }
        if !blocked && (is_changed || now != Some(level)) {
            // From 16 on, only a superuser can revoke what a superuser granted: our REVOKE is a mere warning.
            let found = inventory::read(&mut session, Some(names)).await?;
            let left: Vec<String> =
                drift::contradictions(&found.facts(placement).without_others(), recorded, level)
                    // Its proof is recorded last.
                    .filter(|mismatch| *mismatch != Mismatch::RevocationUnproven)
                    .map(|mismatch| mismatch.to_string())
                    .collect();
            if !left.is_empty() {
                session.release();
                return Err(Error::MissingRight(format!(
                    "role {login} could not be brought to {level}: {}",
                    left.join("; ")
                )));
            }
        }
        if (narrows && is_changed) || login_facts.is_revocation_unproven {
            let comment = ownership::proven(id, login_facts.is_kept);
            let proven = Script::of("COMMENT ON ROLE {} IS {}", &[&login, &Literal::new(&comment)?]);
            run_despite_read_only(&mut session, "record that the access level is in force", &proven).await?;
        }
        // Last: a tenant stores settings of any size, and a restriction does not wait until they are read.
        let extent = if narrows && is_changed { Extent::Small } else { Extent::All };
        reset_settings(&mut session, &login, &login_facts, database_facts.as_ref(), extent).await?;
        session.release();
        Ok(())
    }
}

/// The statements that bring the login's attributes and the database's rights to the level; none, if they show it already.
/// They come first, since they may have to wait for a lock of the tenant.
fn rights_script(
    database: &Ident,
    database_facts: Option<&DatabaseProperties>,
    login: &Ident,
    facts: &LoginProperties,
    level: AccessLevel,
) -> Script {
    let mut script = properties_script(database, database_facts, login, facts);
    if facts.may_create {
        script.add("ALTER ROLE {} NOCREATEDB NOCREATEROLE", &[login]);
    }
    if level == AccessLevel::Blocked && facts.can_login {
        script.add("ALTER ROLE {} NOLOGIN", &[login]);
    }
    if let Some(facts) = database_facts {
        match (facts.login_may_connect, level > AccessLevel::Blocked) {
            (true, false) => script.add("REVOKE CONNECT ON DATABASE {} FROM {}", &[database, login]),
            (false, true) => script.add("GRANT CONNECT ON DATABASE {} TO {}", &[database, login]),
            _ => {}
        }
        if facts.connection_limit > -1 {
            script.add("ALTER DATABASE {} CONNECTION LIMIT -1", &[database]);
        }
        if !facts.allow_connections {
            script.add("ALTER DATABASE {} ALLOW_CONNECTIONS true", &[database]);
        }
        if facts.open_to_public {
            script.add("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[database]);
        }
    }
    script
}

/// The statements that bring the login into exactly the group of the level. From 16 on, each locks the group until the commit,
/// and other tenants' changes wait for it. No tenant's login can keep one of these statements waiting: it changes no
/// membership, and the locks that it can hold on a role exclude only the role's end.
fn groups_script(login: &Ident, facts: &LoginProperties, level: AccessLevel, options_known: bool) -> Script {
    let mut script = Script::new();
    let is_in = |group: &Ident| facts.groups.iter().any(|name| name == group.as_str());
    for group in &GROUPS {
        match (is_in(group), level.group() == Some(group.as_str())) {
            (true, false) => script.add("REVOKE {} FROM {}", &[group, login]),
            (false, true) => {
                let options = Keyword(if options_known { "WITH INHERIT TRUE, SET FALSE" } else { "" });
                script.add("GRANT {} TO {} {}", &[group, login, &options]);
            }
            _ => {}
        }
    }
    script
}

/// The statements that revoke every other membership. From 16 on, each locks the role whose members change until the commit:
/// also the login, for which the end of its own transactions waits. So they come last.
fn memberships_script(login: &Ident, facts: &LoginProperties) -> Script {
    let mut script = Script::new();
    // A tenant cannot grant these, but an administrator can: then one tenant acts with the rights of another.
    for name in &facts.foreign_memberships {
        if let Ok(role) = Ident::new(name) {
            script.add("REVOKE {} FROM {}", &[&role, login]);
        }
    }
    for name in &facts.foreign_members {
        if let Ok(member) = Ident::new(name) {
            script.add("REVOKE {} FROM {}", &[login, &member]);
        }
    }
    // An interrupted attempt may have left the operator's membership in them.
    if facts.is_revocation_unproven {
        let [rw, shrink, ro] = &GROUPS;
        script.add("REVOKE {}, {}, {}, {} FROM {}", &[login, rw, shrink, ro, &ADMIN]);
    }
    script
}
