//! Drift: what of a tenant on a server is not as it was made, in words, and the way back for marks that were lost.

use crate::domain::{access::AccessLevel, identity::TenantId};

use super::{
    error::Result,
    identifier::{Ident, Literal, Script},
    inventory::TenantFacts,
    mark::{self, Mark},
    server::Server,
};

/// The oids under which a tenant's database and login were last seen with their marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The database's.
    pub database: Option<i64>,
    /// The login's.
    pub login: Option<i64>,
}

/// Whether something that has no mark, or an unreadable one, is known by its oid. What carries another tenant's mark is
/// that tenant's.
fn is_unmarked(mark: &Mark, oid: i64, known: Option<i64>) -> bool {
    matches!(mark, Mark::None | Mark::Foreign) && known == Some(oid)
}

impl TenantFacts {
    /// Whether the database is the tenant's, by its mark or by its oid.
    pub fn has_own_database(&self, known: Known) -> bool {
        self.database.as_ref().is_some_and(|database| {
            database.mark.is_ours() || is_unmarked(&database.mark, database.oid, known.database)
        })
    }

    /// Whether the login is the tenant's, by its mark or by its oid.
    pub fn has_own_login(&self, known: Known) -> bool {
        self.login
            .as_ref()
            .is_some_and(|login| login.mark.is_ours() || is_unmarked(&login.mark, login.oid, known.login))
    }

    /// The level that is in force, as [`Self::access`] has it, whatever somebody else's database of the name lets in.
    pub fn own_access(&self, known: Known) -> Option<AccessLevel> {
        match self.database {
            Some(_) if !self.has_own_database(known) => Self { database: None, ..self.clone() }.access(),
            _ => self.access(),
        }
    }

    /// Whether a tenant that is to be cut off has anything left that lets somebody in, by a login or a database that is
    /// its own. What nobody gets in by does not count, nor what only a superuser can take.
    pub fn lets_in(&self, known: Known) -> bool {
        let Some(login) = self.login.as_ref().filter(|_| self.has_own_login(known)) else { return false };
        let open = self.database.as_ref().filter(|_| self.has_own_database(known)).is_some_and(|database| {
            database.login_may_connect || database.open_to_public && database.allow_connections
        });
        let lent = !login.foreign_memberships.is_empty() || !login.foreign_members.is_empty();
        open || login.can_login || !login.groups.is_empty() || lent || login.narrowing
    }

    /// Whether a mark of what is the tenant's own is lost.
    pub fn has_lost_mark(&self, known: Known) -> bool {
        self.has_own_database(known) && self.database.as_ref().is_some_and(|found| !found.mark.is_ours())
            || self.has_own_login(known) && self.login.as_ref().is_some_and(|found| !found.mark.is_ours())
    }

    /// What is not as it should be for a tenant in use at this level, whose login may have so many `connections` (-1: any
    /// number): a phrase each, none where all is well.
    pub fn differences(&self, wanted: AccessLevel, known: Known, connections: i32) -> Vec<String> {
        let mut found = Vec::new();
        let mut say = |so: bool, what: String| {
            if so {
                found.push(what);
            }
        };
        match &self.database {
            None => say(true, "the database is gone".into()),
            Some(database) => {
                let own = self.has_own_database(known);
                say(!own, format!("database {} is not the tenant's", database.name));
                say(own && !database.mark.is_ours(), "the database's comment was changed".into());
                say(!database.owned, "the database has another owner".into());
                say(!database.allow_connections, "the database takes no connections".into());
                let limit = database.connection_limit;
                say(limit != -1, format!("the database had a connection limit of {limit}"));
                say(database.open_to_public, "PUBLIC had rights on the database".into());
                let may = database.login_may_connect;
                say(may && wanted == AccessLevel::Blocked, "the login had CONNECT".into());
                say(!may && wanted > AccessLevel::Blocked, "the login lacked CONNECT".into());
            }
        }
        match &self.login {
            None => say(true, "the login is gone".into()),
            Some(login) => {
                let own = self.has_own_login(known);
                say(!own, "the role of the login's name is not the tenant's".into());
                say(own && !login.mark.is_ours(), "the login's comment was changed".into());
                say(!login.can_login && wanted > AccessLevel::Blocked, "the login was NOLOGIN".into());
                say(login.can_login && wanted == AccessLevel::Blocked, "the login had LOGIN".into());
                let groups: Vec<&str> = wanted.group().into_iter().collect();
                let list =
                    |names: &[String]| if names.is_empty() { "nothing".into() } else { names.join(", ") };
                say(login.groups != groups, format!("the login was a member of {}", list(&login.groups)));
                let foreign = &login.foreign_memberships;
                say(!foreign.is_empty(), format!("the login was a member of {}", list(foreign)));
                let members = &login.foreign_members;
                say(!members.is_empty(), format!("{} had the login's rights", list(members)));
                say(login.privileged, "the login had CREATEDB or CREATEROLE".into());
                say(login.beyond_us, "the login has SUPERUSER, REPLICATION or BYPASSRLS".into());
                let limit = login.connection_limit;
                let other = format!("the login had a connection limit of {limit} instead of {connections}");
                say(limit != connections, other);
                say(
                    login.narrowing,
                    "sessions from before the last change were not proven to be gone".into(),
                );
            }
        }
        found
    }
}

impl Server {
    /// Writes the marks again that were lost from a database or a login which their oids prove to be the tenant's.
    pub async fn restore_marks(&self, id: TenantId, database: &str, login: &str, known: Known) -> Result<()> {
        let _one = self.serialise(id).await;
        let facts = self.observe(id, database, login).await?;
        let mut script = Script::new();
        if let Some(found) = &facts.database
            && facts.has_own_database(known)
            && !found.mark.is_ours()
        {
            // Which template it came from was in the comment alone; it mattered only while it was being built.
            let comment = mark::database(id, "unknown");
            script.add("COMMENT ON DATABASE {} IS {}", &[&Ident::new(database)?, &Literal(&comment)]);
        }
        if let Some(found) = &facts.login
            && facts.has_own_login(known)
            && !found.mark.is_ours()
        {
            // Whether a narrowing was under way is not known any more: it is proven anew.
            let comment = mark::login(id, true);
            script.add("COMMENT ON ROLE {} IS {}", &[&Ident::new(login)?, &Literal(&comment)]);
        }
        self.run("write the marks again", &script).await
    }
}
