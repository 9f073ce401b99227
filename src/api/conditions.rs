//! Every condition type and every reason, and how conditions are written. `docs/conditions.md` lists them all.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Declares constants with a doc line each, and the list of them all.
macro_rules! constants {
    ($list:ident: $($(#[$doc:meta])+ $name:ident = $value:literal;)+) => {
        $($(#[$doc])+ pub const $name: &str = $value;)+

        /// All of them.
        pub const $list: &[&str] = &[$($name),+];
    };
}

constants! { TYPES:
    /// What the spec asks for is in force. It sums up the others.
    READY = "Ready";
    /// Work is going on. Present only while it is True, never together with Stalled.
    RECONCILING = "Reconciling";
    /// Nothing goes on until somebody changes something. Present only while it is True.
    STALLED = "Stalled";
    /// Tenant: the slug is ours in the registry.
    REGISTERED = "Registered";
    /// Tenant: the database is there under its final name.
    DATABASE_READY = "DatabaseReady";
    /// Tenant: every module is at its target version.
    MIGRATIONS_APPLIED = "MigrationsApplied";
    /// Tenant: settings, admins and demo data are as the spec says.
    SEEDED = "Seeded";
    /// Tenant: the connection Secret is there and its password works.
    CREDENTIALS_PUBLISHED = "CredentialsPublished";
    /// Tenant: the access level is in force, proven by reading PostgreSQL.
    ACCESS_ENFORCED = "AccessEnforced";
    /// Tenant: what is used is within the limits.
    WITHIN_LIMITS = "WithinLimits";
    /// TenantHold: PostgreSQL holds the tenant to it.
    IN_FORCE = "InForce";
    /// Tenant, while going away: everything is gone.
    DEPROVISIONED = "Deprovisioned";
    /// DatabaseServer: the operator can log in.
    REACHABLE = "Reachable";
    /// DatabaseServer: the operator's login has every right that it needs.
    PRIVILEGED = "Privileged";
}

/// Why a condition has its status.
pub mod reason {
    constants! { ALL:
        /// The step behind the condition is done.
        PROVISIONED = "Provisioned";
        /// The tenant is being made.
        PROVISIONING = "Provisioning";
        /// The tenant is served.
        ACTIVE = "Active";
        /// The tenant is served, for a limited time.
        TRIAL = "Trial";
        /// The tenant's access is narrowed, by its spec, by holds, or because its time is over.
        SUSPENDED = "Suspended";
        /// The tenant of a hold does not exist.
        TENANT_NOT_FOUND = "TenantNotFound";
        /// The tenant of a hold goes away: what it may do is nothing.
        TENANT_LEAVING = "TenantLeaving";
        /// The hold is recorded, or the plan is changed; that its tenants are held to it is not proven yet.
        ENFORCING = "Enforcing";
        /// `spec.paused` stops all work.
        PAUSED = "Paused";
        /// The plan in the spec does not exist.
        PLAN_NOT_FOUND = "PlanNotFound";
        /// The server in the spec does not exist.
        SERVER_NOT_FOUND = "ServerNotFound";
        /// The server exists and is not Ready.
        SERVER_NOT_READY = "ServerNotReady";
        /// The settings are larger than 64 KiB.
        SETTINGS_TOO_LARGE = "SettingsTooLarge";
        /// Another living tenant has the slug.
        SLUG_TAKEN = "SlugTaken";
        /// A Secret of the wanted name is not ours.
        SECRET_CONFLICT = "SecretConflict";
        /// A database or a role of the wanted name is not ours.
        CONFLICT = "Conflict";
        /// The database is gone, or another one is in its place.
        DATABASE_MISSING = "DatabaseMissing";
        /// The server does not answer.
        DATABASE_UNREACHABLE = "DatabaseUnreachable";
        /// The registry does not answer.
        REGISTRY_UNREACHABLE = "RegistryUnreachable";
        /// The registry had a row for this Tenant, and has none.
        REGISTRY_ROW_MISSING = "RegistryRowMissing";
        /// The server does not take tenants of this namespace.
        NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed";
        /// The spec is wrong in a way that the API server cannot see.
        INVALID_SPEC = "InvalidSpec";
        /// A step failed.
        STEP_FAILED = "StepFailed";
        /// A step before this one is not done yet.
        WAITING = "Waiting";
        /// The tenant is being taken down.
        DEPROVISIONING = "Deprovisioning";
        /// The tenant is gone.
        DEPROVISIONED = "Deprovisioned";
        /// Sessions that the operator cannot end keep the database.
        SESSIONS_IN_THE_WAY = "SessionsInTheWay";
        /// Read back and found right.
        VERIFIED = "Verified";
        /// Not looked at yet.
        NOT_REACHED = "NotReached";
        /// The API server refused or failed.
        KUBERNETES_API_ERROR = "KubernetesApiError";
        /// The API server cannot be reached, or fails.
        KUBERNETES_API_UNREACHABLE = "KubernetesApiUnreachable";
        /// The API server, a policy or a webhook refuses what the operator asked for.
        REQUEST_REFUSED = "RequestRefused";
        /// A ResourceQuota of the tenant's namespace is used up.
        QUOTA_EXCEEDED = "QuotaExceeded";
        /// The API server is overloaded and says so.
        THROTTLED = "Throttled";
        /// The operator logged in to the server.
        CONNECTED = "Connected";
        /// The server refuses the operator's login.
        AUTHENTICATION_FAILED = "AuthenticationFailed";
        /// The server's certificate is not the one that is asked for.
        TLS_FAILED = "TlsFailed";
        /// A Secret that the server names, or a key in it, does not exist.
        SECRET_NOT_FOUND = "SecretNotFound";
        /// PostgreSQL is older or newer than what is supported.
        UNSUPPORTED_VERSION = "UnsupportedVersion";
        /// Something is not the operator's to change: a superuser has to.
        MISSING_RIGHT = "MissingRight";
        /// What was to be added is over a limit of the tenant's plan.
        LIMIT_REACHED = "LimitReached";
        /// The operator's login lacks a right.
        MISSING_RIGHTS = "MissingRights";
        /// The server belongs to another installation.
        SERVER_IN_USE = "ServerInUse";
        /// The server's name leads to another PostgreSQL server than before.
        SERVER_REPLACED = "ServerReplaced";
        /// The operator's login has every right that it needs.
        RIGHTS_COMPLETE = "RightsComplete";
        /// The tenant can still come back.
        GRACE_PERIOD = "GracePeriod";
        /// The purge is under way: there is no way back.
        PURGING = "Purging";
        /// The database is older than what was applied to it.
        SCHEMA_BEHIND = "SchemaBehind";
        /// The clocks of the operator and of the registry disagree on whether a grace is over.
        CLOCKS_DISAGREE = "ClocksDisagree";
        /// Many tenants went away at once: nothing is dropped until somebody has looked at it.
        PURGES_FROZEN = "PurgesFrozen";
        /// The operator's login lacks rights that it can work without.
        RIGHTS_REDUCED = "RightsReduced";
        /// The template that tenants are cloned from is not as it was built.
        TEMPLATE_BROKEN = "TemplateBroken";
        /// The server takes no writes.
        READ_ONLY_SERVER = "ReadOnlyServer";
        /// The server lets nobody more in.
        TOO_MANY_CONNECTIONS = "TooManyConnections";
        /// A transaction that somebody prepared is in the way.
        PREPARED_TRANSACTION = "PreparedTransaction";
        /// A plan is to be deleted, and tenants are on it.
        IN_USE = "InUse";
        /// What the tenant uses is within its limits.
        WITHIN_LIMITS = "WithinLimits";
        /// What the tenant uses comes near a limit.
        NEAR_LIMIT = "NearLimit";
        /// The tenant uses more than a limit allows.
        LIMIT_EXCEEDED = "LimitExceeded";
        /// What the tenant uses was not measured yet.
        NOT_MEASURED = "NotMeasured";
        /// The plan leaves a limit to the tenant, which does not say.
        LIMIT_NOT_SET = "LimitNotSet";
        /// The plan names a module that is not there.
        MODULE_NOT_FOUND = "ModuleNotFound";
    }
}

/// The longest message that a condition can have; the schema refuses more.
pub const MAX_MESSAGE_BYTES: usize = 32768;

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Nobody knows.
    Unknown,
}

impl ConditionStatus {
    /// The word in the API.
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

/// The one way to make a condition. A message that is too long is cut.
pub fn condition(
    type_: &str,
    status: ConditionStatus,
    reason: &str,
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
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: Time(now),
    }
}

/// The condition of a type.
pub fn find_condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Puts a condition in the place of the one of its type, or at the end. While the status stays the same, so does the
/// time of its last transition.
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

/// Whether two lists say the same, in whatever order, and whenever it became so.
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

    fn ready(status: bool, reason: &str, message: &str, second: i64) -> Condition {
        condition(READY, status.into(), reason, message, Some(1), at(second))
    }

    #[test]
    fn the_time_is_that_of_the_last_change_of_status() {
        let mut conditions = vec![];
        set_condition(&mut conditions, ready(false, reason::WAITING, "", 1));
        set_condition(&mut conditions, ready(false, reason::STEP_FAILED, "disk full", 2));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time, Time(at(1)));
        assert_eq!((&*conditions[0].reason, &*conditions[0].message), (reason::STEP_FAILED, "disk full"));
        set_condition(&mut conditions, ready(true, reason::ACTIVE, "", 3));
        assert_eq!(conditions[0].last_transition_time, Time(at(3)));
        set_condition(
            &mut conditions,
            condition(SEEDED, ConditionStatus::Unknown, reason::NOT_REACHED, "", None, at(4)),
        );
        assert_eq!(conditions.iter().map(|c| &*c.type_).collect::<Vec<_>>(), [READY, SEEDED]);
        remove_condition(&mut conditions, READY);
        assert!(find_condition(&conditions, READY).is_none());
        assert_eq!(find_condition(&conditions, SEEDED).unwrap().status, "Unknown");
    }

    #[test]
    fn times_and_order_make_no_difference() {
        let seeded =
            |second| condition(SEEDED, ConditionStatus::True, reason::PROVISIONED, "", Some(1), at(second));
        let a = [ready(true, reason::ACTIVE, "", 1), seeded(1)];
        assert!(same_ignoring_times(&a, &[seeded(5), ready(true, reason::ACTIVE, "", 9)]));
        assert!(!same_ignoring_times(&a, &[seeded(1)]));
        assert!(!same_ignoring_times(&a[1..], &a));
        assert!(!same_ignoring_times(&a, &[ready(false, reason::ACTIVE, "", 1), seeded(1)]));
        assert!(!same_ignoring_times(&a, &[ready(true, reason::VERIFIED, "", 1), seeded(1)]));
        assert!(!same_ignoring_times(&a, &[ready(true, reason::ACTIVE, "x", 1), seeded(1)]));
        let mut older = a.clone();
        older[0].observed_generation = Some(0);
        assert!(!same_ignoring_times(&a, &older));
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_between_characters() {
        let long = ready(false, reason::STEP_FAILED, &"ü".repeat(MAX_MESSAGE_BYTES), 1).message;
        assert!(long.len() <= MAX_MESSAGE_BYTES && long.len() > MAX_MESSAGE_BYTES - 8, "{}", long.len());
        assert!(long.ends_with("ü…"));
        let fits = "x".repeat(MAX_MESSAGE_BYTES);
        assert_eq!(ready(false, reason::STEP_FAILED, &fits, 1).message, fits);
    }

    #[test]
    fn the_words_are_camel_case_and_different() {
        for list in [TYPES, reason::ALL] {
            let different: BTreeSet<_> = list.iter().collect();
            assert_eq!(different.len(), list.len());
            for word in list {
                assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
                assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
            }
        }
    }

    /// The first cells of the rows of a section's tables, without their quotes.
    fn first_cells(text: &str, section: &str) -> Vec<String> {
        let body = text.split("\n## ").find(|part| part.starts_with(section)).unwrap();
        let rows = body.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| row.split('`').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_documentation_lists_every_type_and_every_reason_once() {
        let text = include_str!("../../docs/conditions.md");
        for (section, words) in [("Types", TYPES), ("Reasons", reason::ALL)] {
            let mut listed = first_cells(text, section);
            listed.sort_unstable();
            let mut wanted = words.to_vec();
            wanted.sort_unstable();
            assert_eq!(listed, wanted, "section {section} of docs/conditions.md");
        }
    }
}
