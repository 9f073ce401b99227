//! The changes of objects that belong to no tenant: plans, modules and servers.

use jiff::Timestamp;
use serde_json::{Map, json};

use super::{Before, ChangeRow, Declaration, rows_with_reasons};
use crate::domain::attribution::{Actor, RecordedChanges};

/// An object, by what its rows name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// An object as the registry recorded it last.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedObject {
    /// Which one.
    pub object: ObjectName,
    /// What it declared.
    pub declaration: Declaration,
}

/// The rows for what changed since an object was recorded. One that was never recorded was created; its row states when, for it
/// may be older than the first release that records it.
pub fn object_rows(
    object: &ObjectName,
    recorded: Option<&Declaration>,
    now: &Declaration,
    created_at: Option<Timestamp>,
    changes: &RecordedChanges,
) -> Vec<ChangeRow> {
    let before = recorded.map_or(Before::Nothing, Before::Recorded);
    let mut rows = rows_with_reasons(before, now, changes, |_, _| None);
    for row in &mut rows {
        name(row, object);
        if let (true, Some(at), Some(details)) =
            (row.action == "Created", created_at, row.details.as_object_mut())
        {
            details.insert("createdAt".to_owned(), json!(at));
        }
    }
    rows
}

/// The row for the end of an object.
pub fn deletion_row(recorded: &RecordedObject, actor: &Actor) -> ChangeRow {
    let mut row = ChangeRow {
        action: "Deleted",
        actor: actor.to_string(),
        reason: None,
        details: json!({"fields": fields_of(&recorded.declaration)}),
    };
    name(&mut row, &recorded.object);
    row
}

/// The last values, as those of a change are shown. Settings and admins are digests.
fn fields_of(declaration: &Declaration) -> Map<String, serde_json::Value> {
    let shown = declaration.spec.iter().filter(|(name, _)| !matches!(name.as_str(), "settings" | "admins"));
    shown.map(|(name, value)| (name.clone(), json!({"from": value}))).collect()
}

fn name(row: &mut ChangeRow, object: &ObjectName) {
    if let Some(details) = row.details.as_object_mut() {
        details.insert("kind".to_owned(), json!(object.kind));
        details.insert("name".to_owned(), json!(object.name));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn plan() -> ObjectName {
        ObjectName { kind: "TenantPlan".into(), name: "starter".into() }
    }

    fn declared(generation: i64, spec: Value) -> Declaration {
        let spec = spec.as_object().unwrap().clone();
        Declaration { object: "one".into(), generation, spec, slug_reason: None }
    }

    #[test]
    fn rows_name_the_object_its_users_and_its_values() {
        let at = Timestamp::constant(1_800_000_000, 0);
        let first = declared(1, json!({"rank": 10}));
        let created = object_rows(&plan(), None, &first, Some(at), &RecordedChanges::of("1 * ada", 1));
        let expected = json!({
            "kind": "TenantPlan", "name": "starter", "generation": 1, "createdAt": "2027-01-15T08:00:00Z",
            "fields": {"rank": {"to": 10}},
        });
        assert_eq!((created.len(), &created[0].details), (1, &expected));
        assert_eq!((created[0].action, created[0].actor.as_str()), ("Created", "ada"));

        let second = declared(2, json!({"rank": 20}));
        let changes = RecordedChanges::of("2 rank bob\n1 * ada", 2);
        let updated = object_rows(&plan(), Some(&first), &second, Some(at), &changes);
        let expected = json!({
            "kind": "TenantPlan", "name": "starter", "generation": 2, "fields": {"rank": {"from": 10, "to": 20}},
        });
        assert_eq!((updated.len(), &updated[0].details), (1, &expected));
        assert_eq!((updated[0].action, updated[0].actor.as_str()), ("Updated", "bob"));
        assert!(object_rows(&plan(), Some(&second), &second, Some(at), &changes).is_empty());
    }

    #[test]
    fn object_with_an_empty_spec_is_created_too() {
        let empty = declared(1, json!({}));
        let created = object_rows(&plan(), None, &empty, None, &RecordedChanges::of("1 * ada", 1));
        assert_eq!((created.len(), created[0].action, created[0].actor.as_str()), (1, "Created", "ada"));
    }

    #[test]
    fn deletion_has_the_last_values() {
        let recorded = RecordedObject { object: plan(), declaration: declared(3, json!({"rank": 20})) };
        let row = deletion_row(&recorded, &Actor::of_deletion(false));
        assert_eq!((row.action, row.actor.as_str()), ("Deleted", "unknown (deletion)"));
        let expected = json!({"kind": "TenantPlan", "name": "starter", "fields": {"rank": {"from": 20}}});
        assert_eq!(row.details, expected);
    }
}
