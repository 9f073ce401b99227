//! When a tenant's credentials are rotated, and until when the previous login stays valid.
//!
//! PostgreSQL has one password per role, so that two passwords are valid at a time only with two logins. A rotation creates
//! the other of two logins, publishes it, and ends the previous one after the overlap: until then a client connects with either.

use jiff::{SignedDuration, Timestamp};

use super::hidden::Hidden;
use crate::api::{ANNOTATION_ROTATE_CREDENTIALS, tenant::Tenant, tenant_status::Access};

/// How long the previous login stays valid where the Tenant does not say.
pub const DEFAULT_OVERLAP: SignedDuration = SignedDuration::from_hours(24);
/// How much of a request is recorded.
const REQUEST_BYTES: usize = 128;

/// What the registry has of a tenant's credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CredentialRecord {
    /// When the password was published; none of a tenant from before this was recorded.
    pub issued_at: Option<Timestamp>,
    /// The request that the password answers.
    pub request: Option<String>,
    /// The previous login, while it is valid.
    pub previous: Option<PreviousCredential>,
    /// The reader login, while the tenant has one.
    pub reader: Option<ReaderCredential>,
}

/// What the registry has of a previous login; its name is in the placement.
#[derive(Clone, Debug, PartialEq)]
pub struct PreviousCredential {
    /// Its SCRAM verifier, so that it gets its password again after a suspension.
    pub verifier: Option<Hidden<String>>,
    /// Its oid.
    pub oid: Option<i64>,
    /// When the credentials after it were published; none while they are not.
    pub since: Option<Timestamp>,
    /// The end of a login that existed before the tenant, whose database was adopted; none of one that a rotation replaced.
    pub kept_until: Option<Timestamp>,
}

/// What the registry has of a reader login; its name is in the placement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReaderCredential {
    /// Its SCRAM verifier; none until its password is published, and once a rotation has begun.
    pub verifier: Option<Hidden<String>>,
    /// The keyed digest of the password in its Secret.
    pub digest: Option<Hidden<Vec<u8>>>,
    /// Its oid.
    pub oid: Option<i64>,
    /// When its password was published.
    pub issued_at: Option<Timestamp>,
}

/// What a Tenant asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPolicy {
    /// The age at which credentials are rotated; none: at no age.
    pub rotate_after: Option<SignedDuration>,
    /// How long the previous login stays valid.
    pub overlap: SignedDuration,
    /// The value of the annotation that asks for a rotation: once for each value.
    pub request: Option<String>,
    /// When a login that existed before the tenant ends, as its Tenant says now.
    pub keep_until: Option<Timestamp>,
}

impl RotationPolicy {
    /// The policy of a Tenant.
    pub fn of(tenant: &Tenant) -> Self {
        let credentials = tenant.spec.credentials.as_ref();
        let seconds = |value: i64| SignedDuration::from_secs(value);
        let annotations = tenant.metadata.annotations.as_ref();
        let request = annotations.and_then(|all| all.get(ANNOTATION_ROTATE_CREDENTIALS));
        Self {
            rotate_after: credentials.and_then(|found| found.rotate_after_seconds).map(seconds),
            overlap: credentials.and_then(|found| found.overlap_seconds).map_or(DEFAULT_OVERLAP, seconds),
            request: request
                .map(|value| value[..value.floor_char_boundary(REQUEST_BYTES)].to_owned())
                .filter(|value| !value.is_empty()),
            keep_until: tenant
                .spec
                .adopt
                .as_ref()
                .and_then(|adopt| adopt.keep_login.as_ref())
                .map(|kept| kept.until.0),
        }
    }
}

impl RotationPolicy {
    /// Whether a rotation is asked for that the password does not answer.
    fn is_asked(&self, record: &CredentialRecord) -> bool {
        self.request.is_some() && self.request != record.request
    }
}

/// What is due of a tenant's credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// A rotation is due.
    pub is_due: bool,
    /// The previous login.
    pub previous: PreviousState,
    /// When this changes by time.
    pub changes_at: Option<Timestamp>,
}

/// The previous login of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PreviousState {
    /// There is none.
    #[default]
    Absent,
    /// The credentials after it are not published yet: it stays valid.
    Needed,
    /// It is valid until this time.
    ValidUntil(Timestamp),
    /// Its time is over.
    Over,
}

/// What is due at a time. `activated_at` stands in for the unknown time of an old password. A rotation waits for the end of the
/// overlap before it: the tenant has no third login. A login that existed before the tenant may have months left: a rotation by age
/// waits for its date, which a person set, and one that is asked for ends it.
pub fn evaluate(
    policy: &RotationPolicy,
    record: &CredentialRecord,
    activated_at: Option<Timestamp>,
    now: Timestamp,
) -> Rotation {
    let after = |at: Timestamp, wait: SignedDuration| at.checked_add(wait).unwrap_or(Timestamp::MAX);
    if let Some(previous) = &record.previous {
        let is_asked = activated_at.is_some() && policy.is_asked(record);
        let ends_at = match previous.kept_until {
            Some(_) if is_asked => Some(now),
            // An earlier date in the spec counts, a later one does not.
            Some(until) => Some(policy.keep_until.map_or(until, |wanted| wanted.min(until))),
            None => previous.since.map(|since| after(since, policy.overlap)),
        };
        return Rotation {
            is_due: false,
            previous: match ends_at {
                None => PreviousState::Needed,
                Some(at) if at <= now => PreviousState::Over,
                Some(at) => PreviousState::ValidUntil(at),
            },
            changes_at: ends_at.filter(|at| *at > now),
        };
    }
    let issued_at = record.issued_at.or(activated_at);
    let due_at = issued_at.zip(policy.rotate_after).map(|(at, age)| after(at, age));
    Rotation {
        is_due: activated_at.is_some() && (policy.is_asked(record) || due_at.is_some_and(|at| at <= now)),
        previous: PreviousState::Absent,
        changes_at: due_at.filter(|at| activated_at.is_some() && *at > now),
    }
}

/// When the password in a Tenant's connection Secret was issued, as its status says. One from before that was recorded is as
/// old as the Tenant.
pub fn issued_at(tenant: &Tenant) -> Option<Timestamp> {
    let status = tenant.status.as_ref()?;
    let recorded = status.credentials.as_ref().and_then(|credentials| credentials.issued_at.as_ref());
    let created = tenant.metadata.creation_timestamp.as_ref().filter(|_| status.binding.is_some());
    recorded.or(created).map(|at| at.0)
}

/// Since when a rotation is due by age and is not done, as the status of a Tenant says; none while it has to wait, because
/// the Tenant is Blocked, paused or being deprovisioned, or because the previous login is valid.
pub fn overdue_since(tenant: &Tenant, now: Timestamp) -> Option<Timestamp> {
    let status = tenant.status.as_ref()?;
    let waits = tenant.spec.paused == Some(true)
        || status.access == Some(Access::Blocked)
        || status.deprovisioned_at.is_some()
        || status.credentials.as_ref().is_some_and(|credentials| credentials.previous_login.is_some());
    let age = RotationPolicy::of(tenant).rotate_after.filter(|_| !waits)?;
    issued_at(tenant)?.checked_add(age).ok().filter(|due| *due <= now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn policy(rotate_after: Option<i64>, request: Option<&str>) -> RotationPolicy {
        RotationPolicy {
            rotate_after: rotate_after.map(SignedDuration::from_secs),
            overlap: SignedDuration::from_secs(60),
            request: request.map(str::to_owned),
            keep_until: None,
        }
    }

    fn issued(second: i64, request: Option<&str>) -> CredentialRecord {
        CredentialRecord {
            issued_at: Some(at(second)),
            request: request.map(str::to_owned),
            ..CredentialRecord::default()
        }
    }

    fn overlapping(since: Option<i64>) -> CredentialRecord {
        let previous =
            PreviousCredential { verifier: None, oid: None, since: since.map(at), kept_until: None };
        CredentialRecord { previous: Some(previous), ..issued(0, None) }
    }

    #[test]
    fn age_and_request_make_a_rotation_due_and_a_request_counts_once() {
        let active = Some(at(0));
        let due = |policy, record, now| evaluate(&policy, &record, active, at(now)).is_due;
        assert!(!due(policy(None, None), issued(0, None), 1_000_000), "by no age unless asked for");
        assert!(!due(policy(Some(100), None), issued(0, None), 99));
        assert!(due(policy(Some(100), None), issued(0, None), 100));
        assert!(due(policy(None, Some("leak")), issued(0, None), 1));
        assert!(!due(policy(None, Some("leak")), issued(0, Some("leak")), 1));
        assert!(due(policy(None, Some("again")), issued(0, Some("leak")), 1));
        // The annotation was removed.
        assert!(!due(policy(None, None), issued(0, Some("leak")), 1));
        let waiting = evaluate(&policy(Some(100), None), &issued(0, None), active, at(10));
        assert_eq!(waiting.changes_at, Some(at(100)));
    }

    #[test]
    fn nothing_is_due_before_the_activation_and_an_old_password_is_as_old_as_the_tenant() {
        let asked = policy(Some(100), Some("now"));
        assert_eq!(evaluate(&asked, &issued(0, None), None, at(500)), Rotation::default());
        let unknown = CredentialRecord::default();
        assert!(!evaluate(&policy(Some(100), None), &unknown, Some(at(50)), at(149)).is_due);
        assert!(evaluate(&policy(Some(100), None), &unknown, Some(at(50)), at(150)).is_due);
    }

    #[test]
    fn previous_login_is_valid_until_the_overlap_is_over_and_no_rotation_begins_before() {
        let asked = policy(Some(10), Some("now"));
        let found = |since, now| evaluate(&asked, &overlapping(since), Some(at(0)), at(now));
        // Its time begins when the credentials after it are published.
        let needed = Rotation { previous: PreviousState::Needed, ..Rotation::default() };
        assert_eq!(found(None, 1_000_000), needed);
        let valid = found(Some(20), 79);
        assert_eq!((valid.is_due, valid.previous), (false, PreviousState::ValidUntil(at(80))));
        assert_eq!(valid.changes_at, Some(at(80)));
        let over = Rotation { previous: PreviousState::Over, ..Rotation::default() };
        assert_eq!(found(Some(20), 80), over);
        // A shorter overlap counts at once, so that a stolen password can be ended.
        let ended = RotationPolicy { overlap: SignedDuration::ZERO, ..asked.clone() };
        assert_eq!(evaluate(&ended, &overlapping(Some(20)), Some(at(0)), at(20)), over);
    }

    fn tenant(spec: Value, status: Value) -> Tenant {
        let mut tenant = json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "a", "creationTimestamp": at(0).to_string()},
            "spec": {"slug": "abc", "displayName": "A", "plan": "free"}, "status": status,
        });
        tenant["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(tenant).unwrap()
    }

    #[test]
    fn age_of_a_password_is_known_from_the_status() {
        let issued = json!({"credentials": {"issuedAt": at(50).to_string()}, "binding": {"name": "a-db"}});
        assert_eq!(issued_at(&tenant(json!({}), issued)), Some(at(50)));
        // From before the time was recorded, and none yet.
        assert_eq!(issued_at(&tenant(json!({}), json!({"binding": {"name": "a-db"}}))), Some(at(0)));
        assert_eq!(issued_at(&tenant(json!({}), json!({}))), None);
    }

    #[test]
    fn rotation_is_overdue_from_its_age_on_unless_it_has_to_wait() {
        let monthly = json!({"credentials": {"rotateAfterSeconds": 3600}});
        let usable = json!({"access": "ReadWrite", "credentials": {"issuedAt": at(50).to_string()}});
        let with = |change: Value| {
            let mut status = usable.clone();
            let into = status.as_object_mut().unwrap();
            into.extend(change.as_object().unwrap().clone());
            status
        };
        let overdue =
            |spec: &Value, status: Value, now| overdue_since(&tenant(spec.clone(), status), at(now));
        assert_eq!(overdue(&monthly, usable.clone(), 3649), None);
        assert_eq!(overdue(&monthly, usable.clone(), 9999), Some(at(3650)));
        assert_eq!(overdue(&json!({}), usable.clone(), 9999), None, "at no age");
        // Its server may be down: that is no reason to wait.
        assert_eq!(overdue(&monthly, with(json!({"access": "Unknown"})), 9999), Some(at(3650)));
        let paused = json!({"credentials": {"rotateAfterSeconds": 3600}, "paused": true});
        assert_eq!(overdue(&paused, usable.clone(), 9999), None);
        let overlaps = json!({"issuedAt": at(50).to_string(), "previousLogin": "a"});
        for waits in [
            json!({"access": "Blocked"}),
            json!({"deprovisionedAt": at(60).to_string()}),
            json!({"credentials": overlaps}),
        ] {
            assert_eq!(overdue(&monthly, with(waits.clone()), 9999), None, "{waits}");
        }
    }

    #[test]
    fn kept_login_ends_at_its_date_or_by_a_rotation_that_is_asked_for() {
        let mut record = overlapping(Some(0));
        record.previous.as_mut().unwrap().kept_until = Some(at(1000));
        let state = |policy: &RotationPolicy, active: Option<i64>, now| {
            evaluate(policy, &record, active.map(at), at(now)).previous
        };
        let valid = PreviousState::ValidUntil(at(1000));
        // Neither the overlap nor an age ends it.
        assert_eq!(state(&policy(Some(10), None), Some(0), 999), valid);
        assert_eq!(state(&policy(None, None), Some(0), 1000), PreviousState::Over);
        assert_eq!(evaluate(&policy(None, None), &record, None, at(1)).changes_at, Some(at(1000)));
        // A rotation that is asked for needs its place, but only once the tenant is active.
        assert_eq!(state(&policy(None, Some("leak")), Some(0), 1), PreviousState::Over);
        assert_eq!(state(&policy(None, Some("leak")), None, 1), valid);
        // An earlier date in the spec counts, a later one does not.
        let until = |second| RotationPolicy { keep_until: Some(at(second)), ..policy(None, None) };
        assert_eq!(state(&until(500), Some(0), 499), PreviousState::ValidUntil(at(500)));
        assert_eq!(state(&until(500), Some(0), 500), PreviousState::Over);
        assert_eq!(state(&until(5000), Some(0), 999), valid);
    }

    #[test]
    fn no_time_overflows() {
        let longest = RotationPolicy { overlap: SignedDuration::MAX, ..policy(Some(i64::MAX), None) };
        assert!(!evaluate(&longest, &issued(0, None), Some(at(0)), at(1)).is_due);
        let found = evaluate(&longest, &overlapping(Some(0)), Some(at(0)), at(1));
        assert_eq!(found.previous, PreviousState::ValidUntil(Timestamp::MAX));
    }
}
