//! Drift: how PostgreSQL differs from what should be in force for one tenant.
//!
//! There is one list of mismatches. The planner derives from it what has to be repaired, the drift check whether a
//! reconcile is needed, and `set_access` which level is in force, so that they cannot disagree.

mod check;
mod mismatch;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::{
    access::AccessLevel,
    observed::{BuildingFacts, DatabaseFacts, LoginFacts, ServerFacts},
    record::TenantRecord,
    rotation::{PreviousState, Rotation},
    tenant_facts::{
        DatabaseProperties, ForeignGrant, LoginProperties, OtherKind, OtherLogin, RecordedOids,
        SessionSetting, TenantFacts,
    },
    usage::entitlements::{Entitlements, reader_connections},
    workflow::step::Step,
};

pub use self::{
    check::{DriftCheck, REPORTED},
    mismatch::Mismatch,
};

/// What should be in force for a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The oids by which they are recognized when their comments are lost.
    pub recorded: RecordedOids,
    /// The access level.
    pub access: AccessLevel,
    /// The maximum number of sessions of the login; -1 for no limit.
    pub connections: i32,
    /// The time of the previous login is over.
    pub is_previous_over: bool,
}

impl Expected {
    /// What should be in force for a registered tenant at an access level.
    pub fn of(record: &TenantRecord, access: AccessLevel, rotation: &Rotation) -> Self {
        let connections = record.entitlements.as_ref().map_or(-1, Entitlements::connections);
        Self {
            recorded: RecordedOids::of(record),
            access,
            connections,
            is_previous_over: rotation.previous == PreviousState::Over,
        }
    }

    /// What proves or disproves a level. Connection limits are not part of it, nor whether the previous login may still exist.
    fn of_level(recorded: RecordedOids, access: AccessLevel) -> Self {
        Self { recorded, access, connections: -1, is_previous_over: false }
    }

    /// What should be in force for the reader login.
    fn of_reader(&self) -> Self {
        let connections = reader_connections(self.connections);
        Self { access: self.access.for_reader(), connections, ..*self }
    }
}

/// Every difference between what a server has of a tenant and what should be in force.
pub fn mismatches(facts: &TenantFacts, expected: &Expected) -> Vec<Mismatch> {
    let mut found = match (&facts.database, facts.own_database(expected.recorded)) {
        (None, _) => vec![Mismatch::DatabaseMissing],
        // The rights on another owner's database are not the tenant's.
        (Some(database), None) => vec![Mismatch::ForeignDatabase(database.name.clone())],
        (Some(_), Some(database)) => of_database(database, expected),
    };
    match (&facts.login, facts.own_login(expected.recorded)) {
        (None, _) => found.push(match facts.renamed_login(expected.recorded) {
            Some(renamed) => Mismatch::LoginRenamed(renamed.name.clone()),
            None => Mismatch::LoginMissing,
        }),
        (Some(_), None) => found.push(Mismatch::ForeignLogin),
        (Some(_), Some(login)) => found.extend(of_login(login, expected)),
    }
    found.extend(facts.others().flat_map(|other| of_other(other, expected)));
    let strays = facts.strays.iter().filter(|stray| stray.has_access && facts.login.is_some());
    let strays: Vec<String> = strays.map(|stray| stray.name.clone()).collect();
    if !strays.is_empty() {
        found.push(Mismatch::StrayLogins(strays));
    }
    let stuck = superuser_settings(facts, expected.recorded);
    if !stuck.is_empty() {
        found.push(Mismatch::SuperuserSettings(stuck));
    }
    found
}

/// The names of the settings that `tenantry_admin` may reset.
fn resettable(settings: &[SessionSetting]) -> Vec<String> {
    let found = settings.iter().filter(|setting| setting.resettable);
    let names: BTreeSet<&str> =
        found.map(|setting| setting.name.as_deref().unwrap_or("too large to be read")).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// The statements that reset the settings that only a superuser may reset.
fn superuser_settings(facts: &TenantFacts, recorded: RecordedOids) -> Vec<String> {
    let stuck = |setting: &&SessionSetting| !setting.resettable;
    let parameter = |setting: &SessionSetting| setting.name.clone().unwrap_or_else(|| "ALL".to_owned());
    let (database, login) = (facts.own_database(recorded), facts.own_login(recorded));
    let name = database.map_or("", |database| database.name.as_str());
    let of_database = database.iter().flat_map(|found| found.settings.iter()).filter(stuck);
    let of_database =
        of_database.map(|setting| format!("ALTER DATABASE \"{name}\" RESET {}", parameter(setting)));
    let of_login = login.iter().flat_map(|found| found.settings.iter().map(|setting| (&found.name, setting)));
    let of_login = of_login.filter(|(_, setting)| !setting.resettable).map(|(login, setting)| {
        let place = setting.database.as_ref().map(|name| format!(" IN DATABASE \"{name}\""));
        format!("ALTER ROLE \"{login}\"{} RESET {}", place.unwrap_or_default(), parameter(setting))
    });
    of_database.chain(of_login).collect()
}

/// The statements that revoke the memberships that only a superuser can revoke. One that gives the login the group of its
/// level, as Tenantry would, changes nothing.
fn superuser_grants(login: &LoginProperties, level: AccessLevel) -> Vec<String> {
    let is_level = |grant: &&ForeignGrant| {
        grant.plain && grant.member == login.name && level.group() == Some(grant.role.as_str())
    };
    let excess = login.foreign_grants.iter().filter(|grant| !is_level(grant));
    excess
        .map(|ForeignGrant { role, member, grantor, .. }| {
            format!("REVOKE \"{role}\" FROM \"{member}\" GRANTED BY \"{grantor}\" CASCADE")
        })
        .collect()
}

fn of_database(database: &DatabaseProperties, expected: &Expected) -> Vec<Mismatch> {
    let may_connect = expected.access > AccessLevel::Blocked;
    let name = || database.name.clone();
    let limit = database.connection_limit;
    let checks = [
        (!database.ownership.is_ours(), Mismatch::DatabaseComment),
        (!database.owned_by_dba, Mismatch::DatabaseOwner(name())),
        (database.drop_interrupted, Mismatch::DropInterrupted(name())),
        (!database.allow_connections, Mismatch::DatabaseClosed),
        // The limit of an interrupted DROP cannot be changed.
        (limit != -1 && !database.drop_interrupted, Mismatch::DatabaseConnectionLimit(limit)),
        (database.is_template, Mismatch::DatabaseTemplate),
        (database.settings.iter().any(|found| found.resettable), {
            Mismatch::DatabaseSettings(resettable(&database.settings))
        }),
        (database.open_to_public, Mismatch::PublicRights),
        (database.login_may_connect && !may_connect, Mismatch::ConnectGranted),
        (!database.login_may_connect && may_connect, Mismatch::ConnectMissing),
    ];
    checks.into_iter().filter(|(differs, _)| *differs).map(|(_, mismatch)| mismatch).collect()
}

fn of_login(login: &LoginProperties, expected: &Expected) -> Vec<Mismatch> {
    let may_log_in = expected.access > AccessLevel::Blocked;
    let groups: Vec<&str> = expected.access.group().into_iter().collect();
    let granted_elsewhere = |grant: &ForeignGrant| {
        grant.plain && grant.member == login.name && groups.contains(&grant.role.as_str())
    };
    let has_group = login.groups == groups
        || login.groups.is_empty() && login.foreign_grants.iter().any(granted_elsewhere);
    let shown = || login.groups.iter().chain(&login.flawed_groups).cloned().collect();
    let stuck = superuser_grants(login, expected.access);
    let (found, connections) = (login.connection_limit, expected.connections);
    let checks = [
        (!login.ownership.is_ours(), Mismatch::LoginComment),
        (!login.can_login && may_log_in, Mismatch::LoginDisabled),
        (login.can_login && !may_log_in, Mismatch::LoginEnabled),
        (!login.inherits, Mismatch::LoginWithoutInherit),
        (login.valid_until.is_some(), Mismatch::LoginExpires(login.valid_until.clone().unwrap_or_default())),
        (login.settings.iter().any(|found| found.resettable), {
            Mismatch::LoginSettings(resettable(&login.settings))
        }),
        (!has_group || !login.flawed_groups.is_empty(), Mismatch::Groups(shown())),
        (!stuck.is_empty(), Mismatch::SuperuserGrants(stuck)),
        (
            !login.foreign_memberships.is_empty(),
            Mismatch::ForeignMemberships(login.foreign_memberships.clone()),
        ),
        (!login.foreign_members.is_empty(), Mismatch::ForeignMembers(login.foreign_members.clone())),
        (login.may_create, Mismatch::CreateAttributes),
        (login.has_superuser_attributes, Mismatch::SuperuserAttributes(login.name.clone())),
        (login.is_out_of_reach, Mismatch::OutOfReach(login.name.clone())),
        (found != connections, Mismatch::LoginConnectionLimit { found, expected: connections }),
        (login.is_revocation_unproven, Mismatch::RevocationUnproven),
    ];
    checks.into_iter().filter(|(differs, _)| *differs).map(|(_, mismatch)| mismatch).collect()
}

/// The mismatches of another login of the tenant. A previous login should be as the login is, or not exist any more; the reader
/// login has a level of its own.
fn of_other(other: &OtherLogin, expected: &Expected) -> Vec<Mismatch> {
    let name = other.name.clone();
    let wrap = |mismatch| match other.kind {
        OtherKind::Previous => Mismatch::OfPreviousLogin(name.clone(), Box::new(mismatch)),
        OtherKind::Reader => Mismatch::OfReaderLogin(name.clone(), Box::new(mismatch)),
    };
    let Some(role) = other.own_role(expected.recorded) else {
        return vec![wrap(Mismatch::LoginMissing)];
    };
    let expected = match other.kind {
        OtherKind::Previous if expected.is_previous_over => {
            return vec![Mismatch::PreviousLoginOver(name)];
        }
        OtherKind::Previous => *expected,
        OtherKind::Reader => expected.of_reader(),
    };
    let may_connect = expected.access > AccessLevel::Blocked;
    let connect = match (other.may_connect, may_connect) {
        (true, false) => Some(Mismatch::ConnectGranted),
        (false, true) => Some(Mismatch::ConnectMissing),
        (true, true) | (false, false) => None,
    };
    of_login(role, &expected).into_iter().chain(connect).map(wrap).collect()
}

/// What the planner reads of a server, derived from the mismatches.
pub fn server_facts(facts: &TenantFacts, expected: &Expected) -> ServerFacts {
    let found = mismatches(facts, expected);
    let is_enforced = found.iter().all(|mismatch| mismatch.repaired_by() != Some(Step::EnforceAccess));
    let other =
        |other: &Option<OtherLogin>| match other.as_ref().and_then(|other| other.own_role(expected.recorded))
        {
            None => LoginFacts::Absent,
            Some(role) => LoginFacts::Ours {
                can_login: role.can_login,
                access_current: is_enforced,
                connections: role.connection_limit,
            },
        };
    ServerFacts {
        database: match &facts.database {
            None => DatabaseFacts::Absent,
            Some(_) if facts.own_database(expected.recorded).is_some() => DatabaseFacts::Ours,
            Some(_) => DatabaseFacts::Foreign,
        },
        building: facts.building.as_ref().map_or(BuildingFacts::Absent, building_facts),
        login: match (&facts.login, facts.own_login(expected.recorded)) {
            (None, _) if facts.renamed_login(expected.recorded).is_some() => LoginFacts::Renamed,
            (None, _) => LoginFacts::Absent,
            (Some(_), None) => LoginFacts::Foreign,
            (Some(_), Some(login)) => LoginFacts::Ours {
                can_login: login.can_login,
                access_current: is_enforced,
                connections: login.connection_limit,
            },
        },
        previous: other(&facts.previous),
        reader: other(&facts.reader),
        exceeds_level: found.iter().any(|mismatch| {
            mismatch.grants_access()
                && matches!(mismatch.repaired_by(), Some(Step::EnforceAccess | Step::CreateRoles))
        }),
        unrepairable: found.into_iter().filter(|mismatch| mismatch.repaired_by().is_none()).collect(),
    }
}

fn building_facts(building: &DatabaseProperties) -> BuildingFacts {
    let is_ready = building.ownership.is_ours()
        && !building.open_to_public
        && !building.drop_interrupted
        && building.allow_connections;
    if is_ready { BuildingFacts::Ready } else { BuildingFacts::Incomplete }
}

/// The access level in force. None if the rights match no level, include rights from elsewhere, or a revocation is unproven.
pub fn access_in_force(facts: &TenantFacts, recorded: RecordedOids) -> Option<AccessLevel> {
    AccessLevel::ALL.into_iter().find(|&level| contradictions(facts, recorded, level).next().is_none())
}

/// The mismatches that prove that a level is not in force.
pub fn contradictions(
    facts: &TenantFacts,
    recorded: RecordedOids,
    access: AccessLevel,
) -> impl Iterator<Item = Mismatch> {
    let expected = Expected::of_level(recorded, access);
    mismatches(facts, &expected).into_iter().filter(move |mismatch| mismatch.contradicts(access))
}

/// Whether a tenant that should be `Blocked` can still be reached, by a login or a database that is its own.
pub fn is_reachable(facts: &TenantFacts, recorded: RecordedOids) -> bool {
    let expected = Expected::of_level(recorded, AccessLevel::Blocked);
    let is_closed = facts.own_database(recorded).is_some_and(|database| !database.allow_connections);
    let has_other = facts.others().any(|other| other.own_role(recorded).is_some());
    (facts.own_login(recorded).is_some() || has_other || !facts.strays.is_empty())
        && mismatches(facts, &expected)
            .iter()
            .any(|mismatch| mismatch.grants_access() && !(is_closed && *mismatch == Mismatch::PublicRights))
}
