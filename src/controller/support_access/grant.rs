//! The grant of a support access, and what it gives: the login with its rights, and the Secret. The end is recorded before the
//! login is made, and what is made again later keeps it.

use kube::{Resource, ResourceExt};
use tracing::info;

use super::secret::{SupportSecret, name_of};
use crate::{
    api::{reason::Reason, support_access::SupportAccess},
    controller::{
        context::Context, state::servers::ServerState, support_access::policy, tenant::failure::StepError,
    },
    domain::{
        record::TenantRecord,
        support::{Grant, SupportRecord, approval, login::support_login_name},
    },
    postgres::{
        server::Server,
        tenant::{
            credentials::{generate_password, scram_verifier},
            support_login::SupportLogin,
        },
    },
};

/// Why nothing was granted yet.
pub type NotYet = (Reason, String);

/// Records the grant of an access to this tenant, from now on.
pub async fn grant(
    object: &SupportAccess,
    record: &SupportRecord,
    row: &TenantRecord,
    context: &Context,
) -> Result<Option<NotYet>, StepError> {
    if let Some(message) = policy::missing(object, &context.client).await? {
        return Ok(Some((Reason::PolicyMissing, message)));
    }
    // Its time does not begin before the login can be made.
    if let Err(not_ready) = ready_server(&row.placement.server, context) {
        return Ok(Some(not_ready));
    }
    let (id, now) = (record.request.id, context.clock.now());
    let grant = Grant {
        at: now,
        expires_at: now + record.request.duration,
        server: row.placement.server.clone(),
        login: support_login_name(&row.placement.database, id),
    };
    let approved_by = approval(&record.request, object.spec.approved_by.as_deref())
        .filter(|_| record.request.requires_approval);
    context.registry.grant_support(id, &grant, approved_by).await?;
    Ok(None)
}

/// Makes the login and the Secret of a granted access.
pub async fn publish(
    object: &SupportAccess,
    record: &SupportRecord,
    row: &TenantRecord,
    context: &Context,
) -> Result<Option<NotYet>, StepError> {
    let grant = record.grant.as_ref().ok_or(StepError::Missing("the grant"))?;
    let server = match ready_server(&grant.server, context) {
        Ok(server) => server,
        Err(not_ready) => return Ok(Some(not_ready)),
    };
    // Known before the login exists: what looks for logins that were left does not take it for one.
    context.state.supports.set(record);
    let (placement, password) = (&row.placement, generate_password());
    let secret = SupportSecret { object, placement, grant, password: &password, server: &server };
    match secret.write(context).await {
        Err(StepError::SecretConflict { name, .. }) => {
            let message = format!(
                "Secret {name:?} exists and is another's; it is not changed: delete or rename it, or create the SupportAccess under another name"
            );
            return Ok(Some((Reason::SecretConflict, message)));
        }
        written => written?,
    }
    let verifier = scram_verifier(&password);
    let wanted = SupportLogin {
        access: record.request.id,
        name: &grant.login,
        verifier: &verifier,
        valid_until: grant.expires_at,
    };
    server.open_support_login(placement, &wanted).await?;
    server.verify_support_login(placement, &grant.login, &password).await?;
    context.registry.publish_support(record.request.id, context.clock.now()).await?;
    info!(
        access = object.name_any(),
        tenant = object.spec.tenant,
        login = grant.login,
        "support access granted"
    );
    let note = format!(
        "login {} of Secret {:?} reads the data of Tenant {:?} until {:.0}",
        grant.login,
        name_of(&object.name_any()),
        object.spec.tenant,
        grant.expires_at
    );
    context.events.normal(object.object_ref(&()), "Grant", Reason::Granted, note);
    Ok(None)
}

fn ready_server(name: &str, context: &Context) -> Result<Server, NotYet> {
    match context.state.servers.get(name) {
        ServerState::Ready(server) => Ok(server),
        ServerState::NotReady { message, .. } => {
            Err((Reason::ServerNotReady, format!("DatabaseServer {name:?} is not ready: {message}")))
        }
        ServerState::Unchecked => {
            Err((Reason::ServerNotReady, format!("DatabaseServer {name:?} was not checked yet")))
        }
    }
}
