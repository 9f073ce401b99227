//! What the catalogs of a database show at one moment, as far as a rehearsal compares it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// The key of an object: its catalog, its oid, and the number of a column.
pub type ObjectKey = (i64, i64, i32);

/// An object in a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CatalogObject {
    /// Its catalog.
    pub class: i64,
    /// Its oid; of a column, the table's.
    pub oid: i64,
    /// The number of a column; 0 for everything else.
    pub sub: i32,
    /// What it is, in words: `table`, `column`, `default privileges` …
    pub kind: String,
    /// The oid of the relation that it is a part of; 0: it is on its own.
    pub parent: i64,
    /// Its schema; none for what is in no schema.
    pub schema: Option<String>,
    /// Its name alone.
    pub name: String,
    /// Its name in SQL, qualified and quoted.
    pub address: String,
    /// Its owner; empty where there is none.
    pub owner: String,
    /// Who has rights on it, besides its owner.
    pub grantees: Vec<String>,
    /// Everything else that makes it what it is, as a text.
    pub definition: String,
    /// Of a column: its type.
    pub column_type: Option<String>,
    /// Of an enum: its labels.
    pub labels: Vec<String>,
    /// Of a table: the tables that it is a partition or a child of.
    pub parents: Vec<String>,
    /// Of a table: it is not written to the log, so that its rows are lost in a crash.
    pub unlogged: bool,
    /// Of a relation: the number of its file.
    pub file: Option<i64>,
    /// Of a relation: its size.
    pub bytes: i64,
    /// Of a function: it runs with its owner's rights, and its caller chooses the search_path.
    pub is_unsafe_definer: bool,
    /// Of a trigger or a function: it is a meter's.
    pub is_of_a_meter: bool,
}

impl CatalogObject {
    /// The key.
    pub fn key(&self) -> ObjectKey {
        (self.class, self.oid, self.sub)
    }

    /// The kind and the name, for messages.
    pub fn label(&self) -> String {
        format!("{} {}", self.kind, self.address)
    }

    /// Whether it is a relation, which can have parts.
    pub fn is_relation(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "table" | "foreign table" | "view" | "materialized view" | "sequence" | "index"
        )
    }
}

/// The objects of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogSnapshot {
    objects: BTreeMap<ObjectKey, CatalogObject>,
    relations: BTreeMap<i64, ObjectKey>,
    labels: BTreeSet<String>,
}

impl CatalogSnapshot {
    /// A snapshot of these objects.
    pub fn new(objects: Vec<CatalogObject>) -> Self {
        let relations = objects.iter().filter(|object| object.is_relation());
        Self {
            relations: relations.map(|object| (object.oid, object.key())).collect(),
            labels: objects.iter().map(CatalogObject::label).collect(),
            objects: objects.into_iter().map(|object| (object.key(), object)).collect(),
        }
    }

    /// The objects.
    pub fn objects(&self) -> impl Iterator<Item = &CatalogObject> {
        self.objects.values()
    }

    /// An object.
    pub fn get(&self, key: ObjectKey) -> Option<&CatalogObject> {
        self.objects.get(&key)
    }

    /// Whether an object exists.
    pub fn contains(&self, key: ObjectKey) -> bool {
        self.objects.contains_key(&key)
    }

    /// The relation with this oid.
    pub fn relation(&self, oid: i64) -> Option<&CatalogObject> {
        self.get(*self.relations.get(&oid)?)
    }

    /// Whether there is an object of this kind and name.
    pub fn has_label(&self, label: &str) -> bool {
        self.labels.contains(label)
    }
}

/// What a file did to the rows of a table, as a trigger saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct RowChange {
    /// The table's oid.
    pub table: i64,
    /// `INSERT`, `UPDATE`, `DELETE` or `TRUNCATE`.
    pub operation: String,
    /// A function of Tenantry's did it, such as `tenantry.meter`.
    pub by_tenantry: bool,
}
