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
    domain::{
        endings::{Asked, Ending, Endings},
        identity::TenantId,
        lock_watch::{LockHolder, LockWatch},
    },
    postgres::{self, server::Server},
    registry::{self, Activity},
};

/// After a look, a server is left alone for this many times as long as the look took: on a server with very many locks, a
/// look is not cheap.
const REST: u32 = 10;

/// The shortest pause before the next look, while there is something to end, and how many such looks follow each other.
const SOON: Duration = Duration::from_millis(250);
const LOOKS_AGAIN: u32 = 7;

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
                        let (server, endings) = server.look().await;
                        (name, server, endings)
                    });
                }
                reports.publish(&context).await;
            }
            Some(look) = looks.join_next() => {
                // A panic is this loop's own.
                let (name, server, endings) =
                    look.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                for ending in endings {
                    match ending {
                        Ending::Ended(Asked { tenant, reason, what }) => {
                            warn!(server = name, tenant = %tenant, reason, "ended {what}");
                            context.metrics.tenant_session_ended(reason);
                            reports.add((tenant, Reason::SessionsEnded), what);
                        }
                        Ending::Ignored(Asked { tenant, reason, what }) => {
                            warn!(server = name, tenant = %tenant, reason, "asked to end, and still running: {what}");
                            reports.add((tenant, Reason::TerminationIgnored), what);
                        }
                    }
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

struct WatchedServer {
    server: Server,
    watch: LockWatch,
    endings: Endings,
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
            endings: Endings::default(),
            since: now,
            next: now,
            next_excess: now,
            is_failing: false,
        }
    }

    /// Looks once, and again soon while there is something to end: who holds locks in turn would go on until the next look.
    async fn look(mut self) -> (Self, Vec<Ending>) {
        let began = Instant::now();
        let mut endings = Vec::new();
        let mut looked = self.end_overdue(&mut endings).await;
        let took = began.elapsed();
        for _ in 0..LOOKS_AGAIN {
            if !matches!(looked, Ok(true)) {
                break;
            }
            tokio::time::sleep(SOON.max(took * REST)).await;
            looked = self.end_overdue(&mut endings).await;
        }
        let mut looked = looked.map(drop);
        if looked.is_ok() && self.next_excess <= began {
            self.next_excess = began + EXCESS_INTERVAL;
            looked = self.end_excess().await;
        }
        for blocker in self.server.take_blockers() {
            let asked = Asked { tenant: blocker.tenant, reason: BLOCKED_OPERATOR, what: blocker.what };
            self.ask(blocker.pid, asked, &mut endings);
        }
        let settled = self.settle(&mut endings).await;
        let looked = looked.and(settled);
        if let Err(error) = &looked
            && !self.is_failing
        {
            warn!(server = self.server.config().name, %error, "could not read what tenants lock and use");
        }
        self.is_failing = looked.is_err();
        self.next = Instant::now() + took * REST;
        (self, endings)
    }

    /// A prepared transaction has ended; a session may still run. Returns whether it was asked for the first time.
    fn ask(&mut self, pid: Option<i32>, asked: Asked, endings: &mut Vec<Ending>) -> bool {
        match pid {
            Some(pid) => self.endings.ask(pid, asked, self.since.elapsed()),
            None => {
                endings.push(Ending::Ended(asked));
                true
            }
        }
    }

    /// Reads which sessions have ended, if any was asked to.
    async fn settle(&mut self, endings: &mut Vec<Ending>) -> Result<(), postgres::Error> {
        let open = self.endings.open(self.since.elapsed());
        if !open.is_empty() {
            let running = self.server.still_running(&open).await?;
            endings.extend(self.endings.settle(&running, self.since.elapsed()));
        }
        Ok(())
    }

    async fn end_excess(&mut self) -> Result<(), postgres::Error> {
        for session in self.server.end_excessive_sessions().await? {
            let (login, database, pid) = (session.login, session.database, session.pid);
            let what = format!("a session of {login} in {database} (pid {pid}): {}", session.excess);
            let asked = Asked { tenant: session.tenant, reason: session.excess.as_str(), what };
            self.endings.ask(pid, asked, self.since.elapsed());
        }
        Ok(())
    }

    /// Returns whether there was something to end that was not asked to before.
    async fn end_overdue(&mut self, endings: &mut Vec<Ending>) -> Result<bool, postgres::Error> {
        let locks = self.server.shared_locks().await?;
        let overdue = self.watch.look(&locks, self.since.elapsed());
        let mut is_new = false;
        for lock in overdue {
            if self.server.end_lock(lock).await? {
                let what =
                    format!("the {} of {}, which kept a lock on {}", lock.holder, lock.role, lock.object);
                let pid = match lock.holder {
                    LockHolder::Session { pid } => Some(pid),
                    LockHolder::Prepared { .. } => None,
                };
                is_new |= self.ask(pid, Asked { tenant: lock.tenant, reason: KEPT, what }, endings);
            }
        }
        Ok(is_new)
    }
}

/// The tenant, and the reason of the Event: what has ended, or what still runs.
type About = (TenantId, Reason);

/// What is not reported yet, and when each tenant was last reported.
#[derive(Default)]
struct Reports {
    pending: BTreeMap<About, Pending>,
    reported: HashMap<About, Instant>,
}

#[derive(Default)]
struct Pending {
    count: usize,
    named: Vec<String>,
}

impl Reports {
    fn add(&mut self, about: About, what: String) {
        let pending = self.pending.entry(about).or_default();
        pending.count += 1;
        if pending.named.len() < MAX_NAMED {
            pending.named.push(what);
        }
    }

    /// Publishes what is due. What cannot be written now stays for the next time.
    async fn publish(&mut self, context: &SharedContext) {
        self.reported.retain(|_, at| at.elapsed() < REPORT_INTERVAL);
        let due = self.pending.extract_if(.., |about, _| !self.reported.contains_key(about));
        let due: Vec<_> = due.collect();
        for (about, pending) in due {
            self.reported.insert(about, Instant::now());
            // The watch goes on without a registry.
            let published = timeout(REPORT_TIMEOUT, publish(about, &pending, context)).await;
            if let Err(error) = published.unwrap_or(Err(registry::Error::NoAnswer)) {
                let (tenant, reason) = about;
                warn!(%tenant, %reason, %error, "could not report sessions of this tenant; it is tried again");
                self.pending.insert(about, pending);
            }
        }
    }
}

async fn publish(
    (id, reason): About,
    pending: &Pending,
    context: &SharedContext,
) -> Result<(), registry::Error> {
    let Some(row) = context.registry.by_id(id).await? else {
        info!(tenant = %id, "sessions were asked to end of a tenant that the registry does not know");
        return Ok(());
    };
    let Pending { count, named } = pending;
    let more = count.saturating_sub(named.len());
    let did = match reason {
        Reason::TerminationIgnored => "asked to end, and still running, since what they execute ignores it:",
        _ => "ended",
    };
    let mut note = format!("{did} {}", named.join(", "));
    if more > 0 {
        note.push_str(&format!(", and {more} more"));
    }
    let activity = Activity {
        tenant: Some(id),
        action: reason.as_str(),
        actor: "tenantry",
        reason: Some(&note),
        details: json!({"count": count, "server": row.placement.server}),
        correlation: None,
    };
    context.registry.activity(&activity).await?;
    let tenant = context.stores.scopes.tenant(&row.resource_namespace, &row.resource_name);
    if let Some(tenant) = tenant.filter(|tenant| tenant.metadata.uid.as_ref() == Some(&row.resource_uid)) {
        context.events.warning(tenant.object_ref(&()), "EndSessions", reason, note);
    }
    Ok(())
}
