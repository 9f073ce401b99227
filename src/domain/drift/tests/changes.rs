//! Manual changes, one of each kind.

use uuid::Uuid;

use crate::domain::{
    access::AccessLevel,
    identity::TenantId,
    tenant_facts::{
        DatabaseProperties, ForeignGrant, LoginProperties, Ownership, SessionSetting, StrayRole, TenantFacts,
    },
    workflow::step::Step,
};

pub fn setting(resettable: bool) -> Vec<SessionSetting> {
    vec![SessionSetting { name: Some("work_mem".into()), database: Some("tenant_acme".into()), resettable }]
}

pub fn granted_by_a_superuser(role: &str, member: &str) -> Vec<ForeignGrant> {
    let (role, member, grantor) = (role.into(), member.into(), "postgres".into());
    vec![ForeignGrant { role, member, grantor, plain: true }]
}

pub fn stray(has_access: bool) -> StrayRole {
    StrayRole { name: "old".into(), oid: 7, ownership: Ownership::Ours, has_access }
}

pub type ManualChange = fn(&mut TenantFacts);

pub fn database(facts: &mut TenantFacts) -> &mut DatabaseProperties {
    facts.database.as_mut().unwrap()
}

pub fn login(facts: &mut TenantFacts) -> &mut LoginProperties {
    facts.login.as_mut().unwrap()
}

/// One change each, the phrase for it at a level, and the step that repairs it.
pub fn changes() -> Vec<(ManualChange, AccessLevel, &'static str, Option<Step>)> {
    use AccessLevel::{Blocked, ReadOnly, ReadWrite};
    let enforce = Some(Step::EnforceAccess);
    vec![
        (|f| f.database = None, ReadWrite, "the database does not exist", None),
        (|f| database(f).oid = 9, ReadWrite, "", None),
        (
            |f| database(f).ownership = Ownership::OtherComment,
            Blocked,
            "the database's comment was changed",
            enforce,
        ),
        (
            |f| database(f).owned_by_dba = false,
            ReadWrite,
            "ALTER DATABASE tenant_acme OWNER TO tenantry_dba",
            None,
        ),
        (
            |f| database(f).owned_by_dba = false,
            Blocked,
            "ALTER DATABASE tenant_acme OWNER TO tenantry_dba",
            None,
        ),
        (
            |f| database(f).allow_connections = false,
            ReadOnly,
            "the database accepted no connections",
            enforce,
        ),
        (|f| database(f).connection_limit = 1, Blocked, "the database had a connection limit of 1", enforce),
        (|f| database(f).open_to_public = true, Blocked, "PUBLIC had rights on the database", enforce),
        (|f| database(f).login_may_connect = true, Blocked, "the login had CONNECT", enforce),
        (|f| database(f).login_may_connect = false, ReadWrite, "the login lacked CONNECT", enforce),
        (|f| database(f).is_template = true, Blocked, "the database was a template", enforce),
        (|f| database(f).settings = setting(true), ReadOnly, "the database had settings", enforce),
        (
            |f| database(f).settings = setting(false),
            Blocked,
            "ALTER DATABASE \"tenant_acme\" RESET work_mem",
            None,
        ),
        (|f| login(f).inherits = false, ReadWrite, "the login was NOINHERIT", enforce),
        (|f| login(f).valid_until = Some("2020-01-01".into()), Blocked, "valid until 2020-01-01", enforce),
        (|f| login(f).settings = setting(true), ReadWrite, "the login had settings", enforce),
        (
            |f| login(f).settings = setting(false),
            ReadWrite,
            "ALTER ROLE \"tenant_acme_app\" IN DATABASE \"tenant_acme\" RESET work_mem",
            None,
        ),
        (
            |f| login(f).flawed_groups = vec!["tenantry_rw".into()],
            ReadOnly,
            "member of tenantry_ro, tenantry_rw",
            enforce,
        ),
        (
            |f| login(f).foreign_grants = granted_by_a_superuser("tenantry_shrink", "tenant_acme_app"),
            ReadOnly,
            "REVOKE \"tenantry_shrink\" FROM \"tenant_acme_app\" GRANTED BY \"postgres\"",
            None,
        ),
        (
            |f| login(f).foreign_grants = granted_by_a_superuser("tenant_acme_app", "bob"),
            Blocked,
            "REVOKE \"tenant_acme_app\" FROM \"bob\" GRANTED BY \"postgres\"",
            None,
        ),
        (
            |f| f.strays = vec![stray(true)],
            Blocked,
            "other roles had the access of the tenant's login: old",
            enforce,
        ),
        (
            |f| {
                f.login = None;
                f.strays = vec![stray(true)];
            },
            Blocked,
            "the login was renamed to old",
            Some(Step::CreateRoles),
        ),
        (|f| f.login = None, ReadWrite, "the login did not exist", Some(Step::CreateRoles)),
        (|f| f.login = None, Blocked, "the login did not exist", Some(Step::CreateRoles)),
        (
            |f| login(f).ownership = Ownership::NoComment,
            ReadWrite,
            "the login's comment was changed",
            enforce,
        ),
        (|f| login(f).can_login = false, ReadOnly, "the login was NOLOGIN", Some(Step::PublishCredentials)),
        (|f| login(f).can_login = true, Blocked, "the login had LOGIN", enforce),
        (|f| login(f).groups.clear(), ReadWrite, "the login was a member of nothing", enforce),
        (
            |f| login(f).groups = vec!["tenantry_rw".into()],
            Blocked,
            "the login was a member of tenantry_rw",
            enforce,
        ),
        (
            |f| login(f).foreign_memberships = vec!["a".into(), "b".into()],
            ReadOnly,
            "the login was a member of a, b",
            enforce,
        ),
        (|f| login(f).foreign_members = vec!["a".into()], Blocked, "a had the login's rights", enforce),
        (|f| login(f).may_create = true, ReadWrite, "the login had CREATEDB or CREATEROLE", enforce),
        (
            |f| login(f).has_superuser_attributes = true,
            ReadWrite,
            "ALTER ROLE tenant_acme_app NOSUPERUSER",
            None,
        ),
        (
            |f| login(f).has_superuser_attributes = true,
            Blocked,
            "ALTER ROLE tenant_acme_app NOSUPERUSER",
            None,
        ),
        (
            |f| login(f).connection_limit = 0,
            Blocked,
            "the login had a connection limit of 0 instead of 20",
            Some(Step::ApplyPlan),
        ),
        (|f| login(f).is_revocation_unproven = true, ReadOnly, "were not proven to be ended", enforce),
        (
            |f| {
                database(f).drop_interrupted = true;
                database(f).connection_limit = -2;
            },
            ReadWrite,
            "a DROP DATABASE of tenant_acme was interrupted",
            None,
        ),
        (
            |f| database(f).ownership = Ownership::OtherTenant(TenantId(Uuid::from_u128(9))),
            ReadWrite,
            "database tenant_acme is not the tenant's",
            None,
        ),
        (
            |f| login(f).ownership = Ownership::OtherTenant(TenantId(Uuid::from_u128(9))),
            Blocked,
            "the role of the login's name is not the tenant's",
            None,
        ),
    ]
}
