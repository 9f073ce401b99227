//! The lock watch. A tenant's login can lock databases and roles on its server, and so keep others from connecting. Every two
//! seconds, one query per server reads such locks, through a session that stays open; what keeps one for longer is ended
//! ([`crate::domain::lock_watch`]). Less often, another query reads what sessions use of what all databases share, and
//! those that use too much are ended too ([`crate::domain::excess`]). Both are reported: a metric, an activity row and an
//! Event on the Tenant.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use kube::Resource;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, timeout},
};
use tracing::{info, warn};

use crate::{
    api::reason::Reason,
    controller::{context::SharedContext, state::servers::ServerState},
    domain::{identity::TenantId, lock_watch::LockWatch},
    postgres::{self, server::Server},
    registry::{self, Activity},
};

/// After a look, a server is left alone for this many times as long as the look took: on a server with very many locks, a
/// look is not cheap.
const REST: u32 = 10;

/// A tenant that goes on is reported once in this time.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// How long a report may take.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// How many of the things that were ended one report names.
const MAX_NAMED: usize = 5;

/// How often is read what sessions use: the memory for locks fills within seconds.
const EXCESS_INTERVAL: Duration = Duration::from_secs(5);

/// A session blocked a statement of the operator.
const BLOCKED_OPERATOR: &str = "BlockedOperator";
/// A session kept a lock for too long.
const KEPT: &str = "Kept";

/// Watches until it is dropped.
pub async fn run(context: SharedContext) {
    let mut watched = Watched::new();
    let mut looks = JoinSet::new();
    let mut reports = Reports::default();
    let mut ticks = tokio::time::interval(context.config.lock_watch_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                for (name, server) in servers(&context, &mut watched) {
                    looks.spawn(async move {
                        let (server, ended) = server.look().await;
                        (name, server, ended)
                    });
                }
                reports.publish(&context).await;
            }
            Some(look) = looks.join_next() => {
                // A panic is this loop's own.
                let (name, server, ended) = look.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                for (reason, tenant, what) in ended {
                    warn!(server = name, tenant = %tenant, reason, "ended {what}");
                    context.metrics.tenant_session_ended(reason);
                    reports.add(tenant, what);
                }
                watched.insert(name, Some(server));
                reports.publish(&context).await;
            }
        }
    }
}

/// The watched servers by name; none for one whose look is running.
type Watched = HashMap<String, Option<WatchedServer>>;

/// The servers to look at now: those that are ready, or were until they could not be reached.
fn servers(context: &SharedContext, watched: &mut Watched) -> Vec<(String, WatchedServer)> {
    let mut due = Vec::new();
    watched.retain(|name, _| context.database_server(name).is_some());
    for resource in context.stores.database_servers.state() {
        let Some(name) = resource.metadata.name.clone() else { continue };
        let before = match watched.remove(&name) {
            Some(None) => {
                watched.insert(name, None);
                continue;
            }
            before => before.flatten(),
        };
        let server = match (context.state.servers.get(&name), before) {
            (ServerState::Ready(server), Some(before)) => WatchedServer { server, ..before },
            (ServerState::Ready(server), None) => WatchedServer::new(server),
            // While no session can connect, the server is not ready, and the standing session still works.
            (ServerState::NotReady { .. }, Some(before)) => before,
            (ServerState::NotReady { .. }, None) | (ServerState::Unchecked, _) => continue,
        };
        let is_due = server.next <= Instant::now();
        let at_rest = if is_due {
            due.push((name.clone(), server));
            None
        } else {
            Some(server)
        };
        watched.insert(name, at_rest);
    }
    due
}

/// What was ended: the reason, the tenant, and what it was.
type EndedByReason = Vec<(&'static str, TenantId, String)>;

struct WatchedServer {
    server: Server,
    watch: LockWatch,
    since: Instant,
    next: Instant,
    next_excess: Instant,
    is_failing: bool,
}

impl WatchedServer {
    fn new(server: Server) -> Self {
        let now = Instant::now();
        Self {
            server,
            watch: LockWatch::default(),
            since: now,
            next: now,
            next_excess: now,
            is_failing: false,
        }
    }

    async fn look(mut self) -> (Self, EndedByReason) {
        let began = Instant::now();
        let mut ended = Vec::new();
        let mut looked = self.end_overdue(&mut ended).await;
        if looked.is_ok() && self.next_excess <= began {
            self.next_excess = began + EXCESS_INTERVAL;
            looked = self.end_excess(&mut ended).await;
        }
        if let Err(error) = &looked
            && !self.is_failing
        {
            warn!(server = self.server.config().name, %error, "could not read what tenants lock and use");
        }
        self.is_failing = looked.is_err();
        let blockers = self.server.take_ended_blockers().into_iter();
        ended.extend(blockers.map(|blocker| (BLOCKED_OPERATOR, blocker.tenant, blocker.what)));
        self.next = Instant::now() + began.elapsed() * REST;
        (self, ended)
    }

    async fn end_excess(&mut self, ended: &mut EndedByReason) -> Result<(), postgres::Error> {
        for session in self.server.end_excessive_sessions().await? {
            let what = format!("a session of {} in {}: {}", session.login, session.database, session.excess);
            ended.push((session.excess.as_str(), session.tenant, what));
        }
        Ok(())
    }

    async fn end_overdue(&mut self, ended: &mut EndedByReason) -> Result<(), postgres::Error> {
        let locks = self.server.shared_locks().await?;
        for lock in self.watch.look(&locks, self.since.elapsed()) {
            if self.server.end_lock(lock).await? {
                let what =
                    format!("the {} of {}, which kept a lock on {}", lock.holder, lock.role, lock.object);
                ended.push((KEPT, lock.tenant, what));
            }
        }
        Ok(())
    }
}

/// What was ended and is not reported yet, and when each tenant was last reported.
#[derive(Default)]
struct Reports {
    pending: BTreeMap<TenantId, Pending>,
    reported: HashMap<TenantId, Instant>,
}

#[derive(Default)]
struct Pending {
    count: usize,
    named: Vec<String>,
}

impl Reports {
    fn add(&mut self, tenant: TenantId, what: String) {
        let pending = self.pending.entry(tenant).or_default();
        pending.count += 1;
        if pending.named.len() < MAX_NAMED {
            pending.named.push(what);
        }
    }

    /// Publishes what is due. What cannot be written now stays for the next time.
    async fn publish(&mut self, context: &SharedContext) {
        self.reported.retain(|_, at| at.elapsed() < REPORT_INTERVAL);
        let due = self.pending.extract_if(.., |tenant, _| !self.reported.contains_key(tenant));
        let due: Vec<_> = due.collect();
        for (tenant, pending) in due {
            self.reported.insert(tenant, Instant::now());
            // The watch goes on without a registry.
            let published = timeout(REPORT_TIMEOUT, publish(tenant, &pending, context)).await;
            if let Err(error) = published.unwrap_or(Err(registry::Error::NoAnswer)) {
                warn!(%tenant, %error, "could not report that sessions of this tenant were ended; it is tried again");
                self.pending.insert(tenant, pending);
            }
        }
    }
}

async fn publish(id: TenantId, pending: &Pending, context: &SharedContext) -> Result<(), registry::Error> {
    let Some(row) = context.registry.by_id(id).await? else {
        info!(tenant = %id, "sessions were ended of a tenant that the registry does not know");
        return Ok(());
    };
    let Pending { count, named } = pending;
    let more = count.saturating_sub(named.len());
    let mut note = format!("ended {}", named.join(", "));
    if more > 0 {
        note.push_str(&format!(", and {more} more"));
    }
    let activity = Activity {
        tenant: Some(id),
        action: Reason::SessionsEnded.as_str(),
        actor: "tenantry",
        reason: Some(&note),
        details: json!({"count": count, "server": row.placement.server}),
        correlation: None,
    };
    context.registry.activity(&activity).await?;
    let tenant = context.stores.scopes.tenant(&row.resource_namespace, &row.resource_name);
    if let Some(tenant) = tenant.filter(|tenant| tenant.metadata.uid.as_ref() == Some(&row.resource_uid)) {
        context.events.warning(tenant.object_ref(&()), "EndSessions", Reason::SessionsEnded, note);
    }
    Ok(())
}
