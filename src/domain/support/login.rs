//! The login of a support access: its name, and which of those that are found on a server have to go.

use std::{collections::HashSet, fmt::Write};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::{identity::TenantId, names::MAX_IDENTIFIER_BYTES};

/// How many sessions a support login may have at once.
pub const CONNECTION_LIMIT: i32 = 3;

/// The hexadecimal digits by which the logins of two accesses to one database differ.
const DIGITS: usize = 8;

/// A role whose comment says that it is a support login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSupportLogin {
    /// Its name.
    pub name: String,
    /// The tenant that it is for.
    pub tenant: TenantId,
    /// The SupportAccess that it was made for.
    pub access: Uuid,
    /// It is a member of another role, or another one is a member of it (only an administrator can do that), or it has an
    /// attribute that it was not made with.
    pub is_widened: bool,
}

/// The name of a support login. A database's name that leaves no room for the suffix is cut, and its digest is part of the
/// digits.
pub fn support_login_name(database: &str, access: Uuid) -> String {
    let hash = Sha256::new().chain_update(database).chain_update([0]).chain_update(access.as_bytes());
    let digits = hash.finalize()[..DIGITS / 2].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let suffix = format!("_support_{digits}");
    let kept = database.floor_char_boundary(MAX_IDENTIFIER_BYTES - suffix.len());
    format!("{}{suffix}", &database[..kept])
}

/// The support logins that have to go: of no access that is in force, or with rights that they were not made with.
pub fn stale_support_logins<'a>(
    found: &'a [FoundSupportLogin],
    in_force: &HashSet<Uuid>,
) -> Vec<&'a FoundSupportLogin> {
    found.iter().filter(|login| !in_force.contains(&login.access) || login.is_widened).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_distinct_and_never_truncated() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let name = support_login_name("tenant_acme", one);
        assert!(name.starts_with("tenant_acme_support_") && name.len() == 28, "{name}");
        assert_ne!(name, support_login_name("tenant_acme", two));
        assert_eq!(name, support_login_name("tenant_acme", one));
        let [a, b] = ["x", "y"].map(|end| support_login_name(&format!("{}{end}", "a".repeat(62)), one));
        assert_ne!(a, b);
        for long in ["a".repeat(63), "é".repeat(31), "日".repeat(21)] {
            let name = support_login_name(&long, one);
            assert!(name.len() <= MAX_IDENTIFIER_BYTES && name.contains("_support_"), "{name}");
        }
    }

    #[test]
    fn login_goes_with_its_access_and_when_it_is_widened() {
        let login = |access: u128, is_widened| FoundSupportLogin {
            name: format!("tenant_acme_support_{access}"),
            tenant: TenantId(Uuid::from_u128(9)),
            access: Uuid::from_u128(access),
            is_widened,
        };
        let found = [login(1, false), login(2, false), login(3, true)];
        let in_force = HashSet::from([1, 3].map(Uuid::from_u128));
        assert_eq!(stale_support_logins(&found, &in_force), [&found[1], &found[2]]);
        assert_eq!(stale_support_logins(&found, &HashSet::new()).len(), 3);
    }
}
