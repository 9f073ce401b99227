//! The preflight: connect, compare the rights with those needed, make the shared roles, read everything once. It ends
//! in a verdict, never in an error: what is wrong is what the conditions are for.

use super::configuration::{ConfigurationError, configuration};
use crate::{
    api::{
        ANNOTATION_ACCEPT_SERVER,
        conditions::{ConditionStatus, PRIVILEGED, REACHABLE, reason},
        database_server::DatabaseServer,
    },
    controller::{context::Context, servers::Standing},
    postgres::{self, server::Server},
    registry,
};
use kube::ResourceExt;
use tracing::{info, warn};

const HOW_TO_MEND: &str = "run `tenantry server-setup` as an administrator";

/// What keeps new tenants from being made, and nothing else from being done.
const WITHOUT_NEW_TENANTS: [&str; 2] = [reason::TEMPLATE_BROKEN, reason::READ_ONLY_SERVER];

/// One condition of a verdict.
pub struct Finding {
    /// The condition type.
    pub type_: &'static str,
    /// Its status.
    pub status: ConditionStatus,
    /// Its reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What came out.
pub struct Verdict {
    /// PostgreSQL's version, once connected.
    pub version: Option<String>,
    /// `Reachable` and `Privileged`.
    pub findings: Vec<Finding>,
    /// The server, if it may take tenants.
    pub server: Option<Server>,
    /// Whether only a person can mend it.
    pub permanent: bool,
}

/// Checks a server. The one in use goes on being used while its configuration stays the same, with its sessions.
pub async fn preflight(
    resource: &DatabaseServer,
    in_use: &Standing,
    context: &Context,
) -> Result<Verdict, registry::Error> {
    let config = match configuration(resource, context).await {
        Ok(config) => config,
        Err(error) => return Ok(refused_configuration(&error)),
    };
    let (server, known) = match in_use {
        Standing::Ready(server) if *server.config() == config => (server.clone(), true),
        Standing::Ready(_) | Standing::NotReady { .. } | Standing::Unvisited => {
            (Server::fenced(config, context.fence.clone()), false)
        }
    };
    match check(resource, server, known, context).await {
        Ok(verdict) => Ok(verdict),
        Err(Trouble::Server(error)) => Ok(refused(&error)),
        Err(Trouble::Registry(error)) => Err(error),
    }
}

/// Where a check did not come to its end.
enum Trouble {
    Server(postgres::Error),
    Registry(registry::Error),
}

impl From<postgres::Error> for Trouble {
    fn from(error: postgres::Error) -> Self {
        Self::Server(error)
    }
}

async fn check(
    resource: &DatabaseServer,
    mut server: Server,
    mut known: bool,
    context: &Context,
) -> Result<Verdict, Trouble> {
    let found = server.preflight(context.installation.id).await?;
    let version = Some(found.version.clone());
    let reachable = finding(REACHABLE, true, reason::CONNECTED, format!("PostgreSQL {}", found.version));
    if let Some(other) = &found.in_use_by {
        let message = format!(
            "the server belongs to the Tenantry installation {other}, by the comment on role tenantry_admin; this one is {}",
            context.installation.id
        );
        let findings = vec![reachable, finding(PRIVILEGED, false, reason::SERVER_IN_USE, message)];
        return Ok(Verdict { version, findings, server: None, permanent: true });
    }
    let lacks = found.missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if found.missing.iter().any(|right| right.is_needed()) {
        let message = format!("{lacks} ({HOW_TO_MEND})");
        let findings = vec![reachable, finding(PRIVILEGED, false, reason::MISSING_RIGHTS, message)];
        return Ok(Verdict { version, findings, server: None, permanent: true });
    }
    // Before anything is made there: on another server, all databases are missing.
    if let Some(identifier) = found.identifier {
        let accepted = resource.annotations().get(ANNOTATION_ACCEPT_SERVER) == Some(&identifier);
        let proven = context.registry.prove_server(&server.config().name, &identifier, accepted).await;
        if let Some(before) = proven.map_err(Trouble::Registry)? {
            let message = format!(
                "{}:{} leads to another PostgreSQL server (system identifier {identifier}) than the one that has the tenants' databases ({before}): point it back; if this one took its place on purpose (pg_upgrade, or a dump and restore), annotate the DatabaseServer with {ANNOTATION_ACCEPT_SERVER}: {identifier:?}",
                server.config().host,
                server.config().port,
            );
            let findings = vec![reachable, finding(PRIVILEGED, false, reason::SERVER_REPLACED, message)];
            return Ok(Verdict { version, findings, server: None, permanent: true });
        }
        if !server.prove(&identifier) {
            // Accepted as the new one: nothing of the old one's sessions is used for it.
            server = Server::fenced(server.config().clone(), context.fence.clone());
            known = !server.prove(&identifier);
        }
    }
    if !known {
        // What former leaders had under way there ends before anything is begun.
        if !context.former_leaders.is_empty() {
            let ended = server.end_sessions_of(&context.former_leaders).await?;
            info!(server = server.config().name, ended, "former leaders' sessions are ended");
        }
        server.prepare(context.installation.id).await?;
        // The first tenant does not wait for it, and what its making shows to be missing is seen before any tenant.
        match server.ensure_template(context.modules.all()).await {
            // New tenants are told; those that are there have no need of it.
            Err(error) if WITHOUT_NEW_TENANTS.contains(&error.reason()) => {
                warn!(server = server.config().name, %error, "no new tenant can be made on this server");
            }
            made => drop(made?),
        }
        let inventory = server.observe_all().await?;
        server.shut_left_open(&inventory.open_to_the_migrator()).await;
        context.bulk.read_server(&server.config().name, inventory);
    }
    let (why, message) = if found.missing.is_empty() {
        (reason::RIGHTS_COMPLETE, "the operator's login has every right it needs".to_owned())
    } else {
        let message = format!(
            "{lacks}: it works without, by borrowing a tenant's login while its sessions are ended ({HOW_TO_MEND})"
        );
        (reason::RIGHTS_REDUCED, message)
    };
    let privileged = finding(PRIVILEGED, true, why, message);
    Ok(Verdict { version, findings: vec![reachable, privileged], server: Some(server), permanent: false })
}

fn finding(type_: &'static str, fulfilled: bool, reason: &'static str, message: String) -> Finding {
    Finding { type_, status: ConditionStatus::from(fulfilled), reason, message }
}

fn refused(error: &postgres::Error) -> Verdict {
    let message = error.to_string();
    if error.reason() == "MissingRight" {
        let message = format!("{message} ({HOW_TO_MEND})");
        let findings = vec![
            finding(REACHABLE, true, reason::CONNECTED, "the server answers".into()),
            finding(PRIVILEGED, false, reason::MISSING_RIGHTS, message),
        ];
        return Verdict { version: None, findings, server: None, permanent: true };
    }
    let findings = vec![
        finding(REACHABLE, false, error.reason(), message),
        Finding {
            type_: PRIVILEGED,
            status: ConditionStatus::Unknown,
            reason: reason::NOT_REACHED,
            message: "not checked, since the server could not be worked with".into(),
        },
    ];
    // Neither a password nor a certificate gets right by itself.
    let permanent =
        error.is_permanent() || [reason::AUTHENTICATION_FAILED, reason::TLS_FAILED].contains(&error.reason());
    Verdict { version: None, findings, server: None, permanent }
}

fn refused_configuration(error: &ConfigurationError) -> Verdict {
    let unknown = |type_| Finding {
        type_,
        status: ConditionStatus::Unknown,
        reason: error.reason(),
        message: error.to_string(),
    };
    Verdict {
        version: None,
        findings: vec![unknown(REACHABLE), unknown(PRIVILEGED)],
        server: None,
        permanent: false,
    }
}
