//! The names of a tenant's objects in PostgreSQL. They are computed once and stored in the registry, and from then on
//! read from there: never parsed, never matched by prefix.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::{identity::TenantId, slug::Slug};

/// PostgreSQL truncates longer identifiers silently (`NAMEDATALEN` - 1 bytes).
pub const MAX_IDENTIFIER_BYTES: usize = 63;

/// The longest prefix that a `DatabaseServer` may give its databases.
pub const MAX_PREFIX_BYTES: usize = 16;

/// How many names are tried for one slug: a retained database keeps its name, so that the next tenant needs another.
const OCCURRENCES: u32 = 99;

/// How a server's new databases are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseNaming {
    /// After the tenant's slug: every login on the server can read the names of all tenants.
    Slug {
        /// The server's prefix.
        prefix: String,
    },
    /// After the tenant's id, which says nothing about the customer.
    Opaque,
    /// The name of a database that exists already.
    Existing {
        /// The database.
        database: String,
    },
}

impl DatabaseNaming {
    /// The names that the database of a new tenant may have, the preferred one first.
    pub fn candidates(&self, slug: &Slug, id: TenantId) -> Vec<String> {
        match self {
            Self::Slug { prefix } => (1..=OCCURRENCES).map(|n| database_name(prefix, slug, n)).collect(),
            Self::Opaque => vec![format!("t_{}", id.0.simple())],
            Self::Existing { database } => vec![database.clone()],
        }
    }
}

/// The name of a tenant's database: the server's prefix and the slug with `-` as `_`. The `occurrence` counts
/// from 1: while a retained database keeps a name, the next tenant of the slug gets `_2`.
pub fn database_name(prefix: &str, slug: &Slug, occurrence: u32) -> String {
    let base = format!("{prefix}{}", slug.as_str().replace('-', "_"));
    if occurrence <= 1 { base } else { format!("{base}_{occurrence}") }
}

/// The tenant's login.
pub fn login_name(database: &str) -> String {
    format!("{database}_app")
}

/// The login that a tenant gets at a rotation of its credentials: it has two names in turn. The second is never longer than the
/// first, and no other role of Tenantry ends in it.
pub fn next_login_name(database: &str, current: &str) -> String {
    let first = login_name(database);
    if current == first { format!("{database}_b") } else { first }
}

/// The login of a tenant that only reads. It is not longer than the login.
pub fn reader_login_name(database: &str) -> String {
    format!("{database}_ro")
}

/// The migration login of a database. A name that leaves no room for the suffix is cut, and its digest makes the rest up.
pub fn migration_login_name(database: &str) -> String {
    const SUFFIX: &str = "_migrate";
    const DIGITS: usize = 10;
    if database.len() + SUFFIX.len() <= MAX_IDENTIFIER_BYTES {
        return format!("{database}{SUFFIX}");
    }
    let kept = database.floor_char_boundary(MAX_IDENTIFIER_BYTES - SUFFIX.len() - DIGITS - 1);
    let digest =
        Sha256::digest(database.as_bytes())[..DIGITS / 2].iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
    format!("{}_{digest}{SUFFIX}", &database[..kept])
}

/// The name under which a tenant's database is built, until it is published by its last rename.
pub fn building_name(id: TenantId) -> String {
    format!("tenantry_new_{}", id.0.simple())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    #[test]
    fn names_follow_prefix_slug_and_occurrence() {
        let slug = Slug::parse("acme-corp").unwrap();
        assert_eq!(database_name("tenant_", &slug, 1), "tenant_acme_corp");
        assert_eq!(database_name("tenant_", &slug, 2), "tenant_acme_corp_2");
        assert_eq!(login_name("tenant_acme_corp"), "tenant_acme_corp_app");
        assert_eq!(next_login_name("tenant_acme_corp", "tenant_acme_corp_app"), "tenant_acme_corp_b");
        assert_eq!(next_login_name("tenant_acme_corp", "tenant_acme_corp_b"), "tenant_acme_corp_app");
        let id = TenantId(Uuid::nil());
        assert_eq!(building_name(id), "tenantry_new_00000000000000000000000000000000");
    }

    #[test]
    fn opaque_name_has_nothing_of_the_slug() {
        let (slug, id) = (Slug::parse("acme-corp").unwrap(), TenantId(Uuid::from_u128(0xabc)));
        let opaque = DatabaseNaming::Opaque.candidates(&slug, id);
        assert_eq!(opaque, ["t_00000000000000000000000000000abc"]);
        let by_slug = DatabaseNaming::Slug { prefix: "tenant_".into() }.candidates(&slug, id);
        assert_eq!((by_slug.len(), by_slug[1].as_str()), (99, "tenant_acme_corp_2"));
    }

    #[test]
    fn long_name_of_a_database_leaves_room_for_the_suffix_and_stays_distinct() {
        assert_eq!(migration_login_name("tenant_acme"), "tenant_acme_migrate");
        assert_eq!(migration_login_name(&"a".repeat(55)), format!("{}_migrate", "a".repeat(55)));
        let [one, other] = ["x", "y"].map(|end| migration_login_name(&format!("{}{end}", "a".repeat(58))));
        assert!(one != other && one.ends_with("_migrate"), "{one} {other}");
        // An adopted database may have any name.
        for long in ["a".repeat(63), "é".repeat(31), "日".repeat(21)] {
            let name = migration_login_name(&long);
            assert!(name.len() <= MAX_IDENTIFIER_BYTES && name.ends_with("_migrate"), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_name_is_truncated_by_postgresql(
            prefix in "[a-z][a-z0-9_]{0,15}", text in "[a-z][a-z0-9]{2,39}", occurrence in 1u32..=99,
        ) {
            if let Ok(slug) = Slug::parse(&text) {
                let login = login_name(&database_name(&prefix, &slug, occurrence));
                prop_assert!(login.len() <= MAX_IDENTIFIER_BYTES);
            }
        }

        #[test]
        fn different_slugs_have_different_databases(a in "[a-z][a-z0-9-]{2,39}", b in "[a-z][a-z0-9-]{2,39}") {
            if let (Ok(a), Ok(b)) = (Slug::parse(&a), Slug::parse(&b)) {
                prop_assert_eq!(a == b, database_name("t_", &a, 1) == database_name("t_", &b, 1));
            }
        }
    }
}
