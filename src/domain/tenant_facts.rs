//! What PostgreSQL's catalogs show of one tenant, as values.

use super::{identity::TenantId, record::TenantRecord};

/// What a server has of one tenant.
#[derive(Clone, Debug)]
pub struct TenantFacts {
    /// The database of the final name, the tenant's or not.
    pub database: Option<DatabaseProperties>,
    /// The database of the building name.
    pub building: Option<DatabaseProperties>,
    /// The role of the login's name, the tenant's or not.
    pub login: Option<LoginProperties>,
    /// The login before it, while it is recorded as valid.
    pub previous: Option<OtherLogin>,
    /// The reader login, if one is recorded.
    pub reader: Option<OtherLogin>,
    /// The tenant's roles under other names: an administrator renamed its login.
    pub strays: Vec<StrayRole>,
}

/// What a login beside the tenant's login is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherKind {
    /// The login before it, during a rotation of the credentials.
    Previous,
    /// The login that only reads.
    Reader,
}

/// A login of a tenant beside its login.
#[derive(Clone, Debug)]
pub struct OtherLogin {
    /// What it is.
    pub kind: OtherKind,
    /// Its name.
    pub name: String,
    /// The role of that name, the tenant's or not.
    pub role: Option<LoginProperties>,
    /// Whether it was granted CONNECT on the tenant's database.
    pub may_connect: bool,
}

impl OtherLogin {
    /// The role, if it is the tenant's by its comment or by its oid.
    pub fn own_role(&self, recorded: RecordedOids) -> Option<&LoginProperties> {
        let oid = match self.kind {
            OtherKind::Previous => recorded.previous_login,
            OtherKind::Reader => recorded.reader_login,
        };
        self.role.as_ref().filter(|role| role.ownership.is_ours() || role.ownership.is_lost(role.oid, oid))
    }
}

/// A role that is the tenant's by its comment or its oid, and has not the name of its login.
#[derive(Clone, Debug)]
pub struct StrayRole {
    /// Its name.
    pub name: String,
    /// Its oid.
    pub oid: i64,
    /// Which tenant its comment names.
    pub ownership: Ownership,
    /// It has LOGIN, or CONNECT on the tenant's database, or is a member of a role.
    pub has_access: bool,
}

/// A setting of a login or a database in `pg_db_role_setting`, which every new session starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSetting {
    /// The parameter; none for everything that is stored at this place, where it is too large to be read.
    pub name: Option<String>,
    /// The database in which it holds; none: in all of them. A login can store settings for any database.
    pub database: Option<String>,
    /// `tenantry_admin` may reset it.
    pub resettable: bool,
}

/// A membership that another role than `tenantry_admin` granted: from 16 on, only that role or a superuser can revoke it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignGrant {
    /// The role whose rights are granted.
    pub role: String,
    /// The role that has them.
    pub member: String,
    /// The role that granted them.
    pub grantor: String,
    /// The membership is as Tenantry grants its own: inherited, and without ADMIN OPTION.
    pub plain: bool,
}

/// The properties of a database.
#[derive(Clone, Debug)]
pub struct DatabaseProperties {
    /// Its name.
    pub name: String,
    /// Its oid, which distinguishes it from a later database of the same name.
    pub oid: i64,
    /// Which tenant its comment names.
    pub ownership: Ownership,
    /// Whether its comment says that it existed before the tenant, which is not active yet: it is never dropped.
    pub is_adopting: bool,
    /// Whether `tenantry_dba` owns it.
    pub owned_by_dba: bool,
    /// `ALLOW_CONNECTIONS`.
    pub allow_connections: bool,
    /// A DROP DATABASE was interrupted (`datconnlimit` is -2): PostgreSQL accepts nothing but another one.
    pub drop_interrupted: bool,
    /// The maximum number of sessions in it; -1 for no limit.
    pub connection_limit: i32,
    /// The digest of the template it was cloned from.
    pub template_digest: Option<String>,
    /// Whether the tenant's login was granted CONNECT.
    pub login_may_connect: bool,
    /// Whether PUBLIC has any right, which it never should.
    pub open_to_public: bool,
    /// `IS_TEMPLATE`: PostgreSQL refuses to drop it, and lets others clone it.
    pub is_template: bool,
    /// Its settings: there should be none.
    pub settings: Vec<SessionSetting>,
}

/// The properties of a tenant's login.
#[derive(Clone, Debug)]
pub struct LoginProperties {
    /// Its name.
    pub name: String,
    /// Its oid, which distinguishes it from a later role of the same name.
    pub oid: i64,
    /// Which tenant its comment names.
    pub ownership: Ownership,
    /// LOGIN.
    pub can_login: bool,
    /// INHERIT: it has the rights of its group.
    pub inherits: bool,
    /// The end of the validity of its password, if there is one.
    pub valid_until: Option<String>,
    /// Its settings: there should be none.
    pub settings: Vec<SessionSetting>,
    /// Which of the three groups it is a member of, as Tenantry grants it.
    pub groups: Vec<String>,
    /// Those of which it is a member in another way: with ADMIN OPTION, or without INHERIT.
    pub flawed_groups: Vec<String>,
    /// Memberships, of it and in it, that `tenantry_admin` cannot revoke.
    pub foreign_grants: Vec<ForeignGrant>,
    /// Other roles that it is a member of: there should be none.
    pub foreign_memberships: Vec<String>,
    /// Roles that are members of it: there should be none (only an administrator can add one).
    pub foreign_members: Vec<String>,
    /// It has CREATEDB or CREATEROLE, which no tenant's login has.
    pub may_create: bool,
    /// It has SUPERUSER, REPLICATION or BYPASSRLS, which no tenant's login has and only a superuser can revoke.
    pub has_superuser_attributes: bool,
    /// It existed before the tenant, and `tenantry_admin` may not change it any more.
    pub is_out_of_reach: bool,
    /// The maximum number of its sessions; -1 for no limit.
    pub connection_limit: i32,
    /// Rights were revoked, and it is not proven yet that no earlier session still has them.
    pub is_revocation_unproven: bool,
    /// Its comment says that it existed before the tenant: it is never dropped.
    pub is_kept: bool,
}

/// Which tenant the comment of a database or a role names, seen from one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This tenant.
    Ours,
    /// Another tenant.
    OtherTenant(TenantId),
    /// There is no comment.
    NoComment,
    /// The comment is not an ownership comment of Tenantry.
    OtherComment,
}

impl Ownership {
    /// Whether it is this tenant's.
    pub fn is_ours(self) -> bool {
        self == Self::Ours
    }

    /// The owner, for a message.
    pub fn describe(self) -> String {
        match self {
            Self::Ours => "its comment names this tenant".to_owned(),
            Self::OtherTenant(id) => format!("its comment names tenant {id}"),
            Self::NoComment => "it has no ownership comment".to_owned(),
            Self::OtherComment => "its comment is not one of Tenantry".to_owned(),
        }
    }

    /// Whether an object without a readable ownership comment is the one with a recorded oid. An object whose comment
    /// names another tenant is never this tenant's.
    pub fn is_lost(self, oid: i64, recorded: Option<i64>) -> bool {
        matches!(self, Self::NoComment | Self::OtherComment) && recorded == Some(oid)
    }
}

/// The oids under which a tenant's database and login were last observed with their ownership comments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordedOids {
    /// The database's.
    pub database: Option<i64>,
    /// The login's.
    pub login: Option<i64>,
    /// The previous login's.
    pub previous_login: Option<i64>,
    /// The previous login existed before the tenant.
    pub is_previous_kept: bool,
    /// The tenant was never active on the database that it took over: with that database, the previous login is given back.
    pub may_be_given_back: bool,
    /// The reader login's.
    pub reader_login: Option<i64>,
}

impl RecordedOids {
    /// The oids in a registry row.
    pub fn of(record: &TenantRecord) -> Self {
        let previous = record.credentials.previous.as_ref();
        let is_previous_kept = previous.is_some_and(|previous| previous.kept_until.is_some());
        Self {
            database: record.database_oid,
            login: record.login_oid,
            previous_login: previous.and_then(|previous| previous.oid),
            is_previous_kept,
            may_be_given_back: is_previous_kept && record.takeover.is_some() && record.activated_at.is_none(),
            reader_login: record.credentials.reader.as_ref().and_then(|reader| reader.oid),
        }
    }

    /// Whether no oid is recorded yet.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl TenantFacts {
    /// The logins beside the tenant's login.
    pub fn others(&self) -> impl Iterator<Item = &OtherLogin> {
        self.previous.iter().chain(&self.reader)
    }

    /// The facts of the login alone: each of the others has its own turn.
    #[must_use]
    pub fn without_others(self) -> Self {
        Self { previous: None, reader: None, ..self }
    }

    /// The database of the final name, if it is the tenant's by its comment or by its oid.
    pub fn own_database(&self, recorded: RecordedOids) -> Option<&DatabaseProperties> {
        self.database.as_ref().filter(|database| {
            database.ownership.is_ours() || database.ownership.is_lost(database.oid, recorded.database)
        })
    }

    /// Whether the database that was taken over is its former owner's again, and the previous login with it. Both may be there
    /// without being recorded: the operator may have been interrupted in between.
    pub fn is_given_back(&self, recorded: RecordedOids) -> bool {
        let is_returned =
            |database: &DatabaseProperties| !database.ownership.is_ours() && !database.owned_by_dba;
        recorded.may_be_given_back && self.database.as_ref().is_some_and(is_returned)
    }

    /// Whether the database is the tenant's by its comment, and another one than the recorded one: it was restored.
    pub fn is_restored(&self, recorded: RecordedOids) -> bool {
        let own = self.database.as_ref().filter(|database| database.ownership.is_ours());
        own.is_some_and(|database| recorded.database.is_some_and(|oid| oid != database.oid))
    }

    /// The login, if it is the tenant's by its comment or by its oid.
    pub fn own_login(&self, recorded: RecordedOids) -> Option<&LoginProperties> {
        self.login
            .as_ref()
            .filter(|login| login.ownership.is_ours() || login.ownership.is_lost(login.oid, recorded.login))
    }

    /// The role that was the login before it was renamed, while no role has the login's name: the one with the recorded
    /// oid, else one with access.
    pub fn renamed_login(&self, recorded: RecordedOids) -> Option<&StrayRole> {
        let is_reader = |stray: &StrayRole| recorded.reader_login == Some(stray.oid);
        let strays = self.strays.iter().filter(|stray| self.login.is_none() && !is_reader(stray));
        strays.max_by_key(|stray| (recorded.login == Some(stray.oid), stray.has_access))
    }
}
