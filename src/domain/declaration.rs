//! What an object declares, as the registry keeps it, and the rows of the activity log for its changes: old and new values,
//! each with its user.
//!
//! Settings may hold the customer's secrets, and admins are people: of both, the registry keeps digests that only this
//! installation can compute, and the log the names of what changed. Long values are digests too.

use std::collections::{BTreeMap, BTreeSet};

use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::{
    attribution::{Actor, RecordedChanges},
    state_reason::{DeclaredReason, SlugReason, slug_reason, state_reason},
};
use crate::api::{
    ANNOTATION_CHANGES,
    tenant::{DesiredState, Tenant},
    tenant_account::TenantAccount,
};

pub mod objects;

/// The longest value, as JSON text, that is kept.
const MAX_VALUE_BYTES: usize = 512;

/// The longest name of a setting of an account that is kept, in characters: that which a plan can list.
const MAX_NAME_CHARS: usize = 63;

/// The most names of settings or admins that one row has.
const MAX_NAMES: usize = 50;

/// What an object declared when it was last recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Declaration {
    /// The object's uid.
    pub object: String,
    /// Its generation.
    pub generation: i64,
    /// Its spec: values, and digests of what is not shown.
    pub spec: Map<String, Value>,
    /// What its `stateReason` is, if that was given with a change of the slug.
    #[serde(default, rename = "slugReason", skip_serializing_if = "Option::is_none")]
    pub slug_reason: Option<SlugReason>,
}

/// A row of the activity log about a change of the spec.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeRow {
    /// `Created`, `Updated` or `Deleted`; of an account `AccountUpdated`.
    pub action: &'static str,
    /// Who changed it.
    pub actor: String,
    /// The reason that was given with this change.
    pub reason: Option<String>,
    /// The generation, and the fields with their old and new values.
    pub details: Value,
}

impl Declaration {
    /// Of a Tenant, after what was on record `before`. `key` is that of the installation's digests.
    pub fn of(tenant: &Tenant, key: &[u8], before: Option<&Self>) -> Self {
        let declaration = Self::of_object(&tenant.metadata, &tenant.spec, key);
        let changes = unchecked_changes(tenant);
        let slug_reason = before.and_then(|before| slug_reason(&tenant.spec, &changes, before.reason()));
        Self { slug_reason, ..declaration }
    }

    /// Of a TenantAccount.
    pub fn of_account(account: &TenantAccount, key: &[u8]) -> Self {
        let mut spec = account.spec.clone();
        let settings = spec.settings.into_iter();
        spec.settings = settings.map(|(name, value)| (bounded_name(name, key), value)).collect();
        Self::of_object(&account.metadata, &spec, key)
    }

    /// Of any object.
    pub fn of_object(metadata: &ObjectMeta, spec: &impl Serialize, key: &[u8]) -> Self {
        let spec = serde_json::to_value(spec).unwrap_or_default();
        let fields = spec.as_object().cloned().unwrap_or_default().into_iter();
        Self {
            object: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            spec: fields.map(|(name, value)| (name.clone(), kept(&name, value, key))).collect(),
            slug_reason: None,
        }
    }

    /// The reason of the state that a Tenant declares. `recorded` is what it declared when that was recorded last.
    pub fn state_reason(tenant: &Tenant, recorded: Option<&Self>) -> Option<String> {
        state_reason(&tenant.spec, &unchecked_changes(tenant), recorded.map(Self::reason))
    }

    fn reason(&self) -> DeclaredReason<'_> {
        DeclaredReason { spec: &self.spec, of_slug: self.slug_reason.as_ref() }
    }

    /// Whether it is of this state of an object, or of a later one.
    pub fn includes(&self, metadata: &ObjectMeta) -> bool {
        Some(&self.object) == metadata.uid.as_ref()
            && metadata.generation.is_none_or(|generation| generation <= self.generation)
    }

    /// The fields that differ from an earlier declaration.
    fn differing(&self, before: &Map<String, Value>) -> BTreeSet<String> {
        let names = self.spec.keys().chain(before.keys());
        names.filter(|name| self.spec.get(*name) != before.get(*name)).cloned().collect()
    }
}

/// The last changes of a Tenant, for the question which fields were changed together. No user is named by them: it is not
/// checked whether a policy protects them.
fn unchecked_changes(tenant: &Tenant) -> RecordedChanges {
    let annotations = tenant.metadata.annotations.as_ref();
    let text = annotations.and_then(|found| found.get(ANNOTATION_CHANGES));
    let generation = tenant.metadata.generation.unwrap_or_default();
    RecordedChanges::of(text.map_or("", String::as_str), generation)
}

/// A field as the registry keeps it.
fn kept(name: &str, value: Value, key: &[u8]) -> Value {
    match (name, &value) {
        ("settings", Value::Object(settings)) => {
            let digests = settings.iter().map(|(name, value)| (name.clone(), json!(digest(value, key))));
            Value::Object(digests.collect())
        }
        ("admins", Value::Array(admins)) => {
            let digests = admins.iter().map(|admin| {
                let email = admin["email"].as_str().unwrap_or_default();
                // Two admins may look the same.
                let id = digest(&json!(email), key).chars().take(6).collect::<String>();
                (format!("{} #{id}", masked(email)), json!(digest(admin, key)))
            });
            Value::Object(digests.collect())
        }
        // The reason of a state may be asked for after it was overwritten. It is in the log anyway.
        ("stateReason", _) => value,
        _ => {
            let bytes = value.to_string().len();
            if bytes > MAX_VALUE_BYTES {
                json!({"bytes": bytes, "digest": digest(&value, key)})
            } else {
                value
            }
        }
    }
}

/// The name of a setting. A plan cannot allow a longer one, so that it is refused; so is one that PostgreSQL cannot store. The
/// API server cannot limit names in a free-form object, and the customer must not fill the registry, or block it.
fn bounded_name(name: String, key: &[u8]) -> String {
    match name.chars().count() > MAX_NAME_CHARS || name.contains('\0') {
        true => format!("{} bytes #{}", name.len(), digest(&json!(name), key)),
        false => name,
    }
}

/// An e-mail address of which only the first letter and the domain can be read.
fn masked(email: &str) -> String {
    let (name, domain) = email.split_once('@').unwrap_or((email, ""));
    format!("{}…@{domain}", name.chars().take(1).collect::<String>())
}

/// A digest that only this installation can compute: values are often easy to guess.
fn digest(value: &Value, key: &[u8]) -> String {
    // HMAC accepts keys of every length; the type is shared with algorithms that do not.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(b"declaration\0");
    mac.update(value.to_string().as_bytes());
    mac.finalize().into_bytes().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// What was on record before a change.
#[derive(Clone, Copy, Debug)]
pub enum Before<'a> {
    /// The tenant is new.
    Nothing,
    /// The tenant was registered by a release that recorded no declarations; the generation that its status shows.
    NotRecorded(i64),
    /// This declaration.
    Recorded(&'a Declaration),
}

/// The rows for the changes between what was on record and a Tenant's present declaration: one for each change whose user is
/// known, and one for what is left. No row if nothing changed.
pub fn change_rows(
    before: Before<'_>,
    now: &Declaration,
    tenant: &Tenant,
    changes: &RecordedChanges,
) -> Vec<ChangeRow> {
    // One that was given with another slug is not given with a later change.
    let of_slug = match before {
        Before::Recorded(recorded) => recorded.slug_reason.as_ref().map(|reason| reason.given.as_str()),
        _ => None,
    };
    let is_old = |changed: &BTreeSet<&str>| {
        !changed.contains("stateReason")
            && of_slug.is_some()
            && of_slug == tenant.spec.state_reason.as_deref()
    };
    rows_with_reasons(before, now, changes, |changed, is_replaced| {
        reason(tenant, changed, is_replaced || is_old(changed))
    })
}

/// The rows for the changes of a TenantAccount. The operator creates it with what is on record: no change.
pub fn account_rows(
    recorded: Option<&Declaration>,
    now: &Declaration,
    changes: &RecordedChanges,
) -> Vec<ChangeRow> {
    let as_created =
        Declaration { object: now.object.clone(), generation: 1, spec: Map::new(), slug_reason: None };
    let before = Before::Recorded(recorded.unwrap_or(&as_created));
    let rows = rows_with_reasons(before, now, changes, |_, _| None).into_iter();
    rows.map(|row| ChangeRow { action: "AccountUpdated", ..row }).collect()
}

/// The same for any object. `reason`: the reason that was given with a change of these fields, which another change may have
/// replaced.
fn rows_with_reasons(
    before: Before<'_>,
    now: &Declaration,
    changes: &RecordedChanges,
    reason: impl Fn(&BTreeSet<&str>, bool) -> Option<String>,
) -> Vec<ChangeRow> {
    let nothing = Map::new();
    let (old, since) = match before {
        Before::Nothing => (&nothing, 0),
        Before::NotRecorded(generation) => (&now.spec, generation),
        // Another object of the same tenant begins with generation 1.
        Before::Recorded(recorded) if recorded.object != now.object => (&recorded.spec, 0),
        Before::Recorded(recorded) => (&recorded.spec, recorded.generation),
    };
    let is_new = matches!(before, Before::Nothing);
    let has_old = !matches!(before, Before::NotRecorded(_));
    let mut left = now.differing(old);
    let mut entries: Vec<Entry> = changes
        .since(since)
        .map(|change| Entry {
            generation: change.generation,
            actor: Actor::User(change.user.clone()),
            names: match &change.fields {
                Some(fields) => fields.iter().cloned().collect(),
                None => left.clone(),
            },
            // A new object of the same tenant, as it was: no change.
            is_certain: change.fields.is_some(),
        })
        .collect();
    for entry in &entries {
        left = &left - &entry.names;
    }
    let created = is_new && entries.first().is_none_or(|entry| entry.generation != 1);
    let unseen = !has_old && entries.is_empty() && now.generation > since;
    // Changes before the first one that is recorded. There was one, even if nothing of it is left.
    let gap = changes.gap(since).filter(|_| !created);
    if created || !left.is_empty() || unseen || gap.is_some() {
        let generation = match gap {
            _ if created => 1,
            Some((_, last)) => last,
            None => now.generation,
        };
        let entry = Entry { generation, actor: changes.missing(), names: left, is_certain: true };
        if created || gap.is_some() { entries.insert(0, entry) } else { entries.push(entry) }
    }
    let last_of: BTreeMap<&String, usize> = entries
        .iter()
        .enumerate()
        .flat_map(|(at, entry)| entry.names.iter().map(move |name| (name, at)))
        .collect();
    let reason_field = "stateReason".to_owned();
    let mut seen = BTreeSet::new();
    let mut rows = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let creates = is_new && entry.generation == 1;
        if entry.names.is_empty() && !entry.is_certain && !creates {
            continue;
        }
        let mut last = BTreeSet::new();
        let mut fields = Map::new();
        for name in &entry.names {
            let known = KnownValues { old: seen.insert(name) && has_old, new: last_of[name] == at };
            if known.new {
                last.insert(name.as_str());
            }
            fields.insert(name.clone(), shown(name, old.get(name), now.spec.get(name), known));
        }
        rows.push(ChangeRow {
            action: if creates { "Created" } else { "Updated" },
            actor: entry.actor.to_string(),
            reason: reason(&last, last_of.get(&reason_field).is_some_and(|last| *last != at)),
            details: match gap.filter(|(first, last)| first < last && entry.generation == *last) {
                Some((first, last)) => json!({"generations": {"from": first, "to": last}, "fields": fields}),
                None => json!({"generation": entry.generation, "fields": fields}),
            },
        });
    }
    rows
}

/// A change, or what is left of several.
struct Entry {
    generation: i64,
    actor: Actor,
    names: BTreeSet<String>,
    is_certain: bool,
}

/// Which of a field's values belong to a change: one that was overwritten before it was seen is not known.
#[derive(Clone, Copy)]
struct KnownValues {
    old: bool,
    new: bool,
}

/// A field of a row.
fn shown(name: &str, from: Option<&Value>, to: Option<&Value>, known: KnownValues) -> Value {
    if !matches!(name, "settings" | "admins") {
        let values = [("from", from.filter(|_| known.old)), ("to", to.filter(|_| known.new))];
        let values = values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.clone())));
        return Value::Object(values.collect());
    }
    if !known.old || !known.new {
        return json!({});
    }
    let none = Map::new();
    let [old, new] = [from, to].map(|value| value.and_then(Value::as_object).unwrap_or(&none));
    let names = |is_wanted: &dyn Fn(&String) -> bool| {
        let all: BTreeSet<&String> = old.keys().chain(new.keys()).filter(|name| is_wanted(name)).collect();
        let more = all.len().saturating_sub(MAX_NAMES);
        let mut named: Vec<Value> = all.into_iter().take(MAX_NAMES).map(|name| json!(name)).collect();
        if more > 0 {
            named.push(json!(format!("and {more} more")));
        }
        Value::Array(named)
    };
    json!({
        "added": names(&|name| !old.contains_key(name)),
        "changed": names(&|name| old.get(name).zip(new.get(name)).is_some_and(|(old, new)| old != new)),
        "removed": names(&|name| !new.contains_key(name)),
    })
}

/// The reason that was given with a change of these fields; `is_replaced`: the present one was given with another change.
fn reason(tenant: &Tenant, changed: &BTreeSet<&str>, is_replaced: bool) -> Option<String> {
    let spec = &tenant.spec;
    let of_state = spec.state_reason.as_ref().filter(|_| {
        let is_given = changed.contains("stateReason") || changed.contains("state") && !is_replaced;
        let is_asked_for = spec.state.unwrap_or_default() != DesiredState::Active || changed.contains("slug");
        is_given && is_asked_for
    });
    let of_offboarding = spec.offboarding.as_ref().and_then(|offboarding| offboarding.reason.as_ref());
    let reason = of_state.or(of_offboarding.filter(|_| changed.contains("offboarding")));
    reason.filter(|reason| !reason.is_empty()).cloned()
}

#[cfg(test)]
mod tests;
