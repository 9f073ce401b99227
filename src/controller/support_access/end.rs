//! The end of a support access: the login is taken away and its sessions are ended, then the Secret is deleted, then the
//! registry records it. Nothing here waits for the object.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

use super::secret;
use crate::{
    api::reason::Reason,
    controller::{context::Context, state::servers::ServerState, tenant::failure::StepError},
    domain::support::{EndReason, Grant},
    registry::{DeletedObject, SupportEnd},
};

/// How long taking one login away may take. It is tried again.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An access that ends.
#[derive(Clone, Copy, Debug)]
pub struct SupportEnding<'a> {
    /// The uid of its object.
    pub id: Uuid,
    /// The namespace of its object.
    pub namespace: &'a str,
    /// The name of its object.
    pub name: &'a str,
    /// What was granted, if anything was.
    pub grant: Option<&'a Grant>,
    /// Why it ends.
    pub reason: EndReason,
    /// Its object, if that was deleted.
    pub deleted: Option<&'a DeletedObject>,
}

/// Why an access could not be ended.
pub type NotEnded = (Reason, String);

impl SupportEnding<'_> {
    /// Takes the login away, deletes the Secret and records the end; or returns why the login is not gone yet.
    pub async fn run(&self, context: &Context) -> Result<Option<NotEnded>, StepError> {
        if let Some(not_ended) = self.take_away(context).await? {
            return Ok(Some(not_ended));
        }
        self.record(None, context).await?;
        Ok(None)
    }

    /// Takes the login away and deletes the Secret.
    pub async fn take_away(&self, context: &Context) -> Result<Option<NotEnded>, StepError> {
        let not_ended = match self.grant {
            Some(grant) => self.close_login(grant, context).await?,
            None => None,
        };
        // Also where the server does not respond: the password is of no more use than that.
        if self.grant.is_some() {
            secret::delete(self.namespace, self.name, context).await?;
        }
        Ok(not_ended)
    }

    /// Records the end, and what of it is left to the next drift check.
    pub async fn record(&self, left: Option<&str>, context: &Context) -> Result<(), StepError> {
        let now = context.clock.now();
        // Unless the webhook recorded who deleted the object.
        let actor = self.reason.actor(context.config.records_deletions);
        let end = SupportEnd {
            at: now,
            reason: self.reason,
            actor: actor.to_string(),
            deleted: self.deleted,
            left,
        };
        context.registry.end_support(self.id, &end).await?;
        context.state.supports.remove(self.id);
        info!(
            access = self.name,
            namespace = self.namespace,
            reason = self.reason.as_str(),
            "support access ended"
        );
        Ok(())
    }

    async fn close_login(&self, grant: &Grant, context: &Context) -> Result<Option<NotEnded>, StepError> {
        let server = match context.state.servers.get(&grant.server) {
            ServerState::Ready(server) => server.for_restriction(),
            ServerState::NotReady { message, .. } => {
                return Ok(Some((
                    Reason::ServerNotReady,
                    format!("DatabaseServer {:?} is not ready: {message}", grant.server),
                )));
            }
            ServerState::Unchecked => {
                let message = format!("DatabaseServer {:?} was not checked yet", grant.server);
                return Ok(Some((Reason::ServerNotReady, message)));
            }
        };
        // A session that no sample has seen.
        let is_known = context.state.supports.get(self.id).is_some_and(|held| held.is_used);
        let in_use = match is_known {
            true => Vec::new(),
            false => server.support_logins_in_use(&[&grant.login]).await?,
        };
        if !in_use.is_empty()
            && let Err(error) = context.registry.use_support(self.id, context.clock.now()).await
        {
            warn!(access = self.name, %error, "could not record the use of a support access");
        }
        let closed = timeout(TIMEOUT, server.close_support_login(&grant.login)).await;
        closed.unwrap_or(Err(crate::postgres::Error::Timeout {
            doing: "take the support login away".into(),
            after: TIMEOUT,
        }))?;
        Ok(None)
    }
}
