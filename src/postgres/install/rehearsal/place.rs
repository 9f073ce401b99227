//! Where in a file a finding is: the statement that did it, as far as its words show.

use crate::{
    domain::rehearsal::RightsChange,
    modules::{Statement, position_of, statements},
};

/// The line and the column of the first statement that changed an object: the one that changed its rights so, if it is a
/// finding about rights, else the first that names it. SQL that is put together at run time names none.
pub(super) fn place_of(sql: &str, address: &str, right: Option<&RightsChange>) -> Option<(usize, usize)> {
    let object = Object::of(address);
    let statements = statements(sql);
    let of_right = right.and_then(|right| changed_right(&statements, &object, right));
    let named = || statements.iter().find(|statement| object.is_in(statement.text));
    let statement = of_right.or_else(named)?;
    Some(position_of(sql, statement.start))
}

/// An object, by the names that statements have for it.
struct Object<'a> {
    schema: &'a str,
    name: &'a str,
}

impl<'a> Object<'a> {
    fn of(address: &'a str) -> Self {
        let address = address.split('(').next().unwrap_or(address);
        let address = address.split(" on ").next().unwrap_or(address);
        let schema = address.split_once('.').map_or("", |(schema, _)| schema);
        Self { schema, name: address.rsplit('.').next().unwrap_or(address) }
    }

    fn is_in(&self, text: &str) -> bool {
        has(text, self.name)
    }
}

/// The first statement that changed the right, of the kind that says so most clearly.
fn changed_right<'a, 'b>(
    statements: &'b [Statement<'a>],
    object: &Object<'_>,
    right: &RightsChange,
) -> Option<&'b Statement<'a>> {
    let first = |is_it: &dyn Fn(&Statement<'_>) -> bool| statements.iter().find(|statement| is_it(statement));
    let is_default = |statement: &Statement<'_>| {
        statement.begins_with(&["ALTER"])
            && has(statement.text, "default")
            && has(statement.text, "privileges")
    };
    let (verb, before_role, role) = match right {
        RightsChange::Granted(role) => ("GRANT", " to ", role),
        RightsChange::Revoked(role) => ("REVOKE", " from ", role),
        RightsChange::Owned(role) => {
            let changes_owner =
                |statement: &Statement<'_>| has(statement.text, "owner") && has(statement.text, role);
            return first(&|statement| changes_owner(statement) && object.is_in(statement.text))
                .or_else(|| first(&|statement| statement.begins_with(&["REASSIGN"])));
        }
        RightsChange::Defaults => return first(&is_default),
    };
    let is_of_verb = |statement: &Statement<'_>| statement.begins_with(&[verb]);
    // PUBLIC is the name of a schema, too: a role stands at the end.
    let is_of_role = |statement: &Statement<'_>| {
        let text = statement.text.to_lowercase().replace(char::is_whitespace, " ");
        text.rsplit_once(before_role).is_some_and(|(_, roles)| has(roles, role))
    };
    let is_of_all =
        |statement: &Statement<'_>| has(statement.text, "all") && has(statement.text, object.schema);
    first(&|one| is_of_verb(one) && object.is_in(one.text) && is_of_role(one))
        .or_else(|| first(&|one| is_of_verb(one) && object.is_in(one.text)))
        .or_else(|| first(&|one| is_of_verb(one) && is_of_all(one) && is_of_role(one)))
        .or_else(|| first(&|one| is_default(one) && has(one.text, verb) && is_of_role(one)))
        // In the body of a DO, for example.
        .or_else(|| first(&|one| object.is_in(one.text) && has(one.text, verb)))
}

/// Whether a text has a name or a word, in whatever case.
fn has(text: &str, word: &str) -> bool {
    let (text, word) = (text.to_lowercase(), word.trim_matches('"').to_lowercase());
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    !word.is_empty()
        && text
            .match_indices(&word)
            .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_is_found_in_the_statement_that_names_it() {
        let sql = "CREATE TABLE page (id int);\n  DROP TABLE app.\"Pages\";\nALTER TABLE b DROP c;";
        for (address, place) in [
            ("app.\"Pages\"", Some((2, 3))),
            ("public.page", Some((1, 1))),
            ("public.b.c", Some((3, 1))),
            ("public.f(page integer)", None),
            ("i on public.b", None),
            ("", None),
        ] {
            assert_eq!(place_of(sql, address, None), place, "{address}");
        }
    }

    #[test]
    fn right_is_found_in_the_statement_that_changed_it() {
        let line = |lines: &[&str], right: &RightsChange| {
            place_of(&lines.join(";\n"), "billing.invoices", Some(right)).map(|(line, _)| line)
        };
        let granted = |role: &str| RightsChange::Granted(role.into());
        let (to_all, revoked) = (granted("PUBLIC"), RightsChange::Revoked("tenantry_ro".into()));
        let touch = "ALTER TABLE invoices ALTER due SET NOT NULL";
        let grant = "GRANT SELECT ON invoices TO PUBLIC";
        for (lines, right, found) in [
            (&[touch, grant][..], &to_all, 2),
            (
                &["CREATE TABLE invoices ()", "CREATE TABLE q ()", "GRANT SELECT ON q TO PUBLIC", grant],
                &to_all,
                4,
            ),
            (
                &[touch, "REVOKE ALL ON invoices FROM PUBLIC", "grant select on invoices\nto public"],
                &to_all,
                3,
            ),
            (&[touch, "GRANT SELECT ON public.invoices TO tenantry_ro", grant], &to_all, 3),
            (&[touch, "GRANT SELECT ON invoices TO SESSION_USER"], &granted("tenantry_owner"), 2),
            (&[touch, "GRANT SELECT ON ALL TABLES IN SCHEMA billing TO PUBLIC"], &to_all, 2),
            (
                &["ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", "CREATE TABLE invoices ()"],
                &to_all,
                1,
            ),
            (&[touch, "DO $$ BEGIN EXECUTE 'GRANT SELECT ON invoices TO PUBLIC'; END $$"], &to_all, 2),
            (&[touch, grant, "REVOKE SELECT ON invoices FROM tenantry_ro"], &revoked, 3),
            (
                &[touch, "ALTER TABLE invoices OWNER TO reporting"],
                &RightsChange::Owned("reporting".into()),
                2,
            ),
            (
                &[touch, "ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM tenantry_ro"],
                &RightsChange::Defaults,
                2,
            ),
            // Nothing says more.
            (&["SELECT 1", touch], &to_all, 2),
        ] {
            assert_eq!(line(lines, right), Some(found), "{lines:?}");
        }
    }
}
