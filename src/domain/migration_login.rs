//! Migration logins: with one, an application's own tool migrates one database, for one run. Which of those that are found
//! on a server have to go.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::identity::TenantId;

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
}

/// The migration logins that have to go: of no run that is under way, or passed on to others.
pub fn stale_logins<'a>(
    found: &'a [FoundMigrationLogin],
    running: &HashSet<Uuid>,
) -> Vec<&'a FoundMigrationLogin> {
    found.iter().filter(|login| !running.contains(&login.run) || !login.members.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_goes_with_its_run_and_when_it_is_passed_on() {
        let login = |run: u128, members: &[&str]| FoundMigrationLogin {
            name: format!("tenant_{run}_migrate"),
            owner: MigrationOwner::Tenant(TenantId(Uuid::from_u128(9))),
            run: Uuid::from_u128(run),
            members: members.iter().map(|name| (*name).to_owned()).collect(),
        };
        let found = [login(1, &[]), login(2, &[]), login(3, &["tenant_4_app"])];
        let running = HashSet::from([1, 3].map(Uuid::from_u128));
        assert_eq!(stale_logins(&found, &running), [&found[1], &found[2]]);
        assert_eq!(stale_logins(&found, &HashSet::new()).len(), 3);
    }
}
