//! What stands against a takeover, each with the statement that an administrator runs, or what else to do.

use super::found::{DBA, DatabaseContent, FoundDatabase, OWNER, Reach, alter_keyword, new_owner};
use super::intent::Intent;
use super::kept::of_kept_login;
use crate::domain::names::MAX_IDENTIFIER_BYTES;

/// How many objects of one owner are named one by one.
const EACH: usize = 10;

/// Everything that stands against it.
pub(super) fn blockers(found: &FoundDatabase, intent: &Intent) -> Vec<String> {
    let mut lines = of_database(found, intent);
    if !found.is_marked && !found.is_reserved() {
        lines.extend(found.content.iter().flat_map(|content| of_content(found, content)));
        lines.extend(of_modules(intent));
        lines.extend(of_kept_login(found, intent));
    }
    lines
}

fn of_database(found: &FoundDatabase, intent: &Intent) -> Vec<String> {
    let (name, sql) = (&found.name, &found.sql);
    if found.is_reserved() {
        return vec![format!("database {name} is PostgreSQL's or Tenantry's own, and never a tenant's")];
    }
    if found.is_marked {
        let comment = found.comment.as_deref().unwrap_or_default();
        return vec![format!(
            "database {name} has the comment {comment:?} of Tenantry: it is, or was, another tenant's. If that tenant is gone for good, run: COMMENT ON DATABASE {sql} IS NULL;"
        )];
    }
    let owner = &found.owner;
    let checks = [
        (
            found.connection_limit == -2,
            format!(
                "a DROP DATABASE of it was interrupted: it cannot be used any more; finish it: DROP DATABASE {sql};"
            ),
        ),
        (
            !found.allows_connections,
            format!("it accepts no connection. Run: ALTER DATABASE {sql} ALLOW_CONNECTIONS true;"),
        ),
        (found.is_template, format!("it is a template. Run: ALTER DATABASE {sql} IS_TEMPLATE false;")),
        (
            !found.may_connect,
            format!(
                "the operator may not connect to it. Run: GRANT CONNECT ON DATABASE {sql} TO tenantry_admin;"
            ),
        ),
        (
            found.has_login_trigger,
            format!(
                "an event trigger on login runs code of the database in every session, the operator's too. Find it there in pg_event_trigger, and drop it; then run: ALTER DATABASE {sql} CONNECTION LIMIT {};",
                found.connection_limit
            ),
        ),
        (
            found.encoding != "UTF8",
            format!(
                "its encoding is {}, and a tenant's is UTF8: dump it, restore it into a database in UTF8, and adopt that",
                found.encoding
            ),
        ),
        (
            matches!(owner.reach, Reach::Superuser),
            format!(
                "its owner {} is a superuser. As a superuser, run: ALTER DATABASE {sql} OWNER TO {DBA};",
                owner.name
            ),
        ),
        (matches!(owner.reach, Reach::OutOfReach), grant(&owner.name, &owner.sql)),
        (
            intent.login.len() > MAX_IDENTIFIER_BYTES,
            format!(
                "its name is too long for the name of its login, {}: rename it to one of at most 59 bytes: ALTER DATABASE {sql} RENAME TO …;",
                intent.login
            ),
        ),
        (
            found.is_login_taken,
            format!(
                "role {:?} exists, and is the name of the tenant's new login. Rename it: ALTER ROLE \"{}\" RENAME TO …;",
                intent.login,
                intent.login.replace('"', "\"\"")
            ),
        ),
        (
            !found.prepared.is_empty(),
            format!(
                "it has prepared transactions. Run there, for each: COMMIT PREPARED or ROLLBACK PREPARED {};",
                found.prepared.join(", ")
            ),
        ),
    ];
    checks.into_iter().filter(|(stands, _)| *stands).map(|(_, line)| line).collect()
}

/// The statement by which what a role owns can be taken over.
fn grant(name: &str, sql: &str) -> String {
    format!(
        "the operator has no right to take over what {name} owns. As a role with ADMIN OPTION on it, or a superuser, run: GRANT {sql} TO tenantry_admin WITH INHERIT TRUE, SET TRUE;"
    )
}

fn of_content(found: &FoundDatabase, content: &DatabaseContent) -> Vec<String> {
    let mut lines = Vec::new();
    if content.objects.iter().any(|object| object.kind == "schema" && object.identity == "tenantry") {
        lines.push("schema tenantry exists, which is the name of Tenantry's own. Run there: ALTER SCHEMA tenantry RENAME TO …;".to_owned());
    }
    for owner in &content.owners {
        let owned: Vec<_> = content.objects.iter().filter(|object| object.owner == owner.name).collect();
        match owner.reach {
            Reach::Superuser => {
                for object in owned.iter().take(EACH) {
                    let keyword = alter_keyword(&object.kind).unwrap_or("…");
                    let (kind, identity) = (&object.kind, &object.identity);
                    lines.push(format!(
                        "{kind} {identity} belongs to the superuser {}. As a superuser, run there: ALTER {keyword} {identity} OWNER TO {};",
                        owner.name,
                        new_owner(kind)
                    ));
                }
                if owned.len() > EACH {
                    lines.push(format!(
                        "{} more objects belong to the superuser {}: they are named here in turn",
                        owned.len() - EACH,
                        owner.name
                    ));
                }
            }
            Reach::OutOfReach if owner.name != found.owner.name && !owned.is_empty() => {
                lines.push(grant(&owner.name, &owner.sql));
            }
            Reach::OutOfReach | Reach::Ours | Reach::Member | Reach::Grantable => {}
        }
    }
    lines.extend(content.obstructions.iter().map(|found| {
        format!(
            "{} would run with, or beside, the tenant's rights, or keep its database from being dropped. Run there: {}",
            found.what, found.statement
        )
    }));
    if content.large_objects > 0 {
        lines.push(format!(
            "it has {} large objects, which no tenant's login can use: copy them to columns of type bytea, then run there: SELECT lo_unlink(oid) FROM pg_largeobject_metadata;",
            content.large_objects
        ));
    }
    lines
}

fn of_modules(intent: &Intent) -> Vec<String> {
    let missing = intent.missing.iter().map(|missing| {
        format!("spec.adopt.baseline says that it is there, and {missing}: correct the baseline, or create it, as its owner or as {OWNER}")
    });
    let collisions = intent.collisions.iter().map(|object| {
        format!("the tenant's modules create {object}, which exists: leave the module out of spec.modules, list it in spec.adopt.baseline if this is its own, or rename the object")
    });
    missing.chain(collisions).collect()
}
