//! Ownership comments: the comments of databases and roles that name their tenant. Only an object with the right comment
//! is ever changed or dropped.

use uuid::Uuid;

use crate::domain::{identity::TenantId, migration_login::MigrationOwner, tenant_facts::Ownership};

/// The start of every ownership comment of a tenant.
pub(in crate::postgres) const TENANT: &str = "tenantry:tenant:";
const TEMPLATE: &str = "tenantry:template:";
/// Not that of a tenant's database: a release that does not know it neither uses nor drops the database.
const ADOPTING: &str = "tenantry:adopting:";
/// Not that of a tenant's roles: nothing that looks for those takes a migration login for one.
const MIGRATION: &str = "tenantry:migration:";
/// Not that of a tenant's roles: what restricts the tenant does not restrict a support login.
pub(in crate::postgres) const SUPPORT: &str = "tenantry:support:";
/// The start of the comment of the login of one session: that and the database.
pub(in crate::postgres) const SESSION: &str = "tenantry:session:";
const SCRATCH: &str = "tenantry:scratch:";
const INSTALLATION: &str = "tenantry:installation:";
const TEMPLATE_SUFFIX: &str = " template:";
const NARROWING: &str = " narrowing";
/// Of a login that existed before its tenant: it is never dropped.
const KEPT: &str = " kept";
const KEPT_NARROWING: &str = " kept narrowing";

/// Which tenant a comment names, seen from one tenant.
pub(in crate::postgres) fn of(comment: Option<&str>, id: TenantId) -> Ownership {
    match comment.map(parse) {
        None => Ownership::NoComment,
        Some(Some((found, _))) if found == id => Ownership::Ours,
        Some(Some((found, _))) => Ownership::OtherTenant(found),
        Some(None) => Ownership::OtherComment,
    }
}

/// The tenant that a comment names.
pub(in crate::postgres) fn tenant_of(comment: &str) -> Option<TenantId> {
    parse(comment).map(|(id, _)| id)
}

/// The comment of a tenant's database: the tenant, and the digest of the template from which it was cloned.
pub(in crate::postgres) fn database(id: TenantId, template_digest: &str) -> String {
    format!("{TENANT}{id}{TEMPLATE_SUFFIX}{template_digest}")
}

/// The comment of a database that existed before its tenant, until the tenant is active.
pub(in crate::postgres) fn adopting(id: TenantId) -> String {
    format!("{ADOPTING}{id}")
}

/// Whether a comment is that of a database which existed before its tenant, and the tenant is not active yet.
pub(in crate::postgres) fn is_adopting(comment: &str) -> bool {
    comment.starts_with(ADOPTING) && parse(comment).is_some()
}

/// The comment of a tenant's login.
pub(in crate::postgres) fn login(id: TenantId) -> String {
    format!("{TENANT}{id}")
}

/// The comment of a tenant's login while rights were revoked, and it is not proven yet that no earlier session still has
/// them.
fn login_with_unproven_revocation(id: TenantId) -> String {
    format!("{}{NARROWING}", login(id))
}

/// The comment of a login that existed before its tenant, and is its previous login until a date.
pub(in crate::postgres) fn kept_login(id: TenantId) -> String {
    format!("{}{KEPT}", login(id))
}

/// The comment of one of the tenant's logins once its access level is proven.
pub(in crate::postgres) fn proven(id: TenantId, is_kept: bool) -> String {
    if is_kept { kept_login(id) } else { login(id) }
}

/// The comment of one of the tenant's logins while it is not proven: see [`login_with_unproven_revocation`].
pub(in crate::postgres) fn unproven(id: TenantId, is_kept: bool) -> String {
    if is_kept { format!("{}{KEPT_NARROWING}", login(id)) } else { login_with_unproven_revocation(id) }
}

/// Whether a comment is that of a login that existed before its tenant.
pub(in crate::postgres) fn is_kept(comment: &str) -> bool {
    parse(comment).is_some_and(|(_, rest)| [KEPT, KEPT_NARROWING].contains(&rest))
}

/// The comment of a template.
pub(in crate::postgres) fn template(digest: &str) -> String {
    format!("{TEMPLATE}{digest}")
}

/// The start of the comment of the database that a migration login is for.
pub(in crate::postgres) fn database_of(owner: &MigrationOwner) -> String {
    match owner {
        MigrationOwner::Tenant(id) => login(*id),
        MigrationOwner::Template(digest) => template(digest),
    }
}

/// The comment of a migration login: whose database it is for, and in which run.
pub(in crate::postgres) fn migration_login(owner: &MigrationOwner, run: Uuid) -> String {
    match owner {
        MigrationOwner::Tenant(id) => format!("{MIGRATION}tenant:{id}:{run}"),
        MigrationOwner::Template(digest) => format!("{MIGRATION}template:{digest}:{run}"),
    }
}

/// What the comment of a migration login says.
pub(in crate::postgres) fn migration_login_of(comment: &str) -> Option<(MigrationOwner, Uuid)> {
    let (owner, run) = comment.strip_prefix(MIGRATION)?.rsplit_once(':')?;
    let owner = match owner.split_once(':')? {
        ("tenant", id) => MigrationOwner::Tenant(TenantId(Uuid::try_parse(id).ok()?)),
        ("template", digest) if !digest.is_empty() => MigrationOwner::Template(digest.to_owned()),
        _ => return None,
    };
    Some((owner, Uuid::try_parse(run).ok()?))
}

/// The start of the comments of a tenant's support logins.
pub(in crate::postgres) fn support_logins_of(id: TenantId) -> String {
    format!("{SUPPORT}{id}:")
}

/// The comment of a support login: whose data it reads, and for which SupportAccess.
pub(in crate::postgres) fn support_login(id: TenantId, access: Uuid) -> String {
    format!("{}{access}", support_logins_of(id))
}

/// What the comment of a support login says.
pub(in crate::postgres) fn support_login_of(comment: &str) -> Option<(TenantId, Uuid)> {
    let (id, access) = comment.strip_prefix(SUPPORT)?.split_once(':')?;
    Some((TenantId(Uuid::try_parse(id).ok()?), Uuid::try_parse(access).ok()?))
}

/// The comment of a scratch database.
pub(in crate::postgres) fn scratch(digest: &str) -> String {
    format!("{SCRATCH}{digest}")
}

/// The comment of `tenantry_admin`.
pub(in crate::postgres) fn installation(id: Uuid) -> String {
    format!("{INSTALLATION}{id}")
}

/// The installation that a comment of `tenantry_admin` names: its id, or the whole comment when it is not one of
/// Tenantry.
pub(in crate::postgres) fn installation_of(comment: &str) -> String {
    comment.strip_prefix(INSTALLATION).unwrap_or(comment).to_owned()
}

/// The digest of the template in the comment of a tenant's database.
pub(in crate::postgres) fn template_digest(comment: &str) -> Option<String> {
    let (_, rest) = parse(comment)?;
    rest.strip_prefix(TEMPLATE_SUFFIX).map(str::to_owned)
}

/// Whether the comment of a login records a revocation that is not proven yet.
pub(in crate::postgres) fn is_revocation_unproven(comment: &str) -> bool {
    parse(comment).is_some_and(|(_, rest)| [NARROWING, KEPT_NARROWING].contains(&rest))
}

fn parse(comment: &str) -> Option<(TenantId, &str)> {
    if let Some(id) = comment.strip_prefix(ADOPTING) {
        return Some((TenantId(Uuid::try_parse(id).ok()?), ""));
    }
    let rest = comment.strip_prefix(TENANT)?;
    let (id, rest) = rest.split_at_checked(36)?;
    let known = ["", NARROWING, KEPT, KEPT_NARROWING].contains(&rest) || rest.starts_with(TEMPLATE_SUFFIX);
    known.then_some(())?;
    Some((TenantId(Uuid::try_parse(id).ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ownership_comments_are_read_as_they_are_written() {
        let (one, two) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
        let comment = database(one, "abc");
        assert_eq!(of(Some(&comment), one), Ownership::Ours);
        assert_eq!(of(Some(&comment), two), Ownership::OtherTenant(one));
        assert_eq!(template_digest(&comment).as_deref(), Some("abc"));
        assert!(
            is_revocation_unproven(&login_with_unproven_revocation(one))
                && !is_revocation_unproven(&login(one))
        );
        assert_eq!(of(Some(&login_with_unproven_revocation(one)), one), Ownership::Ours);
        assert_eq!(of(Some(&adopting(one)), one), Ownership::Ours);
        assert!(is_adopting(&adopting(one)) && !is_adopting(&comment) && !adopting(one).starts_with(TENANT));
        for comment in [kept_login(one), unproven(one, true)] {
            assert!(is_kept(&comment) && of(Some(&comment), one).is_ours(), "{comment}");
        }
        assert!(is_revocation_unproven(&unproven(one, true)) && !is_revocation_unproven(&kept_login(one)));
        assert!(!is_kept(&proven(one, false)) && !is_kept(&unproven(one, false)));
        assert_eq!(of(None, one), Ownership::NoComment);
        for foreign in ["", "hello", "tenantry:tenant:", &template("abc"), &format!("{comment}x")[1..]] {
            assert_eq!(of(Some(foreign), one), Ownership::OtherComment, "{foreign}");
        }
        assert_eq!(of(Some(&format!("tenantry:tenant:{one} and more")), one), Ownership::OtherComment);
    }

    #[test]
    fn comment_of_a_support_login_is_none_of_a_tenants_role() {
        let (id, access) = (TenantId(Uuid::from_u128(1)), Uuid::from_u128(7));
        let comment = support_login(id, access);
        assert_eq!((tenant_of(&comment), migration_login_of(&comment)), (None, None));
        assert!(!comment.starts_with(TENANT) && comment.starts_with(&support_logins_of(id)));
        assert_eq!(support_login_of(&comment), Some((id, access)));
        for other in ["", SUPPORT, "tenantry:support:x:y", &format!("{comment} and more")] {
            assert_eq!(support_login_of(other), None, "{other}");
        }
    }

    #[test]
    fn comment_of_a_migration_login_is_none_of_a_tenants_role() {
        let run = Uuid::from_u128(7);
        for owner in
            [MigrationOwner::Tenant(TenantId(Uuid::from_u128(1))), MigrationOwner::Template("ab12".into())]
        {
            let comment = migration_login(&owner, run);
            assert_eq!(tenant_of(&comment), None);
            assert!(!comment.starts_with(TENANT));
            assert_eq!(migration_login_of(&comment), Some((owner, run)));
        }
        for other in
            ["", "tenantry:migration:", "tenantry:migration:tenant:x:y", "tenantry:migration:template::x"]
        {
            assert_eq!(migration_login_of(other), None, "{other}");
        }
    }
}
