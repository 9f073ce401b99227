//! Every condition type, and how conditions are written. `docs/conditions.md` lists types and reasons.

use jiff::Timestamp;

use super::reason::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Declares string constants, and the list of all of them.
macro_rules! constants {
    ($list:ident: $($(#[$doc:meta])+ $name:ident = $value:literal;)+) => {
        $($(#[$doc])+ pub const $name: &str = $value;)+

        /// All condition types.
        pub const $list: &[&str] = &[$($name),+];
    };
}

constants! { TYPES:
    /// The spec is in force. Summarizes the other conditions.
    READY = "Ready";
    /// The operator works on a new spec, or retries after a failure. Present only while True, never with Stalled.
    RECONCILING = "Reconciling";
    /// Nothing continues until a user changes something. Present only while True.
    STALLED = "Stalled";
    /// Tenant: the registry has this tenant under its slug.
    REGISTERED = "Registered";
    /// Tenant: the database exists under its final name.
    DATABASE_READY = "DatabaseReady";
    /// Tenant: every module is at its target version.
    MIGRATIONS_APPLIED = "MigrationsApplied";
    /// Tenant: settings, admins and demo data match the spec.
    SEEDED = "Seeded";
    /// Tenant: the connection Secret exists and its password works.
    CREDENTIALS_PUBLISHED = "CredentialsPublished";
    /// Tenant: the access level is in force, as read back from PostgreSQL.
    ACCESS_ENFORCED = "AccessEnforced";
    /// Tenant: usage is within the limits.
    WITHIN_LIMITS = "WithinLimits";
    /// TenantHold: the hold is in force in PostgreSQL.
    IN_FORCE = "InForce";
    /// SupportAccess: the login is valid.
    GRANTED = "Granted";
    /// Tenant with an accountNamespace: the TenantAccount is there.
    ACCOUNT_SHOWN = "AccountShown";
    /// Tenant, during deprovisioning: database and login are dropped, the Secrets deleted, and the row is closed.
    DEPROVISIONED = "Deprovisioned";
    /// TenantPlan: every limit is enforced by Tenantry or listed as published.
    LIMITS_KNOWN = "LimitsKnown";
    /// TenantModule: the newest content was rehearsed on a scratch database, and nothing was found.
    REHEARSED = "Rehearsed";
    /// DatabaseServer: the operator can log in.
    REACHABLE = "Reachable";
    /// DatabaseServer: the operator's login has every right that it needs.
    PRIVILEGED = "Privileged";
    /// DatabaseServer: it has databases or logins of tenants that are deprovisioned or unknown to the registry. Present
    /// only while True.
    LEFTOVERS = "Leftovers";
}

/// The maximum length of a condition's message, in bytes; the schema refuses longer ones.
pub const MAX_MESSAGE_BYTES: usize = 32768;

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// Not known.
    Unknown,
}

impl ConditionStatus {
    /// The string in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Creates a condition. A message that is too long is truncated.
pub fn condition(
    type_: &str,
    status: ConditionStatus,
    reason: Reason,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let mut message = message.into();
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES - '…'.len_utf8()));
        message.push('…');
    }
    Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: Time(now),
    }
}

/// The condition of a type.
pub fn find_condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Replaces the condition of the same type, or appends it. While the status stays the same, the last transition time
/// does too.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|condition| condition.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// Removes the condition of a type: `Reconciling` and `Stalled` exist only while they are True.
pub fn remove_condition(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// Whether two lists of conditions are equal, ignoring order and transition times.
pub fn same_ignoring_times(a: &[Condition], b: &[Condition]) -> bool {
    a.len() == b.len()
        && a.iter().all(|a| {
            find_condition(b, &a.type_).is_some_and(|b| {
                (&a.status, &a.reason, &a.message, a.observed_generation)
                    == (&b.status, &b.reason, &b.message, b.observed_generation)
            })
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(status: bool, reason: Reason, message: &str, second: i64) -> Condition {
        condition(READY, status.into(), reason, message, Some(1), at(second))
    }

    #[test]
    fn transition_time_changes_with_status_only() {
        let mut conditions = vec![];
        set_condition(&mut conditions, ready(false, Reason::Waiting, "", 1));
        set_condition(&mut conditions, ready(false, Reason::StepFailed, "disk full", 2));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time, Time(at(1)));
        assert_eq!((&*conditions[0].reason, &*conditions[0].message), ("StepFailed", "disk full"));
        set_condition(&mut conditions, ready(true, Reason::Active, "", 3));
        assert_eq!(conditions[0].last_transition_time, Time(at(3)));
        set_condition(
            &mut conditions,
            condition(SEEDED, ConditionStatus::Unknown, Reason::NotReached, "", None, at(4)),
        );
        assert_eq!(conditions.iter().map(|c| &*c.type_).collect::<Vec<_>>(), [READY, SEEDED]);
        remove_condition(&mut conditions, READY);
        assert!(find_condition(&conditions, READY).is_none());
        assert_eq!(find_condition(&conditions, SEEDED).unwrap().status, "Unknown");
    }

    #[test]
    fn comparison_ignores_times_and_order() {
        let seeded =
            |second| condition(SEEDED, ConditionStatus::True, Reason::Verified, "", Some(1), at(second));
        let a = [ready(true, Reason::Active, "", 1), seeded(1)];
        assert!(same_ignoring_times(&a, &[seeded(5), ready(true, Reason::Active, "", 9)]));
        assert!(!same_ignoring_times(&a, &[seeded(1)]));
        assert!(!same_ignoring_times(&a[1..], &a));
        assert!(!same_ignoring_times(&a, &[ready(false, Reason::Active, "", 1), seeded(1)]));
        assert!(!same_ignoring_times(&a, &[ready(true, Reason::Verified, "", 1), seeded(1)]));
        assert!(!same_ignoring_times(&a, &[ready(true, Reason::Active, "x", 1), seeded(1)]));
        let mut older = a.clone();
        older[0].observed_generation = Some(0);
        assert!(!same_ignoring_times(&a, &older));
    }

    #[test]
    fn long_message_is_truncated_between_characters() {
        let long = ready(false, Reason::StepFailed, &"ü".repeat(MAX_MESSAGE_BYTES), 1).message;
        assert!(long.len() <= MAX_MESSAGE_BYTES && long.len() > MAX_MESSAGE_BYTES - 8, "{}", long.len());
        assert!(long.ends_with("ü…"));
        let fits = "x".repeat(MAX_MESSAGE_BYTES);
        assert_eq!(ready(false, Reason::StepFailed, &fits, 1).message, fits);
    }

    #[test]
    fn types_and_reasons_are_camel_case_and_unique() {
        let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        for list in [TYPES, &reasons] {
            let different: BTreeSet<_> = list.iter().collect();
            assert_eq!(different.len(), list.len());
            for name in list {
                assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
                assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
            }
        }
    }

    /// The first cell of every table row of a section, without its quotes.
    fn first_cells(text: &str, section: &str) -> Vec<String> {
        let body = text.split("\n## ").find(|part| part.starts_with(section)).unwrap();
        let rows = body.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| row.split('`').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn documentation_lists_every_type_and_reason() {
        let text = include_str!("../../docs/conditions.md");
        let mut types = first_cells(text, "Types");
        types.sort_unstable();
        let mut wanted = TYPES.to_vec();
        wanted.sort_unstable();
        assert_eq!(types, wanted, "section Types of docs/conditions.md");
        let cells: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
        let documented = |reason: &Reason| {
            let name = format!("`{reason}`");
            cells.iter().any(|row| row.split(" | ").next().is_some_and(|cell| cell.contains(&name)))
        };
        let missing: Vec<&Reason> = Reason::ALL.iter().filter(|reason| !documented(reason)).collect();
        assert!(missing.is_empty(), "not in a table of docs/conditions.md: {missing:?}");
    }
}
