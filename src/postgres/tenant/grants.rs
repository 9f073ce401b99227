//! The statement that grants or revokes one right on an object in a tenant's database.

use crate::{
    domain::rights::{Object, ObjectKind, PUBLIC},
    postgres::{
        error::Result,
        identifier::{Ident, Keyword, Part, Quoted, Script},
    },
};

/// Adds the statement that grants or revokes one right.
pub(super) fn add_right(
    script: &mut Script,
    object: &Object,
    privilege: &str,
    grantee: &str,
    revokes: bool,
) -> Result<()> {
    // PostgreSQL's own names of rights: a right of a later version is left, and reported.
    const PRIVILEGES: [&str; 11] = [
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "TRUNCATE",
        "REFERENCES",
        "TRIGGER",
        "MAINTAIN",
        "USAGE",
        "EXECUTE",
        "CREATE",
    ];
    let Some(privilege) = PRIVILEGES.into_iter().find(|known| *known == privilege) else { return Ok(()) };
    let privilege = Keyword(privilege);
    let role = Ident::new(grantee)?;
    let role: &dyn Part = if grantee == PUBLIC { &Keyword("PUBLIC") } else { &role };
    let address = Quoted::by_postgres(&object.address);
    let plural = match object.kind {
        ObjectKind::DefaultTables => Some("TABLES"),
        ObjectKind::DefaultSequences => Some("SEQUENCES"),
        ObjectKind::DefaultFunctions => Some("ROUTINES"),
        _ => None,
    };
    if let Some(plural) = plural.map(Keyword) {
        match (object.schema.is_empty(), revokes) {
            (true, true) => script.add(
                "ALTER DEFAULT PRIVILEGES REVOKE {} ON {} FROM {} CASCADE",
                &[&privilege, &plural, role],
            ),
            (true, false) => {
                script.add("ALTER DEFAULT PRIVILEGES GRANT {} ON {} TO {}", &[&privilege, &plural, role]);
            }
            (false, true) => script.add(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA {} REVOKE {} ON {} FROM {} CASCADE",
                &[&address, &privilege, &plural, role],
            ),
            (false, false) => script.add(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT {} ON {} TO {}",
                &[&address, &privilege, &plural, role],
            ),
        }
        return Ok(());
    }
    let kind = Keyword(match object.kind {
        ObjectKind::Function | ObjectKind::Definer => "ROUTINE",
        ObjectKind::Schema => "SCHEMA",
        ObjectKind::Sequence => "SEQUENCE",
        _ => "TABLE",
    });
    let column = object.column.as_deref().map(Quoted::by_postgres);
    match (column, revokes) {
        (Some(column), true) => script
            .add("REVOKE {} ({}) ON {} {} FROM {} CASCADE", &[&privilege, &column, &kind, &address, role]),
        (Some(column), false) => {
            script.add("GRANT {} ({}) ON {} {} TO {}", &[&privilege, &column, &kind, &address, role]);
        }
        (None, true) => {
            script.add("REVOKE {} ON {} {} FROM {} CASCADE", &[&privilege, &kind, &address, role]);
        }
        (None, false) => script.add("GRANT {} ON {} {} TO {}", &[&privilege, &kind, &address, role]),
    }
    Ok(())
}
