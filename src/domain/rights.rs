//! What the roles of a tenant may do inside its database, compared with what they should. Pure: the catalogs are read
//! elsewhere.
//!
//! What is right does not depend on the access level, which is the group that the login is in: each group has its rights on
//! the objects of `tenantry_owner`, and no other role has any. In the schemas of modules the groups have exactly those of the
//! default privileges; elsewhere they may have less.

use std::{collections::BTreeSet, fmt};

use serde::Deserialize;

use super::modules::INTERNAL;

/// The owner of a module's objects.
const OWNER: &str = "tenantry_owner";
/// The owners of schemas: `tenantry_dba` owns the database.
const SCHEMA_OWNERS: [&str; 3] = ["tenantry_dba", "pg_database_owner", OWNER];
/// Those of the schemas of modules.
const MODULE_SCHEMA_OWNERS: [&str; 2] = ["tenantry_dba", "pg_database_owner"];
const GROUPS: [&str; 3] = ["tenantry_rw", "tenantry_shrink", "tenantry_ro"];
/// The one function of the schema `tenantry` that the tenant's login may call.
const REDEEM: &str = "tenantry.redeem(token text)";
/// As a grantee: everybody.
pub const PUBLIC: &str = "PUBLIC";

/// A kind of object that has rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum ObjectKind {
    /// A table, a view or a foreign table.
    Table,
    /// A column of one.
    Column,
    /// A sequence.
    Sequence,
    /// A function or a procedure.
    Function,
    /// A function that runs with its owner's rights, or an aggregate with such a one.
    Definer,
    /// A schema.
    Schema,
    /// The default privileges of `tenantry_owner` on tables.
    DefaultTables,
    /// Those on sequences.
    DefaultSequences,
    /// Those on functions.
    DefaultFunctions,
}

/// An object, as PostgreSQL names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Object {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its schema. Of default privileges: that in which they hold; empty: everywhere.
    pub schema: String,
    /// The owner of that schema; empty where there is none.
    pub schema_owner: String,
    /// Its name in SQL, qualified and quoted; of a column, the table's.
    pub address: String,
    /// The name of a column, quoted.
    pub column: Option<String>,
    /// Its owner.
    pub owner: String,
}

/// The rights of one role on an object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Granted {
    /// The role; [`PUBLIC`] for everybody.
    pub grantee: String,
    /// The rights.
    pub privileges: BTreeSet<String>,
    /// The role may pass some of them on.
    pub grantable: bool,
}

/// An object, and who has which rights on it.
#[derive(Clone, Debug, Deserialize)]
pub struct ObjectRights {
    /// The object.
    pub object: Object,
    /// The rights of the tenant's roles and of everybody.
    pub granted: Vec<Granted>,
    /// Those of its support logins.
    #[serde(default)]
    pub support: Vec<Granted>,
    /// Support logins must not read it: a module marks it as secret, or it is no column.
    #[serde(default)]
    pub hidden: bool,
}

/// A difference inside a tenant's database. Its `Display` is the phrase of Events and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RightsMismatch {
    /// A role has rights that it should not have.
    Excess {
        /// On what.
        object: Object,
        /// Who.
        grantee: String,
        /// Which.
        privileges: Vec<String>,
    },
    /// A group lacks rights.
    Missing {
        /// On what.
        object: Object,
        /// Which group.
        grantee: String,
        /// Which rights.
        privileges: Vec<String>,
    },
    /// The tenant's login or a group owns an object, and may do everything with it.
    Owned(Object),
}

/// What a reading of the rights came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RightsReport {
    /// What was repaired, for the Event.
    pub repaired: Vec<String>,
    /// What is still not as it should be: what only another role can change, with the statement.
    pub left: Vec<String>,
}

impl RightsReport {
    /// Whether nothing differed.
    pub fn is_clean(&self) -> bool {
        self.repaired.is_empty() && self.left.is_empty()
    }
}

impl Object {
    /// Whether it was made as Tenantry makes objects, so that its rights can be set.
    pub(super) fn is_ours(&self) -> bool {
        match self.kind {
            ObjectKind::Schema => SCHEMA_OWNERS.contains(&self.owner.as_str()),
            _ => self.owner == OWNER,
        }
    }

    /// Whether it is the default privileges on a kind of object.
    pub(super) fn is_default_privileges(&self) -> bool {
        matches!(
            self.kind,
            ObjectKind::DefaultTables | ObjectKind::DefaultSequences | ObjectKind::DefaultFunctions
        )
    }

    /// Whether its schema is one for modules: `public`, or one that was created for a module.
    pub(super) fn is_of_modules(&self) -> bool {
        match self.schema.as_str() {
            INTERNAL => false,
            "public" => true,
            _ => MODULE_SCHEMA_OWNERS.contains(&self.schema_owner.as_str()),
        }
    }

    /// The greatest rights that a role may have.
    fn allowed(&self, grantee: &str) -> &'static [&'static str] {
        let internal = self.schema == INTERNAL;
        match (self.kind, grantee) {
            (ObjectKind::Table | ObjectKind::Column | ObjectKind::DefaultTables, "tenantry_rw")
                if !internal =>
            {
                &["SELECT", "INSERT", "UPDATE", "DELETE"]
            }
            (ObjectKind::Table | ObjectKind::DefaultTables, "tenantry_shrink") if !internal => {
                &["SELECT", "DELETE"]
            }
            (ObjectKind::Sequence | ObjectKind::DefaultSequences, "tenantry_rw") if !internal => {
                &["SELECT", "USAGE", "UPDATE"]
            }
            (
                ObjectKind::Table
                | ObjectKind::Column
                | ObjectKind::DefaultTables
                | ObjectKind::Sequence
                | ObjectKind::DefaultSequences,
                group,
            ) if GROUPS.contains(&group) => &["SELECT"],
            (ObjectKind::Schema, group) if GROUPS.contains(&group) => &["USAGE"],
            (ObjectKind::Definer | ObjectKind::DefaultFunctions, "tenantry_rw") if !internal => &["EXECUTE"],
            (ObjectKind::Definer, "tenantry_rw") if self.address == REDEEM => &["EXECUTE"],
            // It does only what its caller may do.
            (ObjectKind::Function, _) => &["EXECUTE"],
            _ => &[],
        }
    }

    /// The rights that a group must have: those of the default privileges.
    fn required(&self, group: &str) -> &'static [&'static str] {
        let is_default = self.is_default_privileges();
        let is_internal = self.schema == INTERNAL;
        match (self.is_of_modules(), self.kind) {
            (is_of_modules, ObjectKind::Schema) if is_of_modules || is_internal => self.allowed(group),
            _ if self.owner != OWNER => &[],
            (true, ObjectKind::Function | ObjectKind::Definer) if group == GROUPS[0] => &["EXECUTE"],
            (true, ObjectKind::Table | ObjectKind::Sequence) => self.allowed(group),
            (true, _) if is_default => self.allowed(group),
            (_, ObjectKind::Table | ObjectKind::DefaultTables) if is_internal => &["SELECT"],
            (_, ObjectKind::Definer) if is_internal => self.allowed(group),
            _ => &[],
        }
    }

    /// Its kind and name, for messages.
    pub(super) fn name(&self) -> String {
        let place =
            || if self.schema.is_empty() { String::new() } else { format!(" in schema {}", self.schema) };
        match self.kind {
            ObjectKind::Table => format!("table {}", self.address),
            ObjectKind::Column => {
                format!("column {} of {}", self.column.as_deref().unwrap_or_default(), self.address)
            }
            ObjectKind::Sequence => format!("sequence {}", self.address),
            ObjectKind::Function | ObjectKind::Definer => format!("function {}", self.address),
            ObjectKind::Schema => format!("schema {}", self.address),
            ObjectKind::DefaultTables => format!("new tables{}", place()),
            ObjectKind::DefaultSequences => format!("new sequences{}", place()),
            ObjectKind::DefaultFunctions => format!("new functions{}", place()),
        }
    }
}

impl RightsMismatch {
    /// Whether Tenantry can repair it: the object, or the role that owns it, is its own.
    pub fn is_repairable(&self) -> bool {
        match self {
            Self::Excess { object, .. } | Self::Missing { object, .. } => object.is_ours(),
            Self::Owned(_) => true,
        }
    }

    /// Whether it lets the tenant do what its level forbids.
    pub fn is_excess(&self) -> bool {
        !matches!(self, Self::Missing { .. })
    }
}

impl fmt::Display for RightsMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excess { object, grantee, privileges } => {
                let (name, list) = (object.name(), privileges.join(", "));
                write!(f, "{grantee} had {list} on {name}")?;
                if object.is_ours() {
                    return Ok(());
                }
                let kind = match object.kind {
                    ObjectKind::Function | ObjectKind::Definer => "ROUTINE ",
                    ObjectKind::Schema => "SCHEMA ",
                    ObjectKind::Sequence => "SEQUENCE ",
                    _ => "",
                };
                let columns = object.column.as_ref().map(|column| format!(" ({column})")).unwrap_or_default();
                let (owner, address) = (&object.owner, &object.address);
                write!(
                    f,
                    ", which {owner} owns: only that role or a superuser can change this: \
                     REVOKE {list}{columns} ON {kind}{address} FROM {grantee} CASCADE"
                )
            }
            Self::Missing { object, grantee, privileges } => {
                write!(f, "{grantee} lacked {} on {}", privileges.join(", "), object.name())
            }
            Self::Owned(object) => write!(f, "{} owned {}", object.owner, object.name()),
        }
    }
}

/// Every difference between the rights in a tenant's database and what they should be.
pub fn rights_mismatches(objects: &[ObjectRights], logins: &[&str]) -> Vec<RightsMismatch> {
    let mut found = Vec::new();
    for ObjectRights { object, granted, .. } in objects {
        // A column without rights of its own is listed for support logins only.
        if object.kind == ObjectKind::Column && granted.is_empty() {
            continue;
        }
        if logins.contains(&object.owner.as_str()) || GROUPS.contains(&object.owner.as_str()) {
            found.push(RightsMismatch::Owned(object.clone()));
            continue;
        }
        for Granted { grantee, privileges, grantable } in granted {
            let allowed = object.allowed(grantee);
            let all = *grantable;
            let excess: Vec<String> =
                privileges.iter().filter(|name| all || !allowed.contains(&name.as_str())).cloned().collect();
            if !excess.is_empty() {
                found.push(RightsMismatch::Excess {
                    object: object.clone(),
                    grantee: grantee.clone(),
                    privileges: excess,
                });
            }
        }
        for group in GROUPS {
            let of_group = granted.iter().find(|found| found.grantee == group);
            let has = |name: &str| {
                of_group.is_some_and(|found| !found.grantable && found.privileges.contains(name))
            };
            let missing: Vec<String> = object
                .required(group)
                .iter()
                .filter(|name| !has(name))
                .map(|name| (*name).to_owned())
                .collect();
            if !missing.is_empty() {
                let (object, grantee) = (object.clone(), group.to_owned());
                found.push(RightsMismatch::Missing { object, grantee, privileges: missing });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: &str = "tenant_acme_app";

    fn object(kind: ObjectKind, schema: &str, owner: &str) -> Object {
        let column = (kind == ObjectKind::Column).then(|| "email".to_owned());
        Object {
            kind,
            schema: schema.into(),
            schema_owner: if schema == "public" { "pg_database_owner" } else { "postgres" }.into(),
            address: format!("{schema}.users"),
            column,
            owner: owner.into(),
        }
    }

    fn rights(object: Object, granted: &[(&str, &[&str])]) -> ObjectRights {
        let granted = granted.iter().map(|(grantee, privileges)| Granted {
            grantee: (*grantee).to_owned(),
            privileges: privileges.iter().map(|name| (*name).to_owned()).collect(),
            grantable: false,
        });
        ObjectRights { object, granted: granted.collect(), support: Vec::new(), hidden: false }
    }

    const TABLE: [(&str, &[&str]); 3] = [
        ("tenantry_rw", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
        ("tenantry_shrink", &["SELECT", "DELETE"]),
        ("tenantry_ro", &["SELECT"]),
    ];

    fn phrases(objects: &[ObjectRights]) -> Vec<String> {
        rights_mismatches(objects, &[LOGIN]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn default_privileges_are_no_mismatch() {
        let table = object(ObjectKind::Table, "public", OWNER);
        assert!(phrases(&[rights(table, &TABLE)]).is_empty());
        let elsewhere = object(ObjectKind::Table, "billing", OWNER);
        assert!(phrases(&[rights(elsewhere, &[("tenantry_rw", &["SELECT"])])]).is_empty());
        let foreign = object(ObjectKind::Table, "public", "postgres");
        assert!(phrases(&[rights(foreign, &[])]).is_empty());
        let function = object(ObjectKind::Function, "extensions", "postgres");
        assert!(phrases(&[rights(function, &[(PUBLIC, &["EXECUTE"])])]).is_empty());
    }

    #[test]
    fn right_of_the_login_or_of_everybody_is_an_excess() {
        for (grantee, privilege) in
            [(LOGIN, "SELECT"), (PUBLIC, "INSERT"), ("tenantry_ro", "DELETE"), ("tenantry_rw", "TRUNCATE")]
        {
            let table = object(ObjectKind::Table, "billing", OWNER);
            let privileges: &[&str] = &[privilege];
            let found = rights_mismatches(&[rights(table, &[(grantee, privileges)])], &[LOGIN]);
            let [mismatch] = &found[..] else { panic!("{found:?}") };
            assert!(mismatch.is_repairable() && mismatch.is_excess());
            assert_eq!(mismatch.to_string(), format!("{grantee} had {privilege} on table billing.users"));
        }
        let column = object(ObjectKind::Column, "public", OWNER);
        assert_eq!(phrases(&[rights(column, &[(LOGIN, &["UPDATE"])])]).len(), 1);
        let schema = object(ObjectKind::Schema, "billing", "tenantry_dba");
        assert_eq!(phrases(&[rights(schema, &[("tenantry_rw", &["CREATE", "USAGE"])])]).len(), 1);
        let definer = object(ObjectKind::Definer, "billing", OWNER);
        assert_eq!(phrases(&[rights(definer, &[("tenantry_ro", &["EXECUTE"])])]).len(), 1);
        let internal = object(ObjectKind::Table, "tenantry", OWNER);
        assert_eq!(phrases(&[rights(internal, &[("tenantry_rw", &["SELECT", "UPDATE"])])]).len(), 3);
    }

    #[test]
    fn only_the_group_of_read_write_may_redeem_and_call_nothing_else_of_the_schema() {
        let definer = |address: &str| Object {
            address: address.into(),
            ..object(ObjectKind::Definer, "tenantry", OWNER)
        };
        let of = |address, granted: &[(&str, &[&str])]| phrases(&[rights(definer(address), granted)]);
        let execute: &[&str] = &["EXECUTE"];
        assert!(of(REDEEM, &[("tenantry_rw", execute)]).is_empty());
        assert_eq!(of(REDEEM, &[]), ["tenantry_rw lacked EXECUTE on function tenantry.redeem(token text)"]);
        assert_eq!(of(REDEEM, &[("tenantry_ro", execute), (PUBLIC, execute)]).len(), 3);
        assert!(of("tenantry.count()", &[]).is_empty());
        assert_eq!(of("tenantry.count()", &[("tenantry_rw", execute)]).len(), 1);
    }

    #[test]
    fn another_owners_object_is_named_with_the_statement() {
        let table = object(ObjectKind::Table, "public", "postgres");
        let found = rights_mismatches(&[rights(table, &[(PUBLIC, &["INSERT"])])], &[LOGIN]);
        assert!(!found[0].is_repairable());
        assert!(found[0].to_string().ends_with("REVOKE INSERT ON public.users FROM PUBLIC CASCADE"));
    }

    #[test]
    fn object_of_the_login_is_a_mismatch_whatever_its_rights() {
        let table = object(ObjectKind::Table, "public", LOGIN);
        assert_eq!(phrases(&[rights(table, &[])]), ["tenant_acme_app owned table public.users"]);
    }

    #[test]
    fn right_that_a_group_lost_is_missing() {
        let table = object(ObjectKind::Table, "public", OWNER);
        let mut fewer = TABLE;
        fewer[0] = ("tenantry_rw", &["SELECT", "UPDATE", "DELETE"]);
        assert_eq!(phrases(&[rights(table, &fewer)]), ["tenantry_rw lacked INSERT on table public.users"]);
    }

    #[test]
    fn schema_of_a_module_has_the_rights_of_public() {
        let mut fewer = TABLE;
        fewer[1] = ("tenantry_shrink", &["SELECT"]);
        for owner in ["tenantry_dba", "pg_database_owner"] {
            let table = Object { schema_owner: owner.into(), ..object(ObjectKind::Table, "billing", OWNER) };
            assert!(phrases(&[rights(table.clone(), &TABLE)]).is_empty());
            let lacked = "tenantry_shrink lacked DELETE on table billing.users";
            assert_eq!(phrases(&[rights(table, &fewer)]), [lacked]);
        }
        for (kind, owner) in [(ObjectKind::Schema, "tenantry_dba"), (ObjectKind::DefaultSequences, OWNER)] {
            let one = Object { schema_owner: "tenantry_dba".into(), ..object(kind, "billing", owner) };
            assert_eq!(phrases(&[rights(one, &[])]).len(), 3, "{kind:?}");
        }
    }

    #[test]
    fn right_that_can_be_passed_on_is_an_excess_and_granted_again() {
        let mut rights = rights(object(ObjectKind::Table, "public", OWNER), &TABLE);
        rights.granted[2].grantable = true;
        assert_eq!(phrases(&[rights]).len(), 2);
    }
}
