//! The application's former login, which stays usable until a date: what was found of it, and what stands against keeping it.
//!
//! From the takeover on it is the tenant's previous login. So it has to be as Tenantry makes logins already: what an undo would
//! have to restore is a blocker, as is whatever reaches beyond the one database.

use jiff::{SignedDuration, Timestamp};

use super::found::{FoundDatabase, FoundLogin};
use super::intent::Intent;
use crate::domain::names::{migration_login_name, next_login_name};

/// The longest time for which a login is kept: an application that has not read its Secret for a quarter of a year will not.
const LONGEST: SignedDuration = SignedDuration::from_hours(90 * 24);

/// What stands against keeping the login; nothing, if none should be kept.
pub(super) fn of_kept_login(found: &FoundDatabase, intent: &Intent) -> Vec<String> {
    let Some(kept) = &intent.kept else { return Vec::new() };
    let (name, until) = (&kept.name, kept.until);
    let mut lines = Vec::new();
    if until <= kept.now {
        lines.push(format!(
            "spec.adopt.keepLogin.until, {until:.0}, is over: give a later time, or remove keepLogin"
        ));
    } else if until > kept.now.saturating_add(LONGEST).unwrap_or(Timestamp::MAX) {
        lines.push(format!(
            "spec.adopt.keepLogin.until, {until:.0}, is more than 90 days away: give an earlier time"
        ));
    }
    let next = next_login_name(&found.name, &intent.login);
    if [&intent.login, &next, &migration_login_name(&found.name)].contains(&name) {
        lines.push(format!(
            "spec.adopt.keepLogin names {name:?}, which is the name of a login that the tenant gets, now or by a rotation. Rename it: ALTER ROLE \"{}\" RENAME TO …;",
            name.replace('"', "\"\"")
        ));
        return lines;
    }
    match &found.login {
        None => lines.push(format!(
            "spec.adopt.keepLogin names role {name:?}, which does not exist: give the name of the role with which the application connects"
        )),
        Some(login) if login.is_marked => lines.push(format!(
            "role {name:?} is PostgreSQL's or Tenantry's own, or a tenant's, and is not kept: give the name of the role with which the application connects"
        )),
        Some(login) => lines.extend(of_role(login)),
    }
    lines
}

fn of_role(login: &FoundLogin) -> Vec<String> {
    let (name, sql) = (&login.name, &login.sql);
    let mut lines = Vec::new();
    if let Some(attributes) = (!login.attributes.is_empty()).then(|| login.attributes.join(" ")) {
        let changed: Vec<String> = login.attributes.iter().map(|attribute| opposite(attribute)).collect();
        lines.push(format!(
            "role {name} has {attributes}, which no tenant's login has. As a superuser, run: ALTER ROLE {sql} {};",
            changed.join(" ")
        ));
    }
    if let Some(until) = &login.valid_until {
        lines.push(format!(
            "the password of role {name} has an end of its own, {until}, which no tenant's login has. Run: ALTER ROLE {sql} VALID UNTIL 'infinity';"
        ));
    }
    lines.extend(login.settings.iter().map(|found| {
        format!(
            "role {name} has settings of its own, which no tenant's login has ({}). Set them in the application, then run: {}",
            found.what, found.statement
        )
    }));
    if !login.is_changeable {
        lines.push(format!(
            "the operator may not change role {name}, and could not restrict it. As a role with ADMIN OPTION on it, or a superuser, run: GRANT {sql} TO tenantry_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;"
        ));
    }
    for role in &login.member_of {
        lines.push(format!(
            "role {name} is a member of {role}, and has its rights. As a superuser, or the role that granted it, run: REVOKE {role} FROM {sql};"
        ));
    }
    for role in &login.members {
        lines.push(format!(
            "{role} is a member of role {name}, and would have the tenant's rights. As a superuser, or the role that granted it, run: REVOKE {sql} FROM {role};"
        ));
    }
    lines.extend(login.elsewhere.iter().map(|found| {
        format!(
            "role {name} has {}, and would be used by more than one tenant's application. Give what uses that a role of its own, then run: {}",
            found.what, found.statement
        )
    }));
    lines
}

/// The attribute that takes one away.
fn opposite(attribute: &str) -> String {
    attribute.strip_prefix("NO").map_or_else(|| format!("NO{attribute}"), str::to_owned)
}

/// What keeping the login changes.
pub(super) fn kept_changes(found: &FoundDatabase, intent: &Intent) -> Vec<String> {
    let (Some(kept), Some(login)) = (&intent.kept, &found.login) else { return Vec::new() };
    let name = &kept.name;
    let mut lines = vec![format!(
        "login {name} works until {:.0}, with its password and the rights and limits of {}: it owns nothing and creates nothing; then its sessions end, and it loses LOGIN and its rights on the database, and is not dropped",
        kept.until, intent.login
    )];
    if let Some(comment) = &login.comment {
        lines.push(format!("role {name}: its comment {comment:?} is replaced by one that names the tenant"));
    }
    if login.connection_limit > -1 {
        lines.push(format!(
            "role {name}: CONNECTION LIMIT {} is replaced by that of the plan",
            login.connection_limit
        ));
    }
    lines
}
