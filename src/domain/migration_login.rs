//! Migration logins: with one, an application's own tool migrates one database, for one run. Which of those that are found
//! on a server have to go.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{access::AccessLevel, identity::TenantId, tenant_facts::LoginProperties};

/// Whose database a migration login is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MigrationOwner {
    /// A tenant's.
    Tenant(TenantId),
    /// A template that is being built, of the module set with this digest.
    Template(String),
}

/// A role whose comment says that it is a migration login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMigrationLogin {
    /// Its name.
    pub name: String,
    /// Whose database it is for.
    pub owner: MigrationOwner,
    /// The run that it was made for.
    pub run: Uuid,
    /// The roles that are members of it: there should be none (only an administrator can add one).
    pub members: Vec<String>,
    /// The tenant's own login has less than full access.
    pub is_restricted: bool,
}

/// Whether a tenant of this level has no migration login: with one, a tool or a pipeline writes as the owner of all tables,
/// whatever the tenant's own login may do.
pub fn level_ends_migrations(level: AccessLevel) -> bool {
    level < AccessLevel::ReadWrite
}

/// Whether a migration login may be made for a tenant whose own login is like this: not below full access, whatever asks for
/// it, and whatever it was when that was decided.
pub fn may_be_made(login: Option<&LoginProperties>) -> bool {
    login.is_some_and(|login| {
        login.ownership.is_ours()
            && !login.is_revocation_unproven
            && login.groups.iter().map(String::as_str).eq(AccessLevel::ReadWrite.group())
    })
}

/// The migration logins that have to go: of no run that is under way, passed on to others, or of a tenant whose access is
/// restricted.
pub fn stale_logins<'a>(
    found: &'a [FoundMigrationLogin],
    running: &HashSet<Uuid>,
) -> Vec<&'a FoundMigrationLogin> {
    let is_stale = |login: &&FoundMigrationLogin| {
        !running.contains(&login.run) || !login.members.is_empty() || login.is_restricted
    };
    found.iter().filter(is_stale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_restriction_ends_the_migration_login() {
        let kept = AccessLevel::ALL.into_iter().filter(|level| !level_ends_migrations(*level));
        assert_eq!(kept.collect::<Vec<_>>(), [AccessLevel::ReadWrite]);
    }

    #[test]
    fn login_goes_with_its_run_and_when_it_is_passed_on() {
        let login = |run: u128, members: &[&str]| FoundMigrationLogin {
            name: format!("tenant_{run}_migrate"),
            owner: MigrationOwner::Tenant(TenantId(Uuid::from_u128(9))),
            run: Uuid::from_u128(run),
            members: members.iter().map(|name| (*name).to_owned()).collect(),
            is_restricted: false,
        };
        let found = [login(1, &[]), login(2, &[]), login(3, &["tenant_4_app"])];
        let running = HashSet::from([1, 3].map(Uuid::from_u128));
        assert_eq!(stale_logins(&found, &running), [&found[1], &found[2]]);
        assert_eq!(stale_logins(&found, &HashSet::new()).len(), 3);
        // One that an earlier release left to a suspended tenant.
        let restricted = [FoundMigrationLogin { is_restricted: true, ..login(1, &[]) }];
        assert_eq!(stale_logins(&restricted, &running).len(), 1);
    }
}
