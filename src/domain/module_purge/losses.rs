//! What is dropped with a module, and what else would be lost: from the catalogs before and after. Nothing is read from SQL.

use std::collections::BTreeSet;

use crate::domain::{
    modules::INTERNAL,
    rehearsal::catalog::{CatalogObject, CatalogSnapshot, ObjectKey},
};

/// Which objects of a database are a module's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleObjects {
    /// All in a schema that is its own.
    InSchema(String),
    /// Those with these labels: a database that has the module has them, and one without it has not.
    Labelled(BTreeSet<String>),
}

/// The labels of the objects that a module made: those of a database with it, without those of a database without it. The
/// schema that it shares with what a tool made, and the default privileges there, are the operator's and stay.
pub fn made(with: &CatalogSnapshot, without: &CatalogSnapshot) -> BTreeSet<String> {
    let is_new = |object: &&CatalogObject| {
        !without.has_label(&object.label())
            && object.schema.as_deref() != Some(INTERNAL)
            && !matches!(object.kind.as_str(), "extension" | "schema" | "default privileges")
    };
    with.objects().filter(is_new).map(CatalogObject::label).collect()
}

impl ModuleObjects {
    /// The objects of a database that are the module's, without those that are a part of another one of its objects.
    pub fn of<'a>(&self, database: &'a CatalogSnapshot) -> Vec<&'a CatalogObject> {
        let is_own = |object: &CatalogObject| match self {
            Self::InSchema(schema) => object.schema.as_ref() == Some(schema),
            Self::Labelled(labels) => labels.contains(&object.label()),
        };
        let is_part = |object: &CatalogObject| database.relation(object.parent).is_some_and(is_own);
        database.objects().filter(|object| is_own(object) && !is_part(object)).collect()
    }
}

/// What else is lost or changed when these objects are dropped with what depends on them: that was not asked for.
pub fn losses(before: &CatalogSnapshot, after: &CatalogSnapshot, dropped: &[&CatalogObject]) -> Vec<String> {
    let keys: BTreeSet<ObjectKey> = dropped.iter().map(|object| object.key()).collect();
    let is_dropped = |object: &CatalogObject| {
        keys.contains(&object.key())
            || before.relation(object.parent).is_some_and(|relation| {
                keys.contains(&relation.key())
                    || before.relation(relation.parent).is_some_and(|owner| keys.contains(&owner.key()))
            })
    };
    let is_lost = |object: &&CatalogObject| match after.get(object.key()) {
        None => true,
        Some(now) => now.definition != object.definition || now.column_type != object.column_type,
    };
    before.objects().filter(is_lost).filter(|object| !is_dropped(object)).map(CatalogObject::label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(oid: i64, kind: &str, schema: &str, name: &str, parent: i64) -> CatalogObject {
        CatalogObject {
            class: 1,
            oid,
            kind: kind.into(),
            parent,
            schema: Some(schema.into()),
            name: name.into(),
            address: format!("{schema}.{name}"),
            ..CatalogObject::default()
        }
    }

    fn database() -> Vec<CatalogObject> {
        vec![
            object(1, "table", "app", "invoices", 0),
            object(2, "sequence", "app", "invoices_id", 1),
            object(3, "column", "app", "invoices.id", 1),
            object(4, "function", "app", "total()", 0),
            object(5, "table", "public", "orders", 0),
            CatalogObject { definition: "nextval".into(), ..object(6, "column", "public", "orders.n", 5) },
            object(7, "view", "public", "totals", 0),
        ]
    }

    fn names(objects: &[&CatalogObject]) -> Vec<String> {
        objects.iter().map(|object| object.address.clone()).collect()
    }

    #[test]
    fn module_has_the_objects_of_its_schema_or_those_that_it_made() {
        let (with, without) =
            (CatalogSnapshot::new(database()), CatalogSnapshot::new(database()[4..].to_vec()));
        let own = ModuleObjects::InSchema("app".into()).of(&with);
        assert_eq!(names(&own), ["app.invoices", "app.total()"]);
        let labels = made(&with, &without);
        assert_eq!(ModuleObjects::Labelled(labels.clone()).of(&with), own);
        // A template without the module lacks its schema too, in which a tool may have made tables.
        let of_operator = [
            CatalogObject { schema: None, ..object(8, "schema", "app", "app", 0) },
            CatalogObject { schema: None, ..object(9, "default privileges", "app", "x", 0) },
        ];
        let all = CatalogSnapshot::new(database().into_iter().chain(of_operator).collect());
        assert_eq!(made(&all, &without), labels);
    }

    #[test]
    fn nothing_else_may_be_lost_or_changed() {
        let before = CatalogSnapshot::new(database());
        let own = ModuleObjects::InSchema("app".into()).of(&before);
        let after = CatalogSnapshot::new(database()[4..].to_vec());
        assert_eq!(losses(&before, &after, &own), Vec::<String>::new());
        // The view is gone, and the default of the column.
        let mut rest = database()[4..6].to_vec();
        rest[1].definition.clear();
        let lost = losses(&before, &CatalogSnapshot::new(rest), &own);
        assert_eq!(lost, ["column public.orders.n", "view public.totals"]);
    }
}
