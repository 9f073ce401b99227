//! The rights that the operator's login needs on a server, and those that it can work without.

use std::fmt;

/// The longest list of databases in a message.
const LISTED: usize = 10;

/// A right that the operator's login lacks, or that it or PUBLIC should not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingRight {
    /// There is no role `tenantry_admin`.
    AdminRole,
    /// `tenantry_admin` lacks CREATEDB.
    AdminCreateDb,
    /// `tenantry_admin` lacks CREATEROLE.
    AdminCreateRole,
    /// The login is not a member of `tenantry_admin`, or lacks the INHERIT or the SET option.
    Membership,
    /// The login cannot write the installation's id into the comment of `tenantry_admin`, which has none yet.
    AdminOption,
    /// The login or `tenantry_admin` is a superuser.
    Superuser,
    /// `tenantry_admin` may not end other roles' sessions.
    SignalBackend,
    /// `tenantry_admin` may not read when other roles' sessions began.
    ReadAllStats,
    /// `tenantry_admin` may not use the connections that the server reserves. (PostgreSQL 15 reserves none.)
    ReservedConnections,
    /// `tenantry_admin` may not set `temp_file_limit` for a role.
    TempFileLimit,
    /// PUBLIC may connect to `postgres`.
    PostgresOpen,
    /// PUBLIC may connect to `template1`.
    Template1Open,
    /// PUBLIC may connect to these other databases, which are not Tenantry's.
    DatabasesOpen(Vec<String>),
    /// PUBLIC may write large objects in this template, and so in the databases that are cloned from it.
    LargeObjects {
        /// The template's name.
        template: String,
    },
}

impl MissingRight {
    /// Whether no tenant is changed on a server without it. Without any of the others, no tenant reaches the data of
    /// another one, and a blocked tenant reaches nothing.
    pub fn is_required(&self) -> bool {
        match self {
            Self::AdminRole
            | Self::AdminCreateDb
            | Self::AdminCreateRole
            | Self::Membership
            | Self::AdminOption
            | Self::Superuser => true,
            Self::SignalBackend
            | Self::ReadAllStats
            | Self::ReservedConnections
            | Self::TempFileLimit
            | Self::PostgresOpen
            | Self::Template1Open
            | Self::DatabasesOpen(_)
            | Self::LargeObjects { .. } => false,
        }
    }

    /// What is different without a right that is not required.
    pub fn consequence(&self) -> &'static str {
        match self {
            Self::SignalBackend | Self::ReadAllStats => {
                "the operator ends sessions with the login of the tenant"
            }
            Self::ReservedConnections => {
                "when tenants use all connections of the server, the operator waits for one"
            }
            Self::TempFileLimit => "a tenant's temporary files are not limited",
            Self::PostgresOpen | Self::DatabasesOpen(_) => {
                "a tenant's login can connect there, while its access is not Blocked, and write temporary tables and \
                 large objects that count for no limit"
            }
            Self::Template1Open => {
                "tenants are built from template0, without what an administrator installed in template1"
            }
            Self::LargeObjects { .. } => {
                "a tenant can write large objects in its database at every access level but Blocked, also ReadOnly"
            }
            Self::AdminRole
            | Self::AdminCreateDb
            | Self::AdminCreateRole
            | Self::Membership
            | Self::AdminOption
            | Self::Superuser => "no tenant is changed",
        }
    }
}

impl fmt::Display for MissingRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminRole => "role tenantry_admin does not exist",
            Self::AdminCreateDb => "tenantry_admin lacks CREATEDB",
            Self::AdminCreateRole => "tenantry_admin lacks CREATEROLE",
            Self::Membership => {
                "the operator's login is not a member of tenantry_admin (from 16 on, WITH INHERIT TRUE, SET TRUE)"
            }
            Self::AdminOption => {
                "the operator's login lacks CREATEROLE, or from 16 on ADMIN OPTION on tenantry_admin, to write the \
                 installation's id onto it"
            }
            Self::Superuser => {
                "the operator's login or tenantry_admin is a SUPERUSER, which is never needed: NOSUPERUSER"
            }
            Self::SignalBackend => "tenantry_admin lacks pg_signal_backend, to end tenants' sessions",
            Self::ReadAllStats => {
                "tenantry_admin lacks pg_read_all_stats, to prove that tenants' sessions have ended"
            }
            Self::ReservedConnections => "tenantry_admin lacks pg_use_reserved_connections",
            Self::TempFileLimit => "tenantry_admin lacks SET ON PARAMETER temp_file_limit",
            Self::PostgresOpen => {
                "PUBLIC may CONNECT to database postgres (REVOKE CONNECT ON DATABASE postgres FROM PUBLIC, as its owner)"
            }
            Self::Template1Open => {
                "PUBLIC may CONNECT to database template1 (REVOKE CONNECT ON DATABASE template1 FROM PUBLIC, as its owner)"
            }
            Self::DatabasesOpen(names) => return open_databases(names, f),
            Self::LargeObjects { template } => {
                return write!(
                    f,
                    "PUBLIC may EXECUTE the large-object writers (lo_create and others) in template {template}, and so in \
                     the databases that are cloned from it, since template1 allowed it when the template was built (as a \
                     superuser, run `tenantry server-setup` unless template1 is closed by now; then drop the template, \
                     and a new one is built)"
                );
            }
        })
    }
}

fn open_databases(names: &[String], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let listed = names.iter().take(LISTED).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    write!(
        f,
        "PUBLIC may CONNECT to {listed}{more} (REVOKE CONNECT ON DATABASE {listed} FROM PUBLIC, as the owner, and GRANT \
         it to the logins that need it)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_template_does_not_accuse_template1_of_being_open_now() {
        let text = MissingRight::LargeObjects { template: "tenantry_template_a".into() }.to_string();
        assert!(text.contains("in template tenantry_template_a,"), "{text}");
        assert!(!text.contains("in template1"), "{text}");
    }

    #[test]
    fn long_list_of_open_databases_is_cut() {
        let names = |count: usize| (0..count).map(|n| format!("d{n}")).collect();
        let text = MissingRight::DatabasesOpen(names(2)).to_string();
        assert!(text.contains("REVOKE CONNECT ON DATABASE \"d0\", \"d1\" FROM PUBLIC"), "{text}");
        let text = MissingRight::DatabasesOpen(names(12)).to_string();
        assert!(text.contains("\"d9\" and 2 more") && !text.contains("d10"), "{text}");
    }
}
