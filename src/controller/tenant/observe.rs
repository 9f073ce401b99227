//! Reads what there is: the registry's row, the server's catalogues (one query), the Secret. Nothing is written.

use std::{sync::Arc, time::Duration};

use kube::ResourceExt;
use tokio::time::timeout;

use super::{
    secrets::{self, Connection},
    visit::Visit,
};
use crate::{
    api::{LABEL_TENANT_ID, tenant::Tenant, tenant_status::ModuleStatus},
    controller::{
        context::{Context, SharedContext},
        servers::Standing,
    },
    domain::{
        access::AccessLevel,
        desired,
        limits::Entitlements,
        modules::belongs,
        observed::{
            BuildingFacts, DatabaseFacts, LoginFacts, Observation, Observed, RegistryFacts, RegistryStatus,
            SecretFacts, ServerFacts,
        },
    },
    postgres::{
        self,
        drift::Known,
        inventory::TenantFacts,
        mark::Mark,
        modules::{ModuleSet, ModuleVersion},
        server::Server,
    },
    registry::{self, TenantRow},
};

/// How long the registry may take to answer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What one look found.
pub struct Seen {
    /// For the plan.
    pub observed: Observed,
    /// For the steps.
    pub server: Option<Server>,
    /// The server is unknown because its `DatabaseServer` is not ready.
    pub not_ready: bool,
}

/// Looks at everything that the plan needs. The row is left in the visit.
pub async fn observe(visit: &mut Visit<'_>, context: &SharedContext) -> Seen {
    let unseen = |registry| Seen {
        observed: Observed { registry, server: Observation::Absent, connection_secret: SecretFacts::Absent },
        server: None,
        not_ready: false,
    };
    if visit.row.is_none() {
        match row(visit.tenant, context).await {
            Ok(Some(row)) => visit.row = Some(row),
            Ok(None) => return standing_first(visit, context, unseen(Observation::Absent)),
            Err(error) => {
                visit.unseen = Some(error.reason());
                return unseen(Observation::Unknown(error.to_string()));
            }
        }
    }
    visit.judge(context);
    let Some(row) = &visit.row else { return unseen(Observation::Absent) };
    let registry = Observation::Known(registry_facts(row, visit, context));
    if row.status == RegistryStatus::Deprovisioned {
        return unseen(registry);
    }
    let wanted = visit.wanted_access();
    let (server, facts, not_ready) = match context.servers.get(&row.server) {
        Standing::Ready(server) => {
            let facts = match server_facts(&server, row, context).await {
                Ok(facts) => {
                    if row.status.was_active() && !visit.is_leaving() {
                        visit.drift = facts.differences(wanted, known(row), connections(row));
                    }
                    Observation::Known(domain_facts(&facts, wanted, row))
                }
                Err(error) => {
                    if error.is_unreachable() {
                        context.servers.suspect(&row.server);
                    }
                    visit.unseen = Some(error.reason());
                    Observation::Unknown(error.to_string())
                }
            };
            (Some(server), facts, false)
        }
        Standing::NotReady { message, .. } => (None, Observation::Unknown(message), true),
        Standing::Unvisited => {
            (None, Observation::Unknown(format!("DatabaseServer {:?} was not visited yet", row.server)), true)
        }
    };
    let connection_secret = secret_facts(visit, row, server.as_ref(), context);
    Seen { observed: Observed { registry, server: facts, connection_secret }, server, not_ready }
}

/// Before anything is registered for a new tenant, its server must have passed the preflight.
fn standing_first(visit: &Visit<'_>, context: &SharedContext, seen: Seen) -> Seen {
    let Some(desired) = &visit.desired else { return seen };
    let why = match context.servers.get(&desired.server) {
        Standing::Ready(_) => return seen,
        Standing::NotReady { message, .. } => message,
        Standing::Unvisited => format!("DatabaseServer {:?} was not visited yet", desired.server),
    };
    let observed = Observed { server: Observation::Unknown(why), ..seen.observed };
    Seen { observed, not_ready: true, ..seen }
}

/// The Tenant's row: from the bulk reading while that is good, else by one query.
pub async fn row(tenant: &Tenant, context: &SharedContext) -> Result<Option<TenantRow>, registry::Error> {
    let uid = tenant.uid().unwrap_or_default();
    if let Some(row) = context.bulk.row(&uid) {
        return Ok(Some(row));
    }
    let namespace = tenant.namespace().unwrap_or_default();
    let name = tenant.name_any();
    let row = context.registry.by_resource(&namespace, &name, &uid);
    // A connection that is lost without a word would keep the tenant's turn for ever.
    timeout(LIMIT, row).await.unwrap_or(Err(registry::Error::NoAnswer))
}

async fn server_facts(
    server: &Server,
    row: &TenantRow,
    context: &SharedContext,
) -> Result<TenantFacts, postgres::Error> {
    if let Some(facts) = context.bulk.facts(row) {
        return Ok(facts);
    }
    server.observe(row.id, &row.database_name, &row.login_name).await
}

fn registry_facts(row: &TenantRow, visit: &Visit<'_>, context: &SharedContext) -> RegistryFacts {
    let standing = visit.standing.as_ref();
    let declared_current = visit.desired.as_ref().is_none_or(|desired| {
        row.name == desired.display_name
            && standing.is_none_or(|standing| row.gates == standing.gates)
            && row.settings == serde_json::json!(desired.settings)
            && row.retain == desired.retain
    });
    RegistryFacts {
        status: row.status,
        seed_digest: row.seed_digest.clone(),
        modules_current: row.module_versions
            == versions(&modules_of(row, visit.entitlements.as_ref(), context)),
        declared_current,
        plan_current: visit.entitlements.is_none() || row.entitlements == visit.entitlements,
        plan_recorded: row.entitlements.is_some(),
        has_verifier: row.password_verifier.is_some(),
        database_recorded: row.database_exists,
        handed_out: row.activated_at.is_some(),
        access_recorded: row.access == Some(visit.wanted_access()),
        recorded_access: row.access,
        state_current: standing
            .is_none_or(|standing| row.status == standing.state && row.status_reason == standing.why()),
        tombstone: row.terms(),
        departed_at: row.deprovisioned_at,
        purging: row.purge_started_at.is_some(),
        rolling_back: row.rolling_back,
    }
}

/// The oids by which what is the tenant's is known when its marks are lost.
pub fn known(row: &TenantRow) -> Known {
    Known { database: row.database_oid, login: row.login_oid }
}

/// The most sessions of a tenant's login, as it was put in force.
pub fn connections(row: &TenantRow) -> i32 {
    row.entitlements.as_ref().map_or(-1, Entitlements::connections)
}

/// The server's facts in the words of the plan. `wanted` is the access level that should be in force.
fn domain_facts(facts: &TenantFacts, wanted: AccessLevel, row: &TenantRow) -> ServerFacts {
    let known = known(row);
    ServerFacts {
        database: match &facts.database {
            None => DatabaseFacts::Absent,
            Some(_) if facts.has_own_database(known) => DatabaseFacts::Ours,
            Some(_) => DatabaseFacts::Foreign,
        },
        building: match &facts.building {
            None => BuildingFacts::Absent,
            Some(building)
                if building.mark == Mark::Ours
                    && !building.open_to_public
                    && !building.drop_interrupted
                    && building.allow_connections
                    && building.migrator_may_connect =>
            {
                BuildingFacts::Ready
            }
            Some(_) => BuildingFacts::Incomplete,
        },
        login: match &facts.login {
            None => LoginFacts::Absent,
            Some(login) if facts.has_own_login(known) => LoginFacts::Ours {
                can_login: login.can_login,
                access_current: facts.own_access(known) == Some(wanted) && !facts.has_lost_mark(known),
                connections: login.connection_limit,
            },
            Some(_) => LoginFacts::Foreign,
        },
    }
}

fn secret_facts(
    visit: &Visit<'_>,
    row: &TenantRow,
    server: Option<&Server>,
    context: &SharedContext,
) -> SecretFacts {
    let namespace = visit.tenant.namespace().unwrap_or_default();
    let name = desired::connection_secret_name(visit.tenant);
    let Some(secret) = context.scopes.secret(&namespace, &name) else {
        return SecretFacts::Absent;
    };
    if secret.labels().get(LABEL_TENANT_ID) != Some(&row.id.to_string()) {
        return SecretFacts::Absent;
    }
    let as_written = |server: &Server| {
        secrets::password(&secret).is_some_and(|password| {
            let connection =
                Connection { tenant: visit.tenant, row, login: &row.login_name, password: &password, server };
            connection.secret(&name, context).data == secret.data
        })
    };
    if secrets::holds_password_of(&secret, row, &context.installation) && server.is_none_or(as_written) {
        SecretFacts::Current
    } else {
        SecretFacts::Stale
    }
}

/// The modules that a tenant is to have: those of its plan as it is `given` now, or was last; and those that it has,
/// since what they hold is the customer's.
pub fn modules_of(row: &TenantRow, given: Option<&Entitlements>, context: &Context) -> Arc<ModuleSet> {
    let named = given.or(row.entitlements.as_ref()).map_or(&[][..], |given| &given.modules);
    let recorded = recorded_versions(row);
    let has = |name: &str| recorded.iter().any(|module| module.name == name);
    context.modules.of(|name| belongs(name, named) || has(name))
}

/// The versions of the modules that a tenant has, as they are recorded.
pub fn recorded_versions(row: &TenantRow) -> Vec<ModuleVersion> {
    serde_json::from_value(row.module_versions.clone()).unwrap_or_default()
}

/// Module versions as the registry keeps them.
pub fn versions(modules: &ModuleSet) -> serde_json::Value {
    serde_json::json!(modules.targets())
}

/// The tenant's modules for its status: recorded versions beside the target ones.
pub fn module_statuses(visit: &Visit<'_>, context: &Context) -> Vec<ModuleStatus> {
    let Some(row) = &visit.row else { return Vec::new() };
    let recorded = recorded_versions(row);
    let version =
        |name: &str| recorded.iter().find(|module| module.name == name).map_or(0, |module| module.version);
    let targets = modules_of(row, visit.entitlements.as_ref(), context).targets();
    targets
        .iter()
        .map(|module| ModuleStatus {
            name: module.name.clone(),
            version: i64::from(version(&module.name)),
            target: i64::from(module.version),
        })
        .collect()
}
