//! Marks: the comments by which we know what is ours. Only what carries the right one is ever changed or dropped.

use uuid::Uuid;

use crate::domain::identity::TenantId;

/// What every mark of a tenant begins with.
pub(super) const TENANT: &str = "tenantry:tenant:";
const TEMPLATE: &str = "tenantry:template:";
const INSTALLATION: &str = "tenantry:installation:";
const TEMPLATE_WORD: &str = " template:";
const NARROWING: &str = " narrowing";

/// Whose a database or a role is, seen from one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// This tenant's.
    Ours,
    /// Another tenant's.
    Tenant(TenantId),
    /// It has no comment.
    None,
    /// It has a comment that is no mark of a tenant.
    Foreign,
}

impl Mark {
    pub(super) fn of(comment: Option<&str>, id: TenantId) -> Self {
        match comment.map(parse) {
            None => Self::None,
            Some(Some((found, _))) if found == id => Self::Ours,
            Some(Some((found, _))) => Self::Tenant(found),
            Some(None) => Self::Foreign,
        }
    }

    /// Whether it is this tenant's.
    pub fn is_ours(&self) -> bool {
        *self == Self::Ours
    }

    /// Whose it is, for a message.
    pub fn describe(&self) -> String {
        match self {
            Self::Ours => "it carries this tenant's mark".to_owned(),
            Self::Tenant(id) => format!("it carries the mark of tenant {id}"),
            Self::None => "it carries no mark".to_owned(),
            Self::Foreign => "its comment is not a mark of Tenantry".to_owned(),
        }
    }
}

/// The comment of a tenant's database: the tenant, and the digest of the template it was made from.
pub(super) fn database(id: TenantId, template_digest: &str) -> String {
    format!("{TENANT}{id}{TEMPLATE_WORD}{template_digest}")
}

/// The comment of a tenant's login. `narrowing` says that rights were taken, and it is not proven yet that no
/// session from before still has them.
pub(super) fn login(id: TenantId, narrowing: bool) -> String {
    format!("{TENANT}{id}{}", if narrowing { NARROWING } else { "" })
}

/// The comment of a template.
pub(super) fn template(digest: &str) -> String {
    format!("{TEMPLATE}{digest}")
}

/// The comment of `tenantry_admin`.
pub(super) fn installation(id: Uuid) -> String {
    format!("{INSTALLATION}{id}")
}

/// The installation that a comment of `tenantry_admin` names: its id, or the comment itself when it is none of ours.
pub(super) fn installation_of(comment: &str) -> String {
    comment.strip_prefix(INSTALLATION).unwrap_or(comment).to_owned()
}

/// The template that a tenant's database was made from.
pub(super) fn template_digest(comment: &str) -> Option<String> {
    let (_, rest) = parse(comment)?;
    rest.strip_prefix(TEMPLATE_WORD).map(str::to_owned)
}

/// Whether the comment of a login says that a narrowing is not proven yet.
pub(super) fn is_narrowing(comment: &str) -> bool {
    parse(comment).is_some_and(|(_, rest)| rest == NARROWING)
}

fn parse(comment: &str) -> Option<(TenantId, &str)> {
    let rest = comment.strip_prefix(TENANT)?;
    let (id, rest) = rest.split_at_checked(36)?;
    let known = rest.is_empty() || rest == NARROWING || rest.starts_with(TEMPLATE_WORD);
    known.then_some(())?;
    Some((TenantId(Uuid::try_parse(id).ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_are_written() {
        let (one, two) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
        let comment = database(one, "abc");
        assert_eq!(Mark::of(Some(&comment), one), Mark::Ours);
        assert_eq!(Mark::of(Some(&comment), two), Mark::Tenant(one));
        assert_eq!(template_digest(&comment).as_deref(), Some("abc"));
        assert!(is_narrowing(&login(one, true)) && !is_narrowing(&login(one, false)));
        assert_eq!(Mark::of(Some(&login(one, true)), one), Mark::Ours);
        assert_eq!(Mark::of(None, one), Mark::None);
        for foreign in ["", "hello", "tenantry:tenant:", &template("abc"), &format!("{comment}x")[1..]] {
            assert_eq!(Mark::of(Some(foreign), one), Mark::Foreign, "{foreign}");
        }
        assert_eq!(Mark::of(Some(&format!("tenantry:tenant:{one} and more")), one), Mark::Foreign);
    }
}
