//! The preflight: connects, compares the rights with those needed, creates the shared roles, and reads everything once. A
//! fault of the server is a result, not an error: the conditions report it.

use super::configuration::{ConfigurationError, configuration};
use crate::{
    api::{
        ANNOTATION_ACCEPT_SERVER,
        conditions::{ConditionStatus, PRIVILEGED, REACHABLE},
        database_server::DatabaseServer,
        reason::Reason,
    },
    controller::{
        context::Context,
        state::servers::ServerState,
        watch::requeue::{requeue_tenants_on, tenants_on},
    },
    postgres::{
        self,
        install::{
            preflight::{Preflight, StaleCollations},
            rights::MissingRight,
        },
        server::Server,
    },
    registry::{self, ServerIdentity, ServerMatch},
};
use kube::{Resource, ResourceExt};
use tracing::{info, warn};

const REMEDY: &str = "run `tenantry server-setup` as an administrator";

/// It is no right, and PostgreSQL's default.
const NOTHING_RESERVED: &str = "; the server reserves no connections for the operator (reserved_connections, from \
                                PostgreSQL 16 on): keep the sum of the tenants' connection limits below max_connections";

/// Reasons for which only new tenants cannot be created.
const WITHOUT_NEW_TENANTS: [Reason; 6] = [
    Reason::TemplateBroken,
    Reason::ReadOnlyServer,
    Reason::CollationMismatch,
    Reason::EncodingMismatch,
    // Of a module that is on by default.
    Reason::MigrationFailed,
    Reason::ExtensionNotFound,
];

/// One condition.
pub struct Finding {
    /// The condition type.
    pub type_: &'static str,
    /// Its status.
    pub status: ConditionStatus,
    /// Its reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// The result of a check.
pub struct CheckResult {
    /// PostgreSQL's version, once connected.
    pub version: Option<String>,
    /// `Reachable` and `Privileged`.
    pub findings: Vec<Finding>,
    /// The server, if it may take tenants.
    pub server: Option<Server>,
    /// Whether only a person can repair it.
    pub permanent: bool,
}

/// Checks a server. While its configuration stays the same, the handle in use stays, with its sessions.
pub async fn preflight(
    resource: &DatabaseServer,
    in_use: &ServerState,
    context: &Context,
) -> Result<CheckResult, registry::Error> {
    let config = match configuration(resource, context).await {
        Ok(config) => config,
        Err(error) => return Ok(refused_configuration(&error)),
    };
    let (server, known) = match in_use {
        ServerState::Ready(server) if *server.config() == config => (server.clone(), true),
        ServerState::Ready(_) | ServerState::NotReady { .. } | ServerState::Unchecked => {
            (Server::fenced(config, context.leader.fence.clone()), false)
        }
    };
    match check(resource, server, known, context).await {
        Ok(result) => Ok(result),
        Err(CheckError::Server(error)) => Ok(refused(&error, resource, context)),
        Err(CheckError::Registry(error)) => Err(error),
    }
}

/// What a server with another timeline or identifier went through.
const RESTORED_OR_FAILED_OVER: &str = "failed over, was restored, or was replaced on purpose";

/// Reports that a server may be in another state than it was, and requests the verification of its tenants, which the
/// registry has recorded as due.
pub fn restored(name: &str, what: &str, context: &Context) {
    warn!(server = name, "the server {what}: its tenants' databases are verified");
    for tenant in tenants_on(name, context) {
        context.state.snapshot.forget(&tenant.uid().unwrap_or_default());
    }
    requeue_tenants_on(name, context);
    if let Some(resource) = context.database_server(name) {
        let note = format!(
            "the server {what}: the database of each tenant is verified before it counts as in force"
        );
        context.events.warning(resource.object_ref(&()), "Verify", Reason::ServerRestored, note);
    }
}

/// Why a check could not be completed.
enum CheckError {
    Server(postgres::Error),
    Registry(registry::Error),
}

impl From<postgres::Error> for CheckError {
    fn from(error: postgres::Error) -> Self {
        Self::Server(error)
    }
}

async fn check(
    resource: &DatabaseServer,
    mut server: Server,
    mut known: bool,
    context: &Context,
) -> Result<CheckResult, CheckError> {
    if !known {
        // No session is open yet: a tenant may keep the operator from `postgres`. The registry may be on another server.
        let name = &server.config().name;
        let mut databases = context.registry.some_databases_on(name).await.map_err(CheckError::Registry)?;
        databases.extend(context.registry.database().map(str::to_owned));
        server.set_detours(databases);
    }
    let mut found = server.preflight(context.installation.id).await?;
    let version = Some(found.version.clone());
    let reachable = reachable(&found);
    if let Some(other) = &found.in_use_by {
        let message = format!(
            "the server belongs to the Tenantry installation {other}, by the comment on role tenantry_admin; this one is {}",
            context.installation.id
        );
        let findings = vec![reachable, finding(PRIVILEGED, false, Reason::ServerInUse, message)];
        return Ok(CheckResult { version, findings, server: None, permanent: true });
    }
    let lacks = found.missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if found.missing.iter().any(|right| right.is_required()) {
        let message = format!("{lacks} ({REMEDY})");
        let findings = vec![reachable, finding(PRIVILEGED, false, Reason::MissingRights, message)];
        return Ok(CheckResult { version, findings, server: None, permanent: true });
    }
    // Before anything is created there: on another server, all databases are missing.
    if let Some(identifier) = found.identifier.take() {
        let accepted = resource.annotations().get(ANNOTATION_ACCEPT_SERVER) == Some(&identifier);
        let identity = ServerIdentity { identifier, timeline: found.timeline };
        let bound = context.registry.bind_server(&server.config().name, &identity, accepted).await;
        let identifier = identity.identifier;
        match bound.map_err(CheckError::Registry)? {
            ServerMatch::Bound => {}
            ServerMatch::Doubted => restored(&server.config().name, RESTORED_OR_FAILED_OVER, context),
            ServerMatch::Refused(before) => {
                let message = format!(
                    "{}:{} leads to another PostgreSQL server (system identifier {identifier}) than the one that has the tenants' databases ({before}): correct the address; if this one replaced it on purpose (pg_upgrade, or a dump and restore), annotate the DatabaseServer with {ANNOTATION_ACCEPT_SERVER}: {identifier:?}",
                    server.config().host,
                    server.config().port,
                );
                let findings = vec![reachable, finding(PRIVILEGED, false, Reason::ServerReplaced, message)];
                return Ok(CheckResult { version, findings, server: None, permanent: true });
            }
        }
        if !server.bind_to(&identifier) {
            // Accepted as the new server: no session of the old one is used for it.
            server = Server::fenced(server.config().clone(), context.leader.fence.clone());
            known = !server.bind_to(&identifier);
        }
    }
    if !known {
        // Sessions of former leaders end before any work begins, first those that only their own login may end.
        server.close_left_session_logins().await?;
        if !context.leader.former_leaders.is_empty() {
            let ended = server.end_sessions_of(&context.leader.former_leaders).await?;
            info!(server = server.config().name, ended, "ended the sessions of former leaders");
        }
        server.prepare(context.installation.id).await?;
        // Before the first tenant needs it: a right that is missing for it is found now.
        match server.ensure_template(&context.modules.default_set()).await {
            // New tenants report it; existing ones do not need the template.
            Err(error) if WITHOUT_NEW_TENANTS.contains(&error.reason()) => {
                warn!(server = server.config().name, %error, "no new tenant can be created on this server");
            }
            // It is built once a tenant or the module needs it.
            Err(postgres::Error::TemplateNeedsRun { .. }) => {}
            template => drop(template?),
        }
        if !found.missing.iter().any(|right| matches!(right, MissingRight::LargeObjects { .. })) {
            found.missing.extend(server.large_objects_in_template().await?);
        }
        let inventory = server.observe_all().await?;
        server.close_session_logins(&inventory.session_logins()).await;
        context.state.snapshot.read_server(&server.config().name, inventory);
    }
    match server.revoke_borrowed_memberships().await {
        Ok(borrowed) if borrowed.is_empty() => {}
        Ok(borrowed) => {
            info!(
                server = server.config().name,
                ?borrowed,
                "revoked what an interrupted operation left to tenantry_admin"
            );
        }
        // The next check revokes them.
        Err(error) => {
            warn!(server = server.config().name, %error, "could not revoke what an interrupted operation left to tenantry_admin");
        }
    }
    let (why, mut message) = if found.missing.is_empty() {
        (Reason::RightsComplete, "the operator's login has every right it needs".to_owned())
    } else {
        (Reason::RightsReduced, reduced(&found.missing))
    };
    if found.reserved_connections == 0 {
        message.push_str(NOTHING_RESERVED);
    }
    let privileged = finding(PRIVILEGED, true, why, message);
    Ok(CheckResult { version, findings: vec![reachable, privileged], server: Some(server), permanent: false })
}

fn reachable(found: &Preflight) -> Finding {
    let version = format!("PostgreSQL {}", found.version);
    match &found.stale_collations {
        None => finding(REACHABLE, true, Reason::Connected, version),
        Some(StaleCollations { example, count }) => {
            let message = format!(
                "{version}; {count} tenants' databases ({example:?} and others) have indexes from another version of \
                 their collation than the server has now, so that text may not be found: in each, run REINDEX DATABASE \
                 and then ALTER DATABASE … REFRESH COLLATION VERSION, as a superuser or tenantry_dba"
            );
            finding(REACHABLE, true, Reason::CollationMismatch, message)
        }
    }
}

/// What is missing and not required, with what is different without it.
fn reduced(missing: &[MissingRight]) -> String {
    let lines: Vec<String> =
        missing.iter().map(|right| format!("{right}: {}", right.consequence())).collect();
    format!("not required, but: {} ({REMEDY}, if it has the right)", lines.join("; "))
}

fn finding(type_: &'static str, fulfilled: bool, reason: Reason, message: String) -> Finding {
    Finding { type_, status: ConditionStatus::from(fulfilled), reason, message }
}

/// What to do about an error, with the names of the fields and Secrets that it may come from.
fn remedy(error: &postgres::Error, resource: &DatabaseServer, context: &Context) -> Option<String> {
    let spec = &resource.spec;
    let namespace = &context.config.operator_namespace;
    match error.reason() {
        Reason::AuthenticationFailed => Some(format!(
            "correct the keys username and password of Secret {:?} in namespace {namespace:?}, or the login on the server",
            spec.admin_secret_ref.name
        )),
        Reason::TlsFailed => Some(match spec.tls.as_ref().and_then(|tls| tls.ca_secret_ref.as_ref()) {
            Some(ca) => format!(
                "the trusted authority is in key {:?} of Secret {:?} in namespace {namespace:?}; correct it, spec.host, \
                 spec.tls.mode, or the server's certificate",
                ca.key, ca.name
            ),
            None => "set spec.tls.caSecretRef to the authority of the server's certificate, or correct spec.host, \
                     spec.tls.mode, or the server's certificate"
                .to_owned(),
        }),
        Reason::DatabaseUnreachable | Reason::DatabaseTimeout => Some(
            "check that the server runs, that spec.host and spec.port are right, and that a firewall or NetworkPolicy \
             lets the operator connect"
                .to_owned(),
        ),
        _ => None,
    }
}

fn refused(error: &postgres::Error, resource: &DatabaseServer, context: &Context) -> CheckResult {
    let message = match remedy(error, resource, context) {
        Some(remedy) => format!("{error}: {remedy}"),
        None => error.to_string(),
    };
    if error.reason() == Reason::MissingRight {
        let message = format!("{message} ({REMEDY})");
        let findings = vec![
            finding(REACHABLE, true, Reason::Connected, "the server answers".into()),
            finding(PRIVILEGED, false, Reason::MissingRights, message),
        ];
        return CheckResult { version: None, findings, server: None, permanent: true };
    }
    let findings = vec![
        finding(REACHABLE, false, error.reason(), message),
        Finding {
            type_: PRIVILEGED,
            status: ConditionStatus::Unknown,
            reason: Reason::NotReached,
            message: "not checked, since the server cannot be used".into(),
        },
    ];
    // Neither a password nor a certificate is corrected automatically.
    let permanent =
        error.is_permanent() || [Reason::AuthenticationFailed, Reason::TlsFailed].contains(&error.reason());
    CheckResult { version: None, findings, server: None, permanent }
}

fn refused_configuration(error: &ConfigurationError) -> CheckResult {
    let unknown = |type_| Finding {
        type_,
        status: ConditionStatus::Unknown,
        reason: error.reason(),
        message: error.to_string(),
    };
    CheckResult {
        version: None,
        findings: vec![unknown(REACHABLE), unknown(PRIVILEGED)],
        server: None,
        permanent: false,
    }
}
