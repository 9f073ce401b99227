//! What is on a server beside what its tenants should have: objects with the ownership comment of other tenants, rights that
//! were left granted, and settings of groups.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Inventory, RoleRow};
use crate::{
    domain::{
        access::AccessLevel,
        identity::TenantId,
        leftovers::{FormerOwner, Leftover, LeftoverObject},
        migration_login::{FoundMigrationLogin, MigrationOwner},
        support::login::FoundSupportLogin,
    },
    postgres::{
        catalog::ownership,
        identifier::{GROUPS, MIGRATOR},
    },
};

impl Inventory {
    /// The databases and the roles whose comment names a tenant, by tenant, without those of `accounted`.
    pub fn marked(&self, accounted: &HashSet<TenantId>) -> Vec<Leftover> {
        let mut found: HashMap<TenantId, Leftover> = HashMap::new();
        let new = |tenant| Leftover {
            tenant,
            owner: FormerOwner::Unknown,
            databases: Vec::new(),
            logins: Vec::new(),
        };
        for (name, id) in self.owned_databases().filter(|(_, id)| !accounted.contains(id)) {
            let is_open = self.grantees(name).next().is_some();
            let object = LeftoverObject { name: name.to_owned(), is_open };
            found.entry(id).or_insert_with(|| new(id)).databases.push(object);
        }
        for (id, names) in self.roles_of.iter().filter(|(id, _)| !accounted.contains(id)) {
            let logins = names.iter().filter_map(|name| self.roles.get(name)).map(|role| LeftoverObject {
                name: role.name.clone(),
                is_open: role.can_login
                    || role.comment.as_deref().is_some_and(ownership::is_revocation_unproven),
            });
            found.entry(*id).or_insert_with(|| new(*id)).logins.extend(logins);
        }
        for leftover in found.values_mut() {
            leftover.databases.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            leftover.logins.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        }
        found.into_values().collect()
    }

    /// The migration logins on the server.
    pub fn migration_logins(&self) -> Vec<FoundMigrationLogin> {
        let found = self.roles.values().filter_map(|role| {
            let (owner, run) = ownership::migration_login_of(role.comment.as_deref()?)?;
            let members = role.members.iter().map(|member| member.name.clone()).collect();
            let is_restricted = matches!(owner, MigrationOwner::Tenant(id) if self.is_restricted(id));
            Some(FoundMigrationLogin { name: role.name.clone(), owner, run, members, is_restricted })
        });
        let mut found: Vec<FoundMigrationLogin> = found.collect();
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        found
    }

    /// The support logins on the server.
    pub fn support_logins(&self) -> Vec<FoundSupportLogin> {
        let found = self.roles.values().filter_map(|role| {
            let (tenant, access) = ownership::support_login_of(role.comment.as_deref()?)?;
            let is_widened = role.privileged
                || role.beyond_us
                || role.inherits
                || role.valid_until.is_none()
                || !role.members.is_empty()
                || !role.member_of.is_empty();
            Some(FoundSupportLogin { name: role.name.clone(), tenant, access, is_widened })
        });
        let mut found: Vec<FoundSupportLogin> = found.collect();
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        found
    }

    /// Whether a tenant has a login, and none with full access.
    fn is_restricted(&self, id: TenantId) -> bool {
        let mut logins = self.roles_of.get(&id).into_iter().flatten().filter_map(|name| self.roles.get(name));
        let is_full = |role: &RoleRow| {
            role.member_of.iter().any(|group| Some(group.name.as_str()) == AccessLevel::ReadWrite.group())
        };
        self.roles_of.contains_key(&id) && !logins.any(is_full)
    }

    /// The roles with CONNECT on a database, without its owner and the logins of the operator's sessions, which are taken away
    /// with these (in earlier releases, all had the login `tenantry_migrator`); PUBLIC is none.
    pub fn grantees(&self, database: &str) -> impl Iterator<Item = Option<&str>> {
        let row = self.databases.get(database);
        let granted = row.into_iter().flat_map(|row| {
            row.connect.iter().filter(|grantee| {
                grantee.as_ref().is_none_or(|name| {
                    *name != row.owner && name != MIGRATOR.as_str() && !self.is_of_a_session(name)
                })
            })
        });
        granted.map(Option::as_deref)
    }

    /// The logins of the operator's sessions, also of those that have ended.
    pub fn session_logins(&self) -> Vec<String> {
        let names = self.roles.keys().filter(|name| self.is_of_a_session(name));
        names.cloned().collect()
    }

    /// Whether a role is the login of one session.
    fn is_of_a_session(&self, name: &str) -> bool {
        let comment = self.roles.get(name).and_then(|role| role.comment.as_deref());
        comment.is_some_and(|comment| comment.starts_with(ownership::SESSION))
    }

    /// The groups for which settings are stored, and in which database or in all. Before 16, each tenant's login can do
    /// that, after SET ROLE.
    pub fn group_settings(&self) -> BTreeSet<(String, Option<String>)> {
        let groups =
            self.roles.values().filter(|role| GROUPS.iter().any(|group| group.as_str() == role.name));
        let settings = groups.flat_map(|role| role.settings.iter().map(move |row| (role, row)));
        let resettable = settings.filter(|(_, row)| row.resettable);
        resettable.map(|(role, row)| (role.name.clone(), row.database.clone())).collect()
    }
}
