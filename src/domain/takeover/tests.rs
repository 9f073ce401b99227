//! Reports of databases built by hand.

mod kept;

use std::collections::BTreeMap;

use super::*;
use crate::domain::{
    record::ModuleVersion,
    structure::{PartKind, SchemaPart},
};

fn role(name: &str, reach: Reach) -> FoundRole {
    FoundRole { name: name.into(), sql: name.into(), reach }
}

fn object(kind: &str, identity: &str, owner: &str) -> FoundObject {
    let (identity, owner) = (identity.to_owned(), owner.to_owned());
    FoundObject { catalog: 1259, oid: 1, kind: kind.into(), identity, owner, public: vec![], login: vec![] }
}

fn shop() -> FoundDatabase {
    FoundDatabase {
        oid: 5,
        name: "shop".into(),
        sql: "shop".into(),
        owner: role("ada", Reach::Grantable),
        comment: None,
        is_marked: false,
        encoding: "UTF8".into(),
        locale: "collation C, character type C".into(),
        is_template: false,
        allows_connections: true,
        connection_limit: -1,
        has_login_trigger: false,
        may_connect: true,
        rights: vec![FoundRights {
            role: None,
            sql: "PUBLIC".into(),
            privileges: vec!["CONNECT".into(), "TEMPORARY".into()],
        }],
        settings: vec!["search_path".into()],
        prepared: vec![],
        sessions: vec!["ada".into()],
        is_login_taken: false,
        login: None,
        content: Some(DatabaseContent {
            objects: vec![object("schema", "app", "ada"), object("table", "app.orders", "ada")],
            owners: vec![role("ada", Reach::Grantable)],
            ..DatabaseContent::default()
        }),
    }
}

fn content(found: &mut FoundDatabase) -> &mut DatabaseContent {
    found.content.as_mut().unwrap()
}

fn version(name: &str, version: i32) -> ModuleVersion {
    ModuleVersion { name: name.into(), version }
}

fn intent() -> Intent {
    Intent {
        login: "shop_app".into(),
        modules: vec![version("tenantry", 4), version("app", 12)],
        baseline: vec![version("app", 10)],
        of_tools: vec![],
        missing: vec![],
        collisions: vec![],
        kept: None,
    }
}

/// The blockers after a change of the database.
fn blockers_after(change: impl FnOnce(&mut FoundDatabase)) -> Vec<String> {
    let mut found = shop();
    change(&mut found);
    Report::of(&found, &intent()).blockers
}

#[test]
fn report_names_what_changes_and_is_confirmed_by_its_digest() {
    let (found, intent) = (shop(), intent());
    let report = Report::of(&found, &intent);
    assert_eq!(report.blockers, Vec::<String>::new());
    let all = report.changes.join("\n");
    for expected in [
        "database shop: the owner becomes tenantry_dba instead of ada",
        "these lose their rights on it: PUBLIC (CONNECT, TEMPORARY)",
        "only the new login shop_app",
        "open sessions end: those of ada",
        "its settings are reset (search_path)",
        "objects of ada: the owner becomes tenantry_dba (1 of kind schema)",
        "objects of ada: the owner becomes tenantry_owner (1 of kind table)",
        "module tenantry: applied from 1 to 4",
        "module app: recorded as applied up to 10, without running anything; then 11 to 12 are applied",
        "drops the database when the grace period ends, unless deletionPolicy is Retain",
    ] {
        assert!(all.contains(expected), "{expected}\n{all}");
    }
    let status = report.status(&found);
    assert_eq!(status.digest.as_deref(), Some(report.digest.as_str()));
    assert_eq!(report.decide("shop", Some(&report.digest)), Ok(()));
    let unconfirmed = report.decide("shop", None).unwrap_err();
    assert!(unconfirmed.to_string().contains(&format!("spec.adopt.confirm: {:?}", report.digest)));
    let stale = report.decide("shop", Some("abc")).unwrap_err();
    assert!(
        matches!(&stale, TakeoverRefusal::Changed { .. })
            && stale.to_string().starts_with("nothing was changed")
    );
}

#[test]
fn digest_covers_everything_but_sessions() {
    let digest = |found: &FoundDatabase, intent: &Intent| Report::of(found, intent).digest;
    let before = digest(&shop(), &intent());
    let mut busy = shop();
    busy.sessions.push("eve".into());
    assert_eq!(digest(&busy, &intent()), before);
    let changes: [Change; 5] = [
        |found| found.oid = 6,
        |found| content(found).objects.push(object("table", "app.more", "ada")),
        |found| content(found).rights = "other".into(),
        |found| found.settings.clear(),
        |found| {
            content(found).extensions.push(FoundExtension {
                name: "x".into(),
                version: "1".into(),
                owner: "ada".into(),
            })
        },
    ];
    for change in changes {
        let mut found = shop();
        change(&mut found);
        assert_ne!(digest(&found, &intent()), before, "{found:?}");
    }
    assert_ne!(digest(&shop(), &Intent { modules: vec![], ..intent() }), before);
}

type Change = fn(&mut FoundDatabase);

#[test]
fn each_blocker_says_which_statement_to_run() {
    let cases: [(Change, &str); 12] = [
        (|found| found.owner.reach = Reach::Superuser, "ALTER DATABASE shop OWNER TO tenantry_dba;"),
        (
            |found| found.owner.reach = Reach::OutOfReach,
            "GRANT ada TO tenantry_admin WITH INHERIT TRUE, SET TRUE;",
        ),
        (|found| found.may_connect = false, "GRANT CONNECT ON DATABASE shop TO tenantry_admin;"),
        (|found| found.allows_connections = false, "ALTER DATABASE shop ALLOW_CONNECTIONS true;"),
        (|found| found.is_template = true, "ALTER DATABASE shop IS_TEMPLATE false;"),
        (|found| found.is_login_taken = true, "ALTER ROLE \"shop_app\" RENAME TO"),
        (|found| found.encoding = "LATIN1".into(), "restore it into a database in UTF8"),
        (|found| found.prepared.push("'one'".into()), "ROLLBACK PREPARED 'one';"),
        (|found| content(found).large_objects = 2, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata;"),
        (
            |found| content(found).objects.push(object("schema", "tenantry", "ada")),
            "ALTER SCHEMA tenantry RENAME TO",
        ),
        (
            |found| {
                content(found).objects.push(object("table", "app.\"Secret\"", "postgres"));
                content(found).owners.push(role("postgres", Reach::Superuser));
            },
            "ALTER TABLE app.\"Secret\" OWNER TO tenantry_owner;",
        ),
        (
            |found| {
                let (what, statement) = ("event trigger x".into(), "DROP EVENT TRIGGER x;".into());
                content(found).obstructions.push(Obstruction { what, statement });
            },
            "DROP EVENT TRIGGER x;",
        ),
    ];
    for (change, statement) in cases {
        let [found] = &blockers_after(change)[..] else {
            panic!("{statement}: {:?}", blockers_after(change))
        };
        assert!(found.contains(statement), "{found}");
    }
}

#[test]
fn database_of_postgresql_of_tenantry_or_of_another_tenant_is_never_taken() {
    for name in ["postgres", "template0", "template1", "tenantry_system", "tenantry_template_ab"] {
        let mut found = shop();
        found.name = name.into();
        assert!(!found.can_be_opened());
        assert_eq!(Report::of(&found, &intent()).blockers.len(), 1, "{name}");
    }
    let registry = blockers_after(|found| found.owner.name = "tenantry_admin".into());
    assert!(registry[0].contains("Tenantry's own"), "{registry:?}");
    let others = blockers_after(|found| {
        found.is_marked = true;
        found.comment = Some("tenantry:tenant:x".into());
    });
    assert!(others.len() == 1 && others[0].contains("another tenant's"), "{others:?}");
    // What is confirmed nevertheless is refused.
    let mut found = shop();
    found.is_marked = true;
    let report = Report::of(&found, &intent());
    let refusal = report.decide("shop", Some(&report.digest)).unwrap_err();
    assert!(matches!(refusal, TakeoverRefusal::Blocked { others: 0, .. }));
    assert_eq!(report.status(&found).digest, None);
}

#[test]
fn report_has_a_limited_size() {
    let many = blockers_after(|found| {
        let content = content(found);
        content.owners.push(role("postgres", Reach::Superuser));
        content.objects.extend((0..500).map(|n| object("table", &format!("app.t{n}"), "postgres")));
        let long = |n: usize| Obstruction { what: format!("publication {n}"), statement: "x".repeat(5000) };
        content.obstructions.extend((0..100).map(long));
    });
    assert!(many.len() > 100);
    let mut found = shop();
    content(&mut found).obstructions = (0..100)
        .map(|n| Obstruction { what: format!("publication {n}"), statement: "é".repeat(5000) })
        .collect();
    let status = Report::of(&found, &intent()).status(&found);
    assert_eq!(status.blockers.len(), 41);
    assert_eq!(status.blockers[40], "… and 60 more");
    assert!(status.blockers.iter().all(|line| line.len() < 410));
}

#[test]
fn consent_lists_names_or_patterns() {
    let allowed = |patterns: &[&str], name: &str| {
        allows(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>(), name)
    };
    assert!(!allowed(&[], "shop") && allowed(&["shop"], "shop") && !allowed(&["shop"], "shop2"));
    assert!(
        allowed(&["*"], "shop")
            && allowed(&["other", "shop_*"], "shop_a")
            && !allowed(&["shop_*"], "my_shop_a")
    );
    assert!(allowed(&["*_shop"], "a_shop") && allowed(&["a*b*c"], "aXbYbZc") && !allowed(&["a*b*c"], "aXc"));
    assert!(!allowed(&["ab*ba"], "aba") && allowed(&["ab*ba"], "abba") && !allowed(&["a?c"], "abc"));
}

#[test]
fn baseline_names_versions_that_exist() {
    let modules = [version("tenantry", 4), version("app", 12)];
    let wanted = |name: &str, version: &str| BTreeMap::from([(name.to_owned(), version.to_owned())]);
    assert_eq!(baseline_versions(&wanted("app", "12"), &modules, &[]), Ok(vec![version("app", 12)]));
    assert_eq!(
        baseline_versions(&wanted("wiki", "1"), &modules, &[]),
        Err(BaselineError::NoModule("wiki".into()))
    );
    let of_tools = ["app".to_owned()];
    assert_eq!(
        baseline_versions(&wanted("app", "12"), &modules, &of_tools),
        Err(BaselineError::OfTool("app".into()))
    );
    for wrong in ["13", "0", "x"] {
        assert!(matches!(
            baseline_versions(&wanted("app", wrong), &modules, &[]),
            Err(BaselineError::NoVersion { target: 12, .. })
        ));
    }
}

#[test]
fn structure_is_compared_with_the_baseline_and_with_the_rest() {
    let part = |kind, name: &str, table: Option<&str>| SchemaPart {
        kind,
        name: name.into(),
        table: table.map(Into::into),
        owner: Some("tenantry_owner".into()),
        definition: None,
    };
    let orders = part(PartKind::Table, "app.orders", None);
    let total = part(PartKind::Column, "total", Some("app.orders"));
    let meter =
        SchemaPart { definition: Some("true".into()), ..part(PartKind::Meter, "orders", Some("app.orders")) };
    let limits = part(PartKind::Table, "tenantry.limits", None);
    let settings = part(PartKind::Table, "public.settings", None);
    let recorded = [orders.clone(), total.clone(), meter, limits.clone()];
    let all = [&recorded[..], std::slice::from_ref(&settings)].concat();
    let compared = |found: &[SchemaPart]| {
        let mut intent = intent();
        intent.compare(&recorded, &all, found);
        (intent.missing, intent.collisions)
    };
    let owned = |part: &SchemaPart| SchemaPart { owner: Some("ada".into()), ..part.clone() };
    assert_eq!(compared(&[owned(&orders), total.clone()]), (vec![], vec![]));
    assert_eq!(compared(std::slice::from_ref(&orders)).0, ["column total on app.orders is missing"]);
    assert_eq!(compared(&[]).0, ["table app.orders is missing"]);
    // A view of the name blocks the table.
    let view = part(PartKind::View, "public.settings", None);
    assert_eq!(compared(&[orders, total, view]).1, ["table public.settings"]);
}

#[test]
fn undo_gives_each_object_to_its_former_owner() {
    let former = Former::of(&shop());
    assert_eq!((former.oid, former.owner.as_str()), (5, "ada"));
    assert_eq!(former.owner_of(1259, 1), "ada");
    assert_eq!(former.owner_of(1259, 77), "ada", "made since");
    assert_eq!(former.roles(), ["ada"]);
    let text = serde_json::to_string(&former).unwrap();
    assert_eq!(serde_json::from_str::<Former>(&text).unwrap(), former);
}
