//! What modules created in a database, compared between a tenant's database and its template. Pure: the catalogs are read
//! elsewhere.
//!
//! Everything in the template must exist. What enforces limits must also be the same: the schema `tenantry`, and the
//! triggers that call its functions. A difference elsewhere may be a change that a platform operator made on purpose.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::modules::INTERNAL;

/// A kind of object that a module creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum PartKind {
    /// A table.
    Table,
    /// A view.
    View,
    /// A sequence.
    Sequence,
    /// An index.
    Index,
    /// A column of a table or a view.
    Column,
    /// A constraint.
    Constraint,
    /// A function.
    Function,
    /// A trigger.
    Trigger,
    /// A limit that counts the rows of a table.
    Meter,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SchemaPart {
    /// Its kind.
    pub kind: PartKind,
    /// Its name in SQL; of a meter, the limit's.
    pub name: String,
    /// The table that a column, constraint, trigger or meter belongs to.
    pub table: Option<String>,
    /// The owner of a table, view, sequence or function.
    pub owner: Option<String>,
    /// The statement that creates a function or a trigger, or another text that changes with the object. Only of what enforces
    /// limits; and none of a trigger that is disabled.
    pub definition: Option<String>,
}

/// A difference between a tenant's database and its template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaMismatch<'a> {
    /// The object, as it is in the template.
    pub wanted: &'a SchemaPart,
    /// What is wrong with it in the tenant's database.
    pub fault: SchemaFault<'a>,
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaFault<'a> {
    /// It does not exist.
    Missing,
    /// Another role owns it.
    Owner(&'a str),
    /// It is a trigger that never fires, or that calls another function.
    Disabled,
    /// It is another one.
    Different,
}

/// What a comparison came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaReport {
    /// What was created or counted again, for the Event.
    pub repaired: Vec<String>,
    /// What is still missing or different.
    pub left: Vec<String>,
}

impl SchemaPart {
    fn key(&self) -> (PartKind, Option<&str>, &str) {
        (self.kind, self.table.as_deref(), &self.name)
    }

    fn relation(&self) -> Option<&str> {
        match self.kind {
            PartKind::Table | PartKind::View | PartKind::Sequence => Some(&self.name),
            PartKind::Column | PartKind::Constraint | PartKind::Trigger => self.table.as_deref(),
            PartKind::Index | PartKind::Function | PartKind::Meter => None,
        }
    }

    fn fault<'a>(&self, found: Option<&'a Self>) -> Option<SchemaFault<'a>> {
        let Some(found) = found else { return Some(SchemaFault::Missing) };
        if let Some(owner) = found.owner.as_deref().filter(|owner| self.owner.as_deref() != Some(*owner)) {
            return Some(SchemaFault::Owner(owner));
        }
        match (&self.definition, &found.definition) {
            (Some(_), None) if self.kind == PartKind::Trigger => Some(SchemaFault::Disabled),
            (Some(wanted), found) if found.as_ref() != Some(wanted) => Some(SchemaFault::Different),
            _ => None,
        }
    }
}

impl SchemaMismatch<'_> {
    /// Whether it can be created again without data: a function or a trigger that enforces limits, or a meter.
    pub fn is_repairable(&self) -> bool {
        let is_code = matches!(self.wanted.kind, PartKind::Function | PartKind::Trigger | PartKind::Meter);
        is_code && self.wanted.definition.is_some() && !matches!(self.fault, SchemaFault::Owner(_))
    }
}

impl std::fmt::Display for SchemaMismatch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SchemaPart { kind, name, table, owner, .. } = self.wanted;
        match kind {
            PartKind::Meter => write!(f, "the meter of limit {name}")?,
            other => write!(f, "{} {name}", format!("{other:?}").to_lowercase())?,
        }
        if let Some(table) = table {
            write!(f, " on {table}")?;
        }
        match self.fault {
            SchemaFault::Missing => write!(f, " is missing"),
            SchemaFault::Owner(found) => {
                write!(f, " is owned by {found} instead of {}", owner.as_deref().unwrap_or_default())
            }
            SchemaFault::Disabled => write!(f, " is disabled, or calls another function"),
            SchemaFault::Different => write!(f, " is not the module's"),
        }
    }
}

/// What is missing or different in `found`. Of a table that is missing, nothing else is named.
pub fn schema_mismatches<'a>(wanted: &'a [SchemaPart], found: &'a [SchemaPart]) -> Vec<SchemaMismatch<'a>> {
    let by_key: HashMap<_, _> = found.iter().map(|part| (part.key(), part)).collect();
    let all = wanted.iter().filter_map(|part| {
        let fault = part.fault(by_key.get(&part.key()).copied())?;
        Some(SchemaMismatch { wanted: part, fault })
    });
    let all: Vec<_> = all.collect();
    let gone: HashSet<&str> = all
        .iter()
        .filter(|found| found.fault == SchemaFault::Missing && found.wanted.table.is_none())
        .filter_map(|found| found.wanted.relation())
        .collect();
    all.into_iter()
        .filter(|found| found.wanted.table.as_deref().is_none_or(|table| !gone.contains(table)))
        .collect()
}

/// Whether the schema has the tables that meters are read from.
pub fn has_meters(parts: &[SchemaPart]) -> bool {
    let has = |name: &str| {
        let name = format!("{INTERNAL}.{name}");
        parts.iter().any(|part| part.kind == PartKind::Table && part.name == name)
    };
    has("meters") && has("counters")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Vec<SchemaPart>);

    fn part(kind: PartKind, name: &str, table: Option<&str>, definition: Option<&str>) -> SchemaPart {
        let owner = table.is_none().then(|| "tenantry_owner".to_owned());
        SchemaPart {
            kind,
            name: name.into(),
            table: table.map(str::to_owned),
            owner,
            definition: definition.map(str::to_owned),
        }
    }

    fn template() -> Vec<SchemaPart> {
        vec![
            part(PartKind::Table, "public.users", None, None),
            part(PartKind::Column, "email", Some("public.users"), None),
            part(PartKind::Trigger, "tenantry_users_insert", Some("public.users"), Some("CREATE TRIGGER …")),
            part(PartKind::Function, "tenantry.meter(text)", None, Some("CREATE FUNCTION …")),
        ]
    }

    fn phrases(found: &[SchemaPart]) -> Vec<String> {
        schema_mismatches(&template(), found).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn more_than_the_template_is_no_mismatch() {
        let mut found = template();
        found.push(part(PartKind::Table, "public.more", None, None));
        assert!(phrases(&found).is_empty());
    }

    #[test]
    fn what_enforces_limits_is_repairable_wherever_it_differs() {
        let faults: [(&str, Change); 4] = [
            ("trigger tenantry_users_insert on public.users is missing", |found| drop(found.remove(2))),
            (
                "trigger tenantry_users_insert on public.users is disabled, or calls another function",
                |found| {
                    found[2].definition = None;
                },
            ),
            ("function tenantry.meter(text) is not the module's", |found| {
                found[3].definition = Some("CREATE FUNCTION other".into());
            }),
            ("function tenantry.meter(text) is missing", |found| drop(found.remove(3))),
        ];
        for (phrase, change) in faults {
            let mut found = template();
            change(&mut found);
            assert_eq!(phrases(&found), [phrase]);
            assert!(schema_mismatches(&template(), &found)[0].is_repairable(), "{phrase}");
        }
    }

    #[test]
    fn data_and_foreign_owners_are_left_to_a_person() {
        let mut found = template();
        found.drain(..3);
        assert_eq!(phrases(&found), ["table public.users is missing"]);
        assert!(!schema_mismatches(&template(), &found)[0].is_repairable());
        let mut found = template();
        found.remove(1);
        assert_eq!(phrases(&found), ["column email on public.users is missing"]);
        let mut found = template();
        found[3].owner = Some("postgres".into());
        let phrase = "function tenantry.meter(text) is owned by postgres instead of tenantry_owner";
        assert_eq!(phrases(&found), [phrase]);
        assert!(!schema_mismatches(&template(), &found)[0].is_repairable());
    }
}
