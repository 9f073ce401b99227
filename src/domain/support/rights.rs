//! What support logins may do inside a tenant's database: read each column that no module marks as secret, in the schemas of
//! modules. The rights are those of columns, never of tables: with the right on a table, a column that is added later could
//! be read before it is known to be no secret.

use serde::Deserialize;

use crate::domain::rights::{Granted, Object, ObjectKind, ObjectRights};

/// What was read of the rights in a database.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ReadRights {
    /// The objects.
    pub objects: Vec<ObjectRights>,
    /// The tenant's support logins that can log in.
    pub support: Vec<String>,
}

/// A change of the rights of a support login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupportRightsChange {
    /// It gets SELECT on columns of a table or a view.
    Columns {
        /// Who.
        login: String,
        /// The table, qualified and quoted.
        table: String,
        /// The columns, quoted.
        columns: Vec<String>,
    },
    /// It gets USAGE on a schema.
    Schema {
        /// Who.
        login: String,
        /// The schema, quoted.
        schema: String,
    },
    /// It loses rights that it should not have.
    Revoke {
        /// Who.
        login: String,
        /// On what.
        object: Object,
        /// Which.
        privileges: Vec<String>,
    },
}

impl SupportRightsChange {
    /// Whether the owner of the database has to make it; else the owner of the objects does.
    pub fn needs_dba(&self) -> bool {
        match self {
            Self::Columns { .. } => false,
            Self::Schema { .. } => true,
            Self::Revoke { object, .. } => object.kind == ObjectKind::Schema,
        }
    }
}

/// The changes that bring the rights of a tenant's support logins to what they should be. Objects of other owners are left
/// out: nothing is granted on them, and only their owners can revoke.
pub fn support_rights_changes(read: &ReadRights) -> Vec<SupportRightsChange> {
    let mut changes = Vec::new();
    for ObjectRights { object, support, hidden, .. } in &read.objects {
        let wanted = wanted(object, *hidden);
        for Granted { grantee, privileges, grantable } in support {
            let may_have = |name: &str| !grantable && Some(name) == wanted && read.support.contains(grantee);
            let excess: Vec<String> = privileges.iter().filter(|name| !may_have(name)).cloned().collect();
            if !excess.is_empty() && object.is_ours() {
                let (login, object) = (grantee.clone(), object.clone());
                changes.push(SupportRightsChange::Revoke { login, object, privileges: excess });
            }
        }
    }
    for login in &read.support {
        // One after the other: the columns of one table are together.
        let mut granted: Option<(&str, Vec<String>)> = None;
        let mut columns_of = |table: &str, columns: Vec<String>| {
            let (login, table) = (login.clone(), table.to_owned());
            changes.push(SupportRightsChange::Columns { login, table, columns });
        };
        let mut schemas = Vec::new();
        for ObjectRights { object, support, hidden, .. } in &read.objects {
            let Some(privilege) = wanted(object, *hidden) else { continue };
            let has = support.iter().any(|found| {
                found.grantee == *login && !found.grantable && found.privileges.contains(privilege)
            });
            match &object.column {
                _ if has => {}
                None => schemas.push(object.address.clone()),
                Some(column) => match &mut granted {
                    Some((table, columns)) if *table == object.address => columns.push(column.clone()),
                    before => {
                        if let Some((table, columns)) =
                            before.replace((&object.address, vec![column.clone()]))
                        {
                            columns_of(table, columns);
                        }
                    }
                },
            }
        }
        if let Some((table, columns)) = granted {
            columns_of(table, columns);
        }
        let schemas = schemas.into_iter();
        changes.extend(schemas.map(|schema| SupportRightsChange::Schema { login: login.clone(), schema }));
    }
    changes
}

/// The one right that a support login has on an object.
fn wanted(object: &Object, hidden: bool) -> Option<&'static str> {
    let is_ours = object.is_of_modules() && object.is_ours();
    match object.kind {
        ObjectKind::Column if is_ours && !hidden => Some("SELECT"),
        ObjectKind::Schema if is_ours => Some("USAGE"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: &str = "tenant_acme_support_1";

    fn object(kind: ObjectKind, name: &str, column: Option<&str>) -> ObjectRights {
        let object = Object {
            kind,
            schema: "public".into(),
            schema_owner: "pg_database_owner".into(),
            address: name.into(),
            column: column.map(str::to_owned),
            owner: if kind == ObjectKind::Schema { "pg_database_owner" } else { "tenantry_owner" }.into(),
        };
        ObjectRights { object, granted: Vec::new(), support: Vec::new(), hidden: false }
    }

    fn column(table: &str, name: &str) -> ObjectRights {
        object(ObjectKind::Column, table, Some(name))
    }

    fn granted(mut object: ObjectRights, privileges: &[&str]) -> ObjectRights {
        let privileges = privileges.iter().map(|name| (*name).to_owned()).collect();
        object.support.push(Granted { grantee: LOGIN.into(), privileges, grantable: false });
        object
    }

    fn changes(objects: Vec<ObjectRights>) -> Vec<SupportRightsChange> {
        support_rights_changes(&ReadRights { objects, support: vec![LOGIN.into()] })
    }

    fn columns(table: &str, columns: &[&str]) -> SupportRightsChange {
        SupportRightsChange::Columns {
            login: LOGIN.into(),
            table: table.into(),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn columns_that_are_no_secret_are_granted_by_table() {
        let secret = ObjectRights { hidden: true, ..column("public.users", "hash") };
        let found = changes(vec![
            column("public.orders", "id"),
            column("public.users", "email"),
            secret,
            column("public.users", "name"),
            object(ObjectKind::Schema, "public", None),
            object(ObjectKind::Table, "public.users", None),
            object(ObjectKind::Sequence, "public.orders_id", None),
        ]);
        let schema = SupportRightsChange::Schema { login: LOGIN.into(), schema: "public".into() };
        assert_eq!(
            found,
            [columns("public.orders", &["id"]), columns("public.users", &["email", "name"]), schema]
        );
        let settled = vec![
            granted(column("public.users", "email"), &["SELECT"]),
            granted(object(ObjectKind::Schema, "public", None), &["USAGE"]),
        ];
        assert_eq!(changes(settled), []);
    }

    #[test]
    fn nothing_is_granted_outside_of_modules() {
        let elsewhere = |schema: &str, schema_owner: &str, owner: &str| {
            let mut object = column(&format!("{schema}.x"), "a");
            object.object.schema = schema.into();
            object.object.schema_owner = schema_owner.into();
            object.object.owner = owner.into();
            object
        };
        for object in [
            elsewhere("tenantry", "tenantry_dba", "tenantry_owner"),
            elsewhere("public", "pg_database_owner", "postgres"),
            elsewhere("own", "postgres", "tenantry_owner"),
        ] {
            assert_eq!(changes(vec![object]), []);
        }
        let of_a_module = elsewhere("billing", "tenantry_dba", "tenantry_owner");
        assert_eq!(changes(vec![of_a_module]), [columns("billing.x", &["a"])]);
    }

    #[test]
    fn every_other_right_is_revoked() {
        let secret = ObjectRights { hidden: true, ..column("public.users", "hash") };
        for (object, privileges) in [
            (secret, &["SELECT"][..]),
            (object(ObjectKind::Table, "public.users", None), &["SELECT"]),
            (object(ObjectKind::Table, "public.users", None), &["INSERT", "SELECT"]),
            (object(ObjectKind::Definer, "public.f()", None), &["EXECUTE"]),
            (object(ObjectKind::Function, "public.f()", None), &["EXECUTE"]),
            (object(ObjectKind::Sequence, "public.s", None), &["USAGE"]),
        ] {
            let found = changes(vec![granted(object, privileges)]);
            let [SupportRightsChange::Revoke { privileges: revoked, .. }] = &found[..] else {
                panic!("{found:?}")
            };
            assert_eq!(revoked, privileges);
            assert!(!found[0].needs_dba());
        }
        let schema = granted(object(ObjectKind::Schema, "public", None), &["CREATE", "USAGE"]);
        let found = changes(vec![schema]);
        assert!(
            matches!(&found[..], [change @ SupportRightsChange::Revoke { privileges, .. }]
                if privileges == &["CREATE"] && change.needs_dba()),
            "{found:?}"
        );
        // One that may not log in any more is being taken away.
        let read = ReadRights {
            objects: vec![granted(column("public.users", "email"), &["SELECT"])],
            support: Vec::new(),
        };
        assert_eq!(support_rights_changes(&read).len(), 1);
    }
}
