//! What was read of a database that could be taken over.

use serde::{Deserialize, Serialize};

/// Whether `tenantry_admin` can act for a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reach {
    /// The role is one of Tenantry's own: nothing of it has to be taken over.
    Ours,
    /// It is a member of the role.
    Member,
    /// It may make itself a member.
    Grantable,
    /// The role is a superuser.
    Superuser,
    /// Only another role may make it a member: from 16 on, one with ADMIN OPTION.
    OutOfReach,
}

/// A role that owns something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FoundRole {
    /// Its name.
    pub name: String,
    /// Its name in SQL, quoted by PostgreSQL.
    pub sql: String,
    /// Whether what it owns can be taken over.
    pub reach: Reach,
}

/// The rights of one role on the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRights {
    /// The role; none for everybody.
    pub role: Option<String>,
    /// Its name in SQL; `PUBLIC` for everybody.
    pub sql: String,
    /// The rights, sorted.
    pub privileges: Vec<String>,
}

/// The role that should be kept, as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundLogin {
    /// Its oid.
    pub oid: i64,
    /// Its name.
    pub name: String,
    /// Its name in SQL, quoted by PostgreSQL.
    pub sql: String,
    /// Its comment.
    pub comment: Option<String>,
    /// Whether it is Tenantry's, or another tenant's, by its name or its comment.
    pub is_marked: bool,
    /// Its attributes as CREATE ROLE spells them, as far as no tenant's login has them.
    pub attributes: Vec<String>,
    /// The end of the validity of its password.
    pub valid_until: Option<String>,
    /// Its maximum number of sessions.
    pub connection_limit: i32,
    /// The parameters that are set for it.
    pub settings: Vec<Obstruction>,
    /// Whether `tenantry_admin` may change it.
    pub is_changeable: bool,
    /// The roles that it is a member of, in SQL.
    pub member_of: Vec<String>,
    /// The roles that are members of it, in SQL.
    pub members: Vec<String>,
    /// What it has beside the database.
    pub elsewhere: Vec<Obstruction>,
}

/// An object in the database, with its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundObject {
    /// The catalog that it is in.
    pub catalog: i64,
    /// Its oid.
    pub oid: i64,
    /// Its kind, as `pg_identify_object` names it.
    pub kind: String,
    /// Its name in SQL, qualified and quoted by PostgreSQL.
    pub identity: String,
    /// The name of its owner.
    pub owner: String,
    /// The rights of PUBLIC on it.
    pub public: Vec<String>,
    /// The rights that the login to keep was granted on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub login: Vec<String>,
}

/// Something that a database may not have when it is taken over, with the statement that removes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstruction {
    /// What it is, for a message.
    pub what: String,
    /// The statement.
    pub statement: String,
}

/// The rights of a role on objects in the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grantee {
    /// The role; `PUBLIC` for everybody.
    pub role: String,
    /// On how many objects.
    pub objects: i64,
}

/// An extension in the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundExtension {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its owner.
    pub owner: String,
}

/// What was read in the database itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseContent {
    /// Every object that has an owner, apart from those of extensions.
    pub objects: Vec<FoundObject>,
    /// The roles that own them.
    pub owners: Vec<FoundRole>,
    /// Who has rights on objects, apart from their owners and Tenantry's roles.
    pub grantees: Vec<Grantee>,
    /// A digest of those rights.
    pub rights: String,
    /// The extensions.
    pub extensions: Vec<FoundExtension>,
    /// What cannot be taken over.
    pub obstructions: Vec<Obstruction>,
    /// The number of large objects.
    pub large_objects: i64,
}

/// What was read of a database, as a candidate for a takeover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDatabase {
    /// Its oid.
    pub oid: i64,
    /// Its name.
    pub name: String,
    /// Its name in SQL, quoted by PostgreSQL.
    pub sql: String,
    /// Its owner.
    pub owner: FoundRole,
    /// Its comment.
    pub comment: Option<String>,
    /// Whether the comment names a tenant or an object of Tenantry.
    pub is_marked: bool,
    /// Its encoding.
    pub encoding: String,
    /// Its collation and its character classification.
    pub locale: String,
    /// `IS_TEMPLATE`.
    pub is_template: bool,
    /// `ALLOW_CONNECTIONS`.
    pub allows_connections: bool,
    /// The maximum number of sessions in it; -1 for no limit, -2 after an interrupted drop.
    pub connection_limit: i32,
    /// A session in it starts with code of the database: an event trigger on login.
    pub has_login_trigger: bool,
    /// The operator's login may connect to it.
    pub may_connect: bool,
    /// Who has rights on it, apart from its owner.
    pub rights: Vec<FoundRights>,
    /// The parameters that are set for it.
    pub settings: Vec<String>,
    /// The prepared transactions in it.
    pub prepared: Vec<String>,
    /// The roles that have sessions in it. They come and go, and are no part of the digest.
    #[serde(skip_serializing, default)]
    pub sessions: Vec<String>,
    /// Whether a role has the name of the tenant's login.
    pub is_login_taken: bool,
    /// The role that should be kept; none where none should be, or it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<FoundLogin>,
    /// What is in it; none where it was not opened.
    #[serde(default)]
    pub content: Option<DatabaseContent>,
}

impl FoundDatabase {
    /// Whether nothing stands against opening a session in it.
    pub fn can_be_opened(&self) -> bool {
        self.may_connect
            && self.allows_connections
            && !self.has_login_trigger
            && !self.is_marked
            && !self.is_reserved()
            && self.connection_limit != -2
    }

    /// Whether it is PostgreSQL's or Tenantry's own.
    pub(super) fn is_reserved(&self) -> bool {
        ["postgres", "template0", "template1"].contains(&self.name.as_str())
            || self.name.starts_with("tenantry_")
            || self.owner.name == ADMIN
    }
}

/// The role that owns the registry, and what it made and did not hand over.
const ADMIN: &str = "tenantry_admin";
/// The owner of tenants' databases and of the schemas in them.
pub(super) const DBA: &str = "tenantry_dba";
/// The owner of the objects in them.
pub(super) const OWNER: &str = "tenantry_owner";

/// The kind of an object in `ALTER … OWNER TO`, by the kind as `pg_identify_object` names it; none of what is not taken
/// over.
pub fn alter_keyword(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "table" => "TABLE",
        "view" => "VIEW",
        "materialized view" => "MATERIALIZED VIEW",
        "foreign table" => "FOREIGN TABLE",
        "sequence" => "SEQUENCE",
        "function" | "procedure" | "aggregate" => "ROUTINE",
        "type" => "TYPE",
        "schema" => "SCHEMA",
        "collation" => "COLLATION",
        "conversion" => "CONVERSION",
        "operator" => "OPERATOR",
        "operator class" => "OPERATOR CLASS",
        "operator family" => "OPERATOR FAMILY",
        "text search configuration" => "TEXT SEARCH CONFIGURATION",
        "text search dictionary" => "TEXT SEARCH DICTIONARY",
        "statistics object" => "STATISTICS",
        _ => return None,
    })
}

/// The owner that an object of this kind gets.
pub fn new_owner(kind: &str) -> &'static str {
    if kind == "schema" { DBA } else { OWNER }
}
