//! One difference between PostgreSQL and what should be in force.

use std::fmt;

use crate::{
    api::reason::Reason,
    domain::{access::AccessLevel, workflow::step::Step},
};

/// One difference. Its `Display` is the phrase of Events and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// There is no database of the tenant's name.
    DatabaseMissing,
    /// The database of the tenant's name is not the tenant's.
    ForeignDatabase(String),
    /// The database lost its ownership comment.
    DatabaseComment,
    /// `tenantry_dba` does not own the database.
    DatabaseOwner(String),
    /// A DROP DATABASE was interrupted.
    DropInterrupted(String),
    /// The database has `ALLOW_CONNECTIONS false`.
    DatabaseClosed,
    /// The database has a connection limit.
    DatabaseConnectionLimit(i32),
    /// PUBLIC has rights on the database.
    PublicRights,
    /// The login has CONNECT and should not.
    ConnectGranted,
    /// The login does not have CONNECT.
    ConnectMissing,
    /// The database has `IS_TEMPLATE`.
    DatabaseTemplate,
    /// Settings of the database.
    DatabaseSettings(Vec<String>),
    /// There is no role of the login's name.
    LoginMissing,
    /// The login has another name.
    LoginRenamed(String),
    /// Other roles of the tenant's than its login have access.
    StrayLogins(Vec<String>),
    /// The login has NOINHERIT: before PostgreSQL 16, it has no right of its group.
    LoginWithoutInherit,
    /// The password of the login has an end of validity.
    LoginExpires(String),
    /// Settings of the login.
    LoginSettings(Vec<String>),
    /// Settings of the login or the database that a superuser made: the statements that reset them.
    SuperuserSettings(Vec<String>),
    /// Memberships that only a superuser can revoke: the statements that do.
    SuperuserGrants(Vec<String>),
    /// The role of the login's name is not the tenant's.
    ForeignLogin,
    /// The login lost its ownership comment.
    LoginComment,
    /// The login has NOLOGIN and should not.
    LoginDisabled,
    /// The login has LOGIN and should not.
    LoginEnabled,
    /// The login is a member of other groups than its level's.
    Groups(Vec<String>),
    /// The login is a member of roles that are no groups of Tenantry.
    ForeignMemberships(Vec<String>),
    /// Roles are members of the login.
    ForeignMembers(Vec<String>),
    /// The login has CREATEDB or CREATEROLE.
    CreateAttributes,
    /// The login has SUPERUSER, REPLICATION or BYPASSRLS.
    SuperuserAttributes(String),
    /// `tenantry_admin` may not change the login: it existed before the tenant, and a grant was revoked.
    OutOfReach(String),
    /// The login has another connection limit.
    LoginConnectionLimit {
        /// The limit that was found.
        found: i32,
        /// The limit that it should have.
        expected: i32,
    },
    /// Rights were revoked, and earlier sessions may still have them.
    RevocationUnproven,
    /// A difference of the previous login, by its name.
    OfPreviousLogin(String, Box<Self>),
    /// The previous login exists after its time.
    PreviousLoginOver(String),
    /// A difference of the reader login, by its name.
    OfReaderLogin(String, Box<Self>),
}

impl Mismatch {
    /// Whether it is no change by hand: a time came.
    pub fn comes_with_time(&self) -> bool {
        matches!(self, Self::PreviousLoginOver(_))
    }

    /// The step that repairs it; none for what only a person can change.
    pub fn repaired_by(&self) -> Option<Step> {
        match self {
            Self::DatabaseMissing
            | Self::ForeignDatabase(_)
            | Self::DatabaseOwner(_)
            | Self::DropInterrupted(_)
            | Self::ForeignLogin
            | Self::SuperuserAttributes(_)
            | Self::OutOfReach(_)
            | Self::SuperuserSettings(_)
            | Self::SuperuserGrants(_) => None,
            // It is never made again, and has no Secret that could be written.
            Self::OfPreviousLogin(_, mismatch) => match &**mismatch {
                Self::LoginMissing => Some(Step::RetireLogin),
                Self::LoginDisabled => Some(Step::EnforceAccess),
                other => other.repaired_by(),
            },
            Self::PreviousLoginOver(_) => Some(Step::RetireLogin),
            Self::OfReaderLogin(_, mismatch) => match &**mismatch {
                Self::LoginMissing => Some(Step::PublishReader),
                Self::LoginDisabled => Some(Step::EnforceAccess),
                other => other.repaired_by(),
            },
            Self::LoginMissing | Self::LoginRenamed(_) => Some(Step::CreateRoles),
            Self::LoginDisabled => Some(Step::PublishCredentials),
            Self::LoginConnectionLimit { .. } => Some(Step::ApplyPlan),
            Self::DatabaseComment
            | Self::DatabaseClosed
            | Self::DatabaseConnectionLimit(_)
            | Self::DatabaseTemplate
            | Self::DatabaseSettings(_)
            | Self::StrayLogins(_)
            | Self::LoginWithoutInherit
            | Self::LoginExpires(_)
            | Self::LoginSettings(_)
            | Self::PublicRights
            | Self::ConnectGranted
            | Self::ConnectMissing
            | Self::LoginComment
            | Self::LoginEnabled
            | Self::Groups(_)
            | Self::ForeignMemberships(_)
            | Self::ForeignMembers(_)
            | Self::CreateAttributes
            | Self::RevocationUnproven => Some(Step::EnforceAccess),
        }
    }

    /// The reason of the condition that reports it while it waits for a person.
    pub fn reason(&self) -> Reason {
        match self {
            Self::OfPreviousLogin(_, mismatch) | Self::OfReaderLogin(_, mismatch) => mismatch.reason(),
            Self::ForeignDatabase(_) | Self::ForeignLogin => Reason::Conflict,
            Self::DatabaseMissing | Self::DropInterrupted(_) => Reason::DatabaseMissing,
            _ => Reason::MissingRight,
        }
    }

    /// Whether it proves that a level is not in force.
    pub(super) fn contradicts(&self, level: AccessLevel) -> bool {
        match self {
            Self::OfPreviousLogin(_, mismatch) | Self::OfReaderLogin(_, mismatch) => {
                **mismatch != Self::LoginMissing && mismatch.contradicts(level)
            }
            Self::PreviousLoginOver(_) => false,
            Self::DatabaseComment
            | Self::DatabaseTemplate
            | Self::DatabaseSettings(_)
            | Self::LoginComment
            | Self::LoginDisabled
            | Self::LoginExpires(_)
            | Self::LoginSettings(_)
            | Self::SuperuserSettings(_)
            | Self::OutOfReach(_)
            | Self::LoginConnectionLimit { .. } => false,
            Self::DatabaseMissing
            | Self::ForeignDatabase(_)
            | Self::DatabaseOwner(_)
            | Self::LoginMissing
            | Self::LoginWithoutInherit
            // Without LOGIN and CONNECT, the login cannot use them.
            | Self::SuperuserGrants(_)
            | Self::ForeignLogin => level > AccessLevel::Blocked,
            _ => true,
        }
    }

    /// Whether it lets a client into the database of a tenant that should be `Blocked`.
    pub(super) fn grants_access(&self) -> bool {
        if let Self::OfPreviousLogin(_, mismatch) | Self::OfReaderLogin(_, mismatch) = self {
            return mismatch.grants_access();
        }
        matches!(
            self,
            Self::LoginRenamed(_)
                | Self::StrayLogins(_)
                | Self::PublicRights
                | Self::ConnectGranted
                | Self::LoginEnabled
                | Self::Groups(_)
                | Self::ForeignMemberships(_)
                | Self::ForeignMembers(_)
                | Self::RevocationUnproven
        )
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        match self {
            Self::DatabaseMissing => f.write_str("the database does not exist"),
            Self::ForeignDatabase(name) => write!(f, "database {name} is not the tenant's"),
            Self::DatabaseComment => f.write_str("the database's comment was changed"),
            Self::DatabaseOwner(name) => write!(
                f,
                "database {name} is not owned by tenantry_dba, which only a superuser can change: \
                 ALTER DATABASE {name} OWNER TO tenantry_dba"
            ),
            Self::DropInterrupted(name) => write!(
                f,
                "a DROP DATABASE of {name} was interrupted, and PostgreSQL accepts nothing but another one: drop it \
                 and restore it under this name"
            ),
            Self::DatabaseClosed => f.write_str("the database accepted no connections"),
            Self::DatabaseConnectionLimit(limit) => {
                write!(f, "the database had a connection limit of {limit}")
            }
            Self::DatabaseTemplate => f.write_str("the database was a template (IS_TEMPLATE)"),
            Self::DatabaseSettings(names) => {
                write!(f, "the database had settings of its own: {}", list(names))
            }
            Self::PublicRights => f.write_str("PUBLIC had rights on the database"),
            Self::ConnectGranted => f.write_str("the login had CONNECT"),
            Self::ConnectMissing => f.write_str("the login lacked CONNECT"),
            Self::LoginMissing => f.write_str("the login did not exist"),
            Self::LoginRenamed(name) => write!(f, "the login was renamed to {name}"),
            Self::StrayLogins(names) => {
                write!(f, "other roles had the access of the tenant's login: {}", list(names))
            }
            Self::LoginWithoutInherit => f.write_str("the login was NOINHERIT"),
            Self::LoginExpires(at) => write!(f, "the login's password was valid until {at}"),
            Self::LoginSettings(names) => write!(f, "the login had settings of its own: {}", list(names)),
            Self::SuperuserSettings(statements) => write!(
                f,
                "the login or the database has settings that only a superuser can reset: {}",
                statements.join("; ")
            ),
            Self::SuperuserGrants(statements) => write!(
                f,
                "the login has memberships that tenantry_admin did not grant, and that only a superuser can revoke: {}",
                statements.join("; ")
            ),
            Self::ForeignLogin => f.write_str("the role of the login's name is not the tenant's"),
            Self::LoginComment => f.write_str("the login's comment was changed"),
            Self::LoginDisabled => f.write_str("the login was NOLOGIN"),
            Self::LoginEnabled => f.write_str("the login had LOGIN"),
            Self::Groups(names) | Self::ForeignMemberships(names) => {
                write!(f, "the login was a member of {}", list(names))
            }
            Self::ForeignMembers(names) => write!(f, "{} had the login's rights", list(names)),
            Self::CreateAttributes => f.write_str("the login had CREATEDB or CREATEROLE"),
            Self::OutOfReach(login) => write!(
                f,
                "tenantry_admin may not change role {login} any more, and can neither restrict nor end it: \
                 GRANT \"{login}\" TO tenantry_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
            ),
            Self::SuperuserAttributes(login) => write!(
                f,
                "role {login} has SUPERUSER, REPLICATION or BYPASSRLS, which only a superuser can revoke: \
                 ALTER ROLE {login} NOSUPERUSER NOREPLICATION NOBYPASSRLS"
            ),
            Self::LoginConnectionLimit { found, expected } => {
                write!(f, "the login had a connection limit of {found} instead of {expected}")
            }
            Self::OfPreviousLogin(name, mismatch) => write!(f, "of the previous login {name}: {mismatch}"),
            Self::PreviousLoginOver(name) => write!(f, "the previous login {name} exists after its time"),
            Self::OfReaderLogin(name, mismatch) => write!(f, "of the reader login {name}: {mismatch}"),
            Self::RevocationUnproven => {
                f.write_str("sessions from before the last change were not proven to be ended")
            }
        }
    }
}
