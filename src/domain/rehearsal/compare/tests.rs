//! Each kind of change, and what it is reported as.

use super::*;

fn object(oid: i64, kind: &str, address: &str) -> CatalogObject {
    let (schema, name) = address.split_once('.').unwrap();
    CatalogObject {
        class: 1,
        oid,
        kind: kind.into(),
        schema: Some(schema.into()),
        name: name.rsplit('.').next().unwrap().into(),
        address: address.into(),
        owner: OWNER.into(),
        ..CatalogObject::default()
    }
}

fn part(parent: i64, sub: i32, kind: &str, address: &str) -> CatalogObject {
    CatalogObject { parent, sub, owner: String::new(), ..object(parent, kind, address) }
}

fn column(parent: i64, sub: i32, address: &str, column_type: &str) -> CatalogObject {
    CatalogObject { column_type: Some(column_type.into()), ..part(parent, sub, "column", address) }
}

/// Another module's table, and the module's own with a column, which tenants have.
fn base() -> Vec<CatalogObject> {
    vec![
        object(1, "table", "public.users"),
        column(1, 1, "public.users.email", "text"),
        object(2, "table", "app.pages"),
        column(2, 1, "app.pages.title", "text"),
        object(3, "function", "app.f()"),
        object(4, "table", "tenantry.limits"),
    ]
}

const OTHERS: [i64; 2] = [1, 4];

struct Case {
    after: Vec<CatalogObject>,
    rows: Vec<RowChange>,
    unwatched: Vec<i64>,
}

impl Case {
    fn of(change: impl FnOnce(&mut Vec<CatalogObject>)) -> Self {
        let mut after = base();
        change(&mut after);
        Self { after, rows: Vec::new(), unwatched: Vec::new() }
    }

    fn found(&self, allow_destructive: bool) -> Vec<(FindingClass, bool, String)> {
        let before = CatalogSnapshot::new(base());
        let others = base().into_iter().filter(|object| OTHERS.contains(&object.oid)).collect();
        let comparison = Comparison {
            schema: "app",
            others: &CatalogSnapshot::new(others),
            accepted: &before,
            before: &before,
            after: &CatalogSnapshot::new(self.after.clone()),
            rows: &self.rows,
            unwatched: &self.unwatched,
            allow_destructive,
        };
        let findings = comparison.findings().into_iter();
        findings.map(|finding| (finding.class, finding.refused, finding.message)).collect()
    }
}

fn refused(case: &Case, class: FindingClass, phrase: &str) {
    let found = case.found(false);
    let is_it = |(found, refused, message): &(FindingClass, bool, String)| {
        (*found, *refused) == (class, true) && message.contains(phrase)
    };
    assert!(found.iter().any(is_it), "{phrase}: {found:?}");
}

#[test]
fn own_objects_in_the_own_schema_are_no_finding() {
    let case = Case::of(|all| {
        all.push(object(9, "table", "app.notes"));
        all.push(column(9, 1, "app.notes.id", "integer"));
        all.push(column(2, 2, "app.pages.body", "text"));
        all.push(part(2, 0, "index", "app.by_title"));
        all[4].definition = "other body".into();
        all.push(CatalogObject { is_of_a_meter: true, ..object(10, "function", "tenantry.metered_0()") });
    });
    assert_eq!(case.found(false), []);
}

#[test]
fn what_is_not_the_modules_is_refused_whatever_is_allowed() {
    let outside = FindingClass::OutsideSchema;
    refused(
        &Case::of(|all| all.push(object(9, "table", "public.notes"))),
        outside,
        "the module's schema is app",
    );
    refused(
        &Case::of(|all| all.push(column(1, 2, "public.users.age", "text"))),
        outside,
        "on table public.users",
    );
    refused(&Case::of(|all| drop(all.remove(0))), outside, "drops table public.users");
    refused(&Case::of(|all| drop(all.remove(1))), outside, "drops column public.users.email");
    refused(&Case::of(|all| all[1].column_type = Some("citext".into())), outside, "changes column");
    refused(&Case::of(|all| all[2].schema = Some("public".into())), outside, "moves table app.pages out");
    let schema = CatalogObject { schema: None, ..object(9, "schema", "x.mine") };
    refused(&Case::of(|all| all.push(schema)), outside, "in no schema");
    let mut case = Case::of(|_| {});
    for (table, operation, by_tenantry) in
        [(1, "DELETE", false), (4, "INSERT", false), (4, "UPDATE", true), (1, "INSERT", false)]
    {
        case.rows.push(RowChange { table, operation: operation.into(), by_tenantry });
    }
    let found = case.found(true);
    let refused: Vec<_> =
        found.iter().filter(|(_, refused, _)| *refused).map(|(.., message)| message).collect();
    assert!(
        matches!(&refused[..], [a, b] if a.contains("deletes rows of table public.users") && b.contains("Tenantry alone")),
        "{found:?}"
    );
}

#[test]
fn what_tenants_lose_needs_a_consent() {
    let destructive = FindingClass::Destructive;
    let mut truncated = Case::of(|_| {});
    truncated.rows.push(RowChange { table: 2, operation: "TRUNCATE".into(), by_tenantry: false });
    let unwatched = Case { unwatched: vec![2], ..Case::of(|_| {}) };
    let renamed = Case::of(|all| {
        all[2].name = "old".into();
        all[2].address = "app.old".into();
        all.push(object(9, "table", "app.pages"));
    });
    let again = Case::of(|all| all[2].oid = 9);
    for (case, phrase) in [
        (Case::of(|all| drop(all.remove(2))), "drops table app.pages: what is in it is lost"),
        (Case::of(|all| drop(all.remove(3))), "drops column app.pages.title"),
        (Case::of(|all| drop(all.remove(4))), "drops function app.f(): the application"),
        (again, "creates another one of that name"),
        (renamed, "renames table app.pages to app.old"),
        (Case::of(|all| all[3].column_type = Some("integer".into())), "from text to integer"),
        (Case::of(|all| all[2].unlogged = true), "lost in a crash"),
        (truncated, "empties table app.pages"),
        (unwatched, "disables or drops triggers"),
    ] {
        refused(&case, destructive, phrase);
        assert!(case.found(true).iter().all(|(_, refused, _)| !refused), "{phrase}");
    }
    // What no tenant has yet can be dropped.
    let replaced = Case::of(|all| all[4].oid = 8);
    assert_eq!(replaced.found(false), [(FindingClass::Note, false, "replaces function app.f()".to_owned())]);
}

#[test]
fn rights_and_owners_are_tenantrys() {
    let rights = FindingClass::Rights;
    refused(
        &Case::of(|all| all[2].owner = "tenantry_migrator".into()),
        rights,
        "belongs to tenantry_migrator",
    );
    refused(
        &Case::of(|all| all[2].grantees = vec!["tenant_a_app".into()]),
        rights,
        "grants rights on table app.pages to tenant_a_app",
    );
    refused(
        &Case::of(|all| all[0].grantees = vec!["tenant_a_app".into()]),
        rights,
        "table public.users to tenant_a_app",
    );
    refused(&Case::of(|all| all[4].is_unsafe_definer = true), rights, "add SET search_path = app, pg_temp");
    for kind in ["default privileges", "setting"] {
        let one = CatalogObject { schema: None, owner: String::new(), ..object(9, kind, "of.all") };
        refused(
            &Case::of(|all| all.push(one)),
            rights,
            if kind == "setting" { "stores a setting" } else { "ALTER DEFAULT" },
        );
    }
}
