//! Reports of a login that should stay usable.

use jiff::{SignedDuration, Timestamp};

use super::*;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn login() -> FoundLogin {
    let (name, sql) = ("web".to_owned(), "web".to_owned());
    FoundLogin { oid: 9, name, sql, connection_limit: -1, is_changeable: true, ..FoundLogin::default() }
}

/// The report of a database whose login `web` should stay until so many hours from now.
fn report(hours: i64, change: impl FnOnce(&mut FoundDatabase, &mut Intent)) -> Report {
    let (mut found, mut intent) = (shop(), intent());
    found.login = Some(login());
    let until = NOW + SignedDuration::from_hours(hours);
    intent.kept = Some(KeptLogin { name: "web".into(), until, now: NOW });
    change(&mut found, &mut intent);
    Report::of(&found, &intent)
}

fn of_login(change: impl FnOnce(&mut FoundLogin)) -> Vec<String> {
    report(24, |found, _| change(found.login.as_mut().unwrap())).blockers
}

#[test]
fn kept_login_is_named_in_the_changes() {
    let kept = report(24, |found, _| {
        let login = found.login.as_mut().unwrap();
        (login.comment, login.connection_limit) = (Some("the web server".into()), 9);
        let grantee = Grantee { role: "web".into(), objects: 3 };
        content(found).grantees.push(grantee);
    });
    assert_eq!(kept.blockers, Vec::<String>::new());
    let all = kept.changes.join("\n");
    for expected in [
        "only the new login shop_app, in the Secret of the Tenant, can connect from then on, beside web,",
        "login web works until 2027-01-16T08:00:00Z",
        "is not dropped",
        "role web: its comment \"the web server\" is replaced",
        "role web: CONNECTION LIMIT 9 is replaced",
        "rights of web on 3 objects are revoked: it has those of its access level",
    ] {
        assert!(all.contains(expected), "{expected}\n{all}");
    }
    // The time that passes is no part of the report, the date is.
    let later = report(24, |_, intent| intent.kept.as_mut().unwrap().now += SignedDuration::from_secs(5));
    assert_eq!(later.digest, report(24, |_, _| ()).digest);
    assert_ne!(report(25, |_, _| ()).digest, later.digest);
    assert_ne!(report(24, |_, intent| intent.kept = None).digest, later.digest);
}

#[test]
fn date_is_in_the_next_ninety_days() {
    for (hours, message) in [(0, "is over"), (-1, "is over"), (90 * 24 + 1, "more than 90 days away")] {
        let blockers = report(hours, |_, _| ()).blockers;
        assert!(blockers.len() == 1 && blockers[0].contains(message), "{hours}: {blockers:?}");
    }
    for hours in [1, 90 * 24] {
        assert_eq!(report(hours, |_, _| ()).blockers, Vec::<String>::new());
    }
}

#[test]
fn login_that_is_more_than_a_login_of_one_database_is_not_kept() {
    let elsewhere = |what: &str| Obstruction { what: what.into(), statement: "REVOKE x;".into() };
    let named =
        |name: &str| report(24, |_, intent| intent.kept.as_mut().unwrap().name = name.into()).blockers;
    for (blockers, expected) in [
        (report(24, |found, _| found.login = None).blockers, "\"web\", which does not exist"),
        (of_login(|login| login.is_marked = true), "give the name of the role"),
        (
            of_login(|login| login.attributes = vec!["SUPERUSER".into(), "NOLOGIN".into()]),
            "ALTER ROLE web NOSUPERUSER LOGIN;",
        ),
        (of_login(|login| login.valid_until = Some("2030".into())), "ALTER ROLE web VALID UNTIL 'infinity';"),
        (of_login(|login| login.settings = vec![elsewhere("search_path")]), "(search_path). Set them in"),
        (of_login(|login| login.is_changeable = false), "GRANT web TO tenantry_admin WITH ADMIN TRUE"),
        (of_login(|login| login.member_of = vec!["staff".into()]), "run: REVOKE staff FROM web;"),
        (of_login(|login| login.members = vec!["ada".into()]), "run: REVOKE web FROM ada;"),
        (of_login(|login| login.elsewhere = vec![elsewhere("rights on database b")]), "run: REVOKE x;"),
        (named("shop_app"), "Rename it: ALTER ROLE \"shop_app\" RENAME TO"),
        (named("shop_b"), "now or by a rotation"),
        (named("shop_migrate"), "now or by a rotation"),
    ] {
        assert!(blockers.len() == 1 && blockers[0].contains(expected), "{expected}: {blockers:?}");
    }
}

#[test]
fn undo_knows_what_the_login_was() {
    let mut found = shop();
    found.login = Some(FoundLogin { comment: Some("c".into()), connection_limit: 9, ..login() });
    content(&mut found).objects[1].login = vec!["SELECT".into()];
    let former = Former::of(&found);
    let was = former.login.clone().unwrap();
    assert_eq!((was.name.as_str(), was.connection_limit, was.comment.as_deref()), ("web", 9, Some("c")));
    assert!(former.roles().contains(&"web".to_owned()));
    assert_eq!(former.objects[1].login, ["SELECT"]);
    // What an earlier release recorded has none.
    let json = serde_json::to_value(Former::of(&shop())).unwrap();
    assert!(json.get("login").is_none());
    assert_eq!(serde_json::from_value::<Former>(json).unwrap().login, None);
}
