//! What time and others do to the support accesses in force: they end at their time, their first use is recorded, and what was
//! lost or left is found. Without an access in force, nothing here reads anything but memory.

use std::time::{Duration, Instant};

use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    api::{reason::Reason, support_access::SupportAccess},
    controller::{
        context::{Context, SharedContext},
        state::{
            servers::ServerState,
            support::{HeldSupport, SupportPart},
        },
        support_access::{end::SupportEnding, secret_name},
    },
    domain::support::{EndReason, login::stale_support_logins},
    postgres::catalog::inventory::Inventory,
    registry,
};

/// How often the clock is read: an end is met within a second.
const PERIOD: Duration = Duration::from_millis(250);

/// How often sessions are looked for, of logins that were not used yet. A session that is shorter may not be seen.
const LOOK: Duration = Duration::from_secs(3);

/// How long one server, or one end, may take.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Reads the clock until it is dropped.
pub async fn run(context: SharedContext) {
    let mut ticks = tokio::time::interval(PERIOD);
    let mut looked = Instant::now();
    loop {
        ticks.tick().await;
        for held in context.state.supports.take_due(context.clock.now()) {
            requeue(&held, &context);
        }
        if looked.elapsed() >= LOOK {
            look(&context).await;
            looked = Instant::now();
        }
    }
}

async fn look(context: &SharedContext) {
    let all = context.state.supports.all();
    if all.is_empty() {
        return;
    }
    for (id, held) in all {
        match context.stores.scopes.support_access(&held.namespace, &held.name) {
            Some(object) if object.uid() == Some(id.to_string()) => {
                let name = secret_name(&held.name);
                let is_there = context.stores.scopes.secret(&held.namespace, &name).is_some();
                if context.state.supports.looked(id, SupportPart::Secret, is_there) {
                    make_again(id, &held, "its Secret was deleted", context).await;
                }
            }
            // Its finalizer was removed by hand.
            _ if context.stores.scopes.support_is_known() => end_without_object(id, &held, context).await,
            _ => {}
        }
    }
    if let Err(error) = record_first_use(context).await {
        warn!(%error, "could not record the first use of a support access; it is tried again");
    }
}

/// Records the accesses of whose logins a session is seen for the first time.
async fn record_first_use(context: &SharedContext) -> Result<(), registry::Error> {
    for (server, logins) in context.state.supports.unused() {
        let ServerState::Ready(handle) = context.state.servers.get(&server) else { continue };
        let names: Vec<&str> = logins.iter().map(|(_, login)| login.as_str()).collect();
        let found = match timeout(TIME_LIMIT, handle.support_logins_in_use(&names)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                warn!(server, %error, "could not look for sessions of support logins");
                continue;
            }
            Err(_) => continue,
        };
        for (id, login) in logins.iter().filter(|(_, login)| found.contains(login)) {
            context.registry.use_support(*id, context.clock.now()).await?;
            context.state.supports.used(*id);
            let Some(held) = context.state.supports.get(*id) else { continue };
            info!(access = held.name, login, "a support access is used for the first time");
            if let Some(object) = context.stores.scopes.support_access(&held.namespace, &held.name) {
                let note = format!("a session of login {login} was seen for the first time");
                let about = kube::Resource::object_ref(object.as_ref(), &());
                context.events.normal(about, "Use", Reason::AccessUsed, note);
            }
            requeue(&held, context);
        }
    }
    Ok(())
}

/// Ends an access whose object is gone.
async fn end_without_object(id: Uuid, held: &HeldSupport, context: &SharedContext) {
    let (namespace, name) = (&held.namespace, &held.name);
    let ending = SupportEnding {
        id,
        namespace,
        name,
        grant: Some(&held.grant),
        reason: EndReason::Deleted,
        deleted: None,
    };
    match timeout(TIME_LIMIT, ending.run(context)).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some((_, why)))) => {
            warn!(access = name, why, "could not end a support access without an object")
        }
        Ok(Err(error)) => warn!(access = name, %error, "could not end a support access without an object"),
        Err(_) => warn!(access = name, "could not end a support access without an object: no answer in time"),
    }
}

/// Has the login and the Secret of an access made again, until the same time.
async fn make_again(id: Uuid, held: &HeldSupport, why: &str, context: &SharedContext) {
    info!(access = held.name, login = held.grant.login, why, "a support login is made again");
    match context.registry.withdraw_support(id).await {
        Ok(()) => requeue(held, context),
        Err(error) => warn!(access = held.name, %error, "could not have a support login made again"),
    }
}

fn requeue(held: &HeldSupport, context: &Context) {
    let reference = ObjectRef::<SupportAccess>::new(&held.name).within(&held.namespace);
    context.stores.scopes.requeue_support(reference);
}

/// Takes the support logins of a server away that no access in force has, and has lost ones made again.
pub(super) async fn check(server: &str, inventory: &Inventory, context: &SharedContext) {
    let found = inventory.support_logins();
    for (id, held) in context.state.supports.all() {
        let is_here = held.grant.server == server;
        let is_there = found.iter().any(|login| login.access == id);
        if is_here && context.state.supports.looked(id, SupportPart::Login, is_there) {
            make_again(id, &held, "its login was dropped", context).await;
        }
    }
    let stale: Vec<(Uuid, String)> = stale_support_logins(&found, &context.state.supports.ids())
        .into_iter()
        .map(|login| (login.access, login.name.clone()))
        .collect();
    let ServerState::Ready(handle) = context.state.servers.get(server) else { return };
    if stale.is_empty() {
        return;
    }
    let (server, context) = (server.to_owned(), context.clone());
    // Beside the check: the sessions of a login take some time to end.
    tokio::spawn(async move {
        for (access, login) in stale {
            match timeout(TIME_LIMIT, handle.close_support_login(&login)).await {
                Ok(Ok(())) => {
                    info!(server, login, "took a support login away that was left, or had other rights");
                    if let Some(held) = context.state.supports.get(access) {
                        make_again(access, &held, "it had other rights than its own", &context).await;
                    }
                }
                Ok(Err(error)) => warn!(server, login, %error, "could not take a support login away"),
                Err(_) => warn!(server, login, "could not take a support login away: no answer in time"),
            }
        }
    });
}
