//! Leftovers: databases and logins on a server with the ownership comment of a tenant that should have none there, because
//! it is deprovisioned, or because the registry does not know it. A restored server has them, and a server whose registry
//! was restored. They lose their access, and are never dropped.

use std::fmt::Write;

use super::identity::TenantId;
use crate::api::reason::Reason;

/// How many leftovers a message names.
const NAMED: usize = 5;

/// What the registry knows of the tenant in an ownership comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormerOwner {
    /// It is deprovisioned, and its database was dropped.
    Deprovisioned,
    /// Nothing: the registry may be an older one than the server.
    Unknown,
}

/// A database or a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftoverObject {
    /// Its name.
    pub name: String,
    /// Of a database: a role other than its owner has CONNECT. Of a login: it has LOGIN, or sessions of it may be left.
    pub is_open: bool,
}

/// What one tenant left on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The tenant.
    pub tenant: TenantId,
    /// What the registry knows of it.
    pub owner: FormerOwner,
    /// Its databases.
    pub databases: Vec<LeftoverObject>,
    /// Its logins.
    pub logins: Vec<LeftoverObject>,
}

impl Leftover {
    /// Whether any of it can still be used.
    pub fn is_open(&self) -> bool {
        self.databases.iter().chain(&self.logins).any(|object| object.is_open)
    }
}

/// Why no unknown tenant may be cut off now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// The breaker of mass deletions is open.
    BreakerOpen,
    /// The status of a Tenant cannot be read, and may be that of an unknown one.
    UnreadableTenant,
}

/// Whether leftovers of unknown tenants may be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownTenants {
    /// More unknown tenants than this on one server are the sign of a registry that was restored, and are left alone.
    pub most: usize,
    /// None may, for this reason.
    pub frozen: Option<Frozen>,
}

/// Why the unknown tenants of a server keep the access that they have.
#[derive(Clone, Copy)]
enum Kept {
    TooMany,
    Frozen(Frozen),
}

impl UnknownTenants {
    /// Why those of a server are not cut off; none if they are.
    fn kept(self, all: &[Leftover]) -> Option<Kept> {
        match unknown(all).count() {
            0 => None,
            count if count > self.most => Some(Kept::TooMany),
            _ => self.frozen.map(Kept::Frozen),
        }
    }
}

fn unknown(all: &[Leftover]) -> impl Iterator<Item = &Leftover> {
    all.iter().filter(|leftover| leftover.owner == FormerOwner::Unknown)
}

/// The leftovers of one server that have access and must lose it.
pub fn to_cut(all: &[Leftover], unknown: UnknownTenants) -> Vec<&Leftover> {
    let may_cut_unknown = unknown.kept(all).is_none();
    all.iter()
        .filter(|found| found.is_open() && (may_cut_unknown || found.owner == FormerOwner::Deprovisioned))
        .collect()
}

/// The report on the leftovers of one server; none without any.
pub fn report(all: &[Leftover], unknown: UnknownTenants) -> Option<(Reason, String)> {
    if all.is_empty() {
        return None;
    }
    let mut text = String::new();
    for (index, leftover) in all.iter().take(NAMED).enumerate() {
        let objects = |kind: &str, objects: &[LeftoverObject]| {
            objects.iter().map(|object| format!("{kind} {}", object.name)).collect::<Vec<_>>()
        };
        let mut names = objects("database", &leftover.databases);
        names.extend(objects("login", &leftover.logins));
        let owner = match leftover.owner {
            FormerOwner::Deprovisioned => "deprovisioned",
            FormerOwner::Unknown => "unknown to the registry",
        };
        let separator = if index == 0 { "" } else { "; " };
        let _ = write!(text, "{separator}{} of tenant {} ({owner})", names.join(" and "), leftover.tenant);
    }
    if all.len() > NAMED {
        let _ = write!(text, "; and those of {} more tenants", all.len() - NAMED);
    }
    let (count, open) =
        (self::unknown(all).count(), self::unknown(all).filter(|found| found.is_open()).count());
    let access = match open {
        0 => "their access is revoked".to_owned(),
        open if open == count => "their access is not changed".to_owned(),
        open => format!("{open} of them keep their access, and that of the others is revoked"),
    };
    match unknown.kept(all) {
        Some(Kept::TooMany) => {
            let _ = write!(
                text,
                ": the registry does not know {count} of these tenants, so it may be an older copy; {access}: restore the \
                 registry{}",
                if open > 0 { ", or take LOGIN from their logins by hand" } else { "" }
            );
            return Some((Reason::UnknownTenants, text));
        }
        Some(Kept::Frozen(why)) if open > 0 => {
            let why = match why {
                Frozen::BreakerOpen => "while the breaker of mass deletions is open: acknowledge it",
                Frozen::UnreadableTenant => {
                    "while a Tenant, which may be one of them, cannot be decoded, not even its status.tenantId: correct the \
                     object that an Event InvalidObject names"
                }
            };
            let _ = write!(
                text,
                ": the registry does not know {count} of these tenants; {access} {why}, or take LOGIN from their logins by hand"
            );
            return Some((Reason::UnknownTenants, text));
        }
        Some(Kept::Frozen(_)) | None => {}
    }
    let state = match all.iter().any(Leftover::is_open) {
        true => "their access is being revoked",
        false => "their access is revoked",
    };
    let _ = write!(text, ": {state}; they are never dropped: do that by hand once no user needs them");
    Some((Reason::Leftovers, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const FEW: UnknownTenants = UnknownTenants { most: 2, frozen: None };

    fn leftover(number: u128, owner: FormerOwner, is_open: bool) -> Leftover {
        let object = |name: String| vec![LeftoverObject { name, is_open }];
        Leftover {
            tenant: TenantId(Uuid::from_u128(number)),
            owner,
            databases: object(format!("tenant_{number}")),
            logins: object(format!("tenant_{number}_app")),
        }
    }

    fn unknown(count: u128) -> Vec<Leftover> {
        (1..=count).map(|number| leftover(number, FormerOwner::Unknown, true)).collect()
    }

    #[test]
    fn what_has_access_is_cut_and_nothing_twice() {
        for owner in [FormerOwner::Deprovisioned, FormerOwner::Unknown] {
            let all = [leftover(1, owner, true), leftover(2, owner, false)];
            assert_eq!(to_cut(&all, FEW), [&all[0]]);
        }
    }

    #[test]
    fn many_unknown_tenants_are_reported_and_left_alone() {
        let mut all = unknown(3);
        all.push(leftover(9, FormerOwner::Deprovisioned, true));
        assert_eq!(to_cut(&all, FEW), [&all[3]]);
        let (reason, message) = report(&all, FEW).unwrap();
        assert_eq!(reason, Reason::UnknownTenants);
        assert!(message.contains("does not know 3 of these tenants"), "{message}");
        assert_eq!(to_cut(&all[..2], FEW).len(), 2);
        // None is cut while the breaker is open, however few they are.
        let frozen = UnknownTenants { frozen: Some(Frozen::BreakerOpen), ..FEW };
        assert_eq!(to_cut(&all[..1], frozen), [&all[0]; 0]);
        assert_eq!(to_cut(&all[3..], frozen), [&all[3]]);
        assert_eq!(report(&all[3..], frozen).unwrap().0, Reason::Leftovers);
    }

    #[test]
    fn report_says_why_access_is_kept_and_whose() {
        let text = |all: &[Leftover], unknown| report(all, unknown).unwrap();
        let frozen = |why| UnknownTenants { frozen: Some(why), ..FEW };
        let mut all = unknown(2);
        for (why, part) in [
            (Frozen::BreakerOpen, "their access is not changed while the breaker of mass deletions is open"),
            (
                Frozen::UnreadableTenant,
                "their access is not changed while a Tenant, which may be one of them, cannot",
            ),
        ] {
            let (reason, message) = text(&all, frozen(why));
            assert!(reason == Reason::UnknownTenants && message.contains(part), "{message}");
            assert!(!message.contains("older copy"), "{message}");
        }
        all[0] = leftover(1, FormerOwner::Unknown, false);
        let (_, message) = text(&all, frozen(Frozen::BreakerOpen));
        assert!(
            message.contains("1 of them keep their access, and that of the others is revoked"),
            "{message}"
        );
        all[1] = leftover(2, FormerOwner::Unknown, false);
        let (reason, message) = text(&all, frozen(Frozen::UnreadableTenant));
        assert!(
            reason == Reason::Leftovers && message.contains("their access is revoked; they"),
            "{message}"
        );
        all.extend((3..5).map(|number| leftover(number, FormerOwner::Unknown, false)));
        let (reason, message) = text(&all, FEW);
        assert!(reason == Reason::UnknownTenants, "{message}");
        assert!(message.ends_with("older copy; their access is revoked: restore the registry"), "{message}");
    }

    #[test]
    fn report_names_objects_and_state() {
        assert_eq!(report(&[], FEW), None);
        let (reason, message) = report(&unknown(1), FEW).unwrap();
        assert_eq!(reason, Reason::Leftovers);
        for part in ["database tenant_1 and login tenant_1_app", "unknown to the registry", "being revoked"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let closed: Vec<_> = (1..=7).map(|n| leftover(n, FormerOwner::Deprovisioned, false)).collect();
        let (_, message) = report(&closed, FEW).unwrap();
        for part in ["tenant_5_app", "and those of 2 more tenants", "is revoked", "(deprovisioned)"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains("tenant_6_app"));
    }
}
