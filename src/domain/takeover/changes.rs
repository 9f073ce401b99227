//! What a takeover changes, in sentences.

use std::collections::BTreeMap;

use super::found::{DBA, DatabaseContent, FoundDatabase, Reach, alter_keyword, new_owner};
use super::intent::Intent;
use super::kept::kept_changes;

/// Everything that would change.
pub(super) fn changes(found: &FoundDatabase, intent: &Intent) -> Vec<String> {
    let mut lines = Vec::new();
    let name = &found.name;
    if found.owner.reach != Reach::Ours {
        lines.push(format!("database {name}: the owner becomes {DBA} instead of {}", found.owner.name));
    }
    if let Some(comment) = &found.comment {
        lines.push(format!(
            "database {name}: its comment {comment:?} is replaced by one that names the tenant"
        ));
    }
    if !found.rights.is_empty() {
        let who: Vec<String> = found
            .rights
            .iter()
            .map(|rights| {
                format!("{} ({})", rights.role.as_deref().unwrap_or("PUBLIC"), rights.privileges.join(", "))
            })
            .collect();
        lines.push(format!("database {name}: these lose their rights on it: {}", who.join(", ")));
    }
    lines.push(format!(
        "only the new login {}, in the Secret of the Tenant, can connect from then on{}, with the rights of any tenant: it owns nothing and creates nothing",
        intent.login,
        intent.kept.as_ref().map_or_else(String::new, |kept| format!(", beside {}", kept.name))
    ));
    lines.extend(kept_changes(found, intent));
    if !found.sessions.is_empty() {
        lines.push(format!("open sessions end: those of {}", found.sessions.join(", ")));
    }
    if found.connection_limit > -1 {
        lines.push(format!(
            "database {name}: CONNECTION LIMIT {} is removed; the plan limits the login",
            found.connection_limit
        ));
    }
    if !found.settings.is_empty() {
        lines.push(format!(
            "database {name}: its settings are reset ({}): set them in the application",
            found.settings.join(", ")
        ));
    }
    lines.extend(found.content.iter().flat_map(|content| of_content(content, intent)));
    lines.push("schema tenantry is created: the migration ledger, the limits and their counters, which begin with the rows that exist".to_owned());
    lines.extend(of_modules(intent));
    lines.push(format!("it stays in {} with {}, as it is; its name stays", found.encoding, found.locale));
    lines.push(format!(
        "once the tenant is active, database {name} is a tenant's as any other: deleting the Tenant revokes the access at once, and drops the database when the grace period ends, unless deletionPolicy is Retain; until then, an undo gives it back"
    ));
    lines
}

fn of_content(content: &DatabaseContent, intent: &Intent) -> Vec<String> {
    let mut lines = Vec::new();
    let mut by_owner: BTreeMap<(&str, &str), BTreeMap<&str, usize>> = BTreeMap::new();
    for object in &content.objects {
        let is_ours =
            content.owners.iter().any(|role| role.name == object.owner && role.reach == Reach::Ours);
        if !is_ours && alter_keyword(&object.kind).is_some() {
            let kinds = by_owner.entry((&object.owner, new_owner(&object.kind))).or_default();
            *kinds.entry(&object.kind).or_default() += 1;
        }
    }
    for ((from, to), kinds) in by_owner {
        let kinds: Vec<String> =
            kinds.iter().map(|(kind, count)| format!("{count} of kind {kind}")).collect();
        lines.push(format!("objects of {from}: the owner becomes {to} ({})", kinds.join(", ")));
    }
    for grantee in &content.grantees {
        let effect = match grantee.role.as_str() {
            role if intent.kept.as_ref().is_some_and(|kept| kept.name == role) => {
                "are revoked: it has those of its access level"
            }
            "PUBLIC" => "are revoked where a tenant's login would have more by them than by its access level",
            _ => "have no effect any more, since the role cannot connect",
        };
        lines.push(format!("rights of {} on {} objects {effect}", grantee.role, grantee.objects));
    }
    for extension in &content.extensions {
        let (name, version, owner) = (&extension.name, &extension.version, &extension.owner);
        lines.push(format!("extension {name} {version} stays as it is, with its owner {owner}"));
    }
    lines
}

fn of_modules(intent: &Intent) -> Vec<String> {
    let recorded = |name: &str| intent.baseline.iter().find(|module| module.name == name);
    let lines = intent.modules.iter().map(|module| match recorded(&module.name) {
        Some(known) if known.version == module.version => {
            format!(
                "module {}: recorded as applied up to {}, without running anything",
                module.name, known.version
            )
        }
        Some(known) => format!(
            "module {}: recorded as applied up to {}, without running anything; then {} to {} are applied",
            module.name,
            known.version,
            known.version + 1,
            module.version
        ),
        None if intent.of_tools.contains(&module.name) => {
            format!(
                "module {}: its own tool or pipeline applies its migrations once the tenant is active",
                module.name
            )
        }
        None => format!("module {}: applied from 1 to {}", module.name, module.version),
    });
    lines.collect()
}
