//! Invariants, checked while operations run: the watches of Tenants and holds, the catalogues, the
//! registry. A status is compared with PostgreSQL; where they differ, the status is read once more,
//! and only one that has not changed meanwhile is a violation.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use tenantry::{
    api::{
        conditions::{IN_FORCE, READY, find_condition},
        tenant::{DesiredState, SuspensionMode, Tenant},
        tenant_hold::{TenantHold, TenantHoldMode},
        tenant_status::{Access, HoldMode, TenantState},
    },
    domain::{lifecycle::is_possible, observed::RegistryStatus},
};
use tenantry_test_support::World;
use tokio::sync::watch;

/// What PostgreSQL shows of a tenant.
#[derive(Debug)]
struct Shown {
    /// The database's oid, while there is one.
    database: Option<i64>,
    /// The access level of its rights and LOGIN; none if they contradict each other.
    access: Option<Access>,
    /// The widest of the groups that its login is in.
    widest: Access,
    /// The sessions of its login.
    sessions: Vec<i32>,
}

/// A session that was opened under an access level and is kept open.
struct Session {
    pid: i32,
    access: Access,
    _open: PgConnection,
}

/// Everything that is watched.
pub struct Watched {
    pub tenants: Mutex<BTreeMap<String, Tenant>>,
    holds: Mutex<BTreeMap<String, TenantHold>>,
    /// Changes with each of them.
    pub changes: watch::Sender<u64>,
    /// The violations.
    pub found: Mutex<BTreeSet<String>>,
    /// How often PostgreSQL was checked.
    pub looks: AtomicU64,
    /// Ids by name, oids by database, digests of passwords by name.
    ids: Mutex<HashMap<String, String>>,
    oids: Mutex<HashMap<String, i64>>,
    pub digests: Mutex<HashMap<String, BTreeSet<Vec<u8>>>>,
    /// Manual changes, and the check from which on they may be repaired.
    by_hand: Mutex<HashMap<String, u64>>,
    sessions: Mutex<HashMap<String, Vec<Session>>>,
}

impl Watched {
    pub fn new() -> Self {
        Self {
            tenants: Mutex::default(),
            holds: Mutex::default(),
            changes: watch::Sender::new(0),
            found: Mutex::default(),
            looks: AtomicU64::new(0),
            ids: Mutex::default(),
            oids: Mutex::default(),
            digests: Mutex::default(),
            by_hand: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    /// Watches and checks until it is dropped.
    pub async fn run(&self, world: &World) {
        let config = watcher::Config::default;
        let tenants = watcher(world.fleet.tenants.clone(), config()).default_backoff().boxed();
        let holds = watcher(world.fleet.holds.clone(), config()).default_backoff().boxed();
        let look = async {
            let mut changes = self.changes.subscribe();
            let mut server = world.superuser("postgres").await;
            let mut registry = world.superuser("tenantry_system").await;
            loop {
                // Also without a change: PostgreSQL may have changed.
                let _ = tokio::time::timeout(Duration::from_millis(250), changes.changed()).await;
                self.look(world, &mut server, &mut registry).await;
            }
        };
        tokio::join!(self.follow(tenants, &self.tenants), self.follow(holds, &self.holds), look);
    }

    async fn follow<K: Resource<DynamicType = ()> + Clone>(
        &self,
        mut events: BoxStream<'_, watcher::Result<Event<K>>>,
        known: &Mutex<BTreeMap<String, K>>,
    ) {
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(object)) => {
                    known.lock().unwrap().insert(object.name_any(), object);
                }
                Ok(Event::Delete(object)) => drop(known.lock().unwrap().remove(&object.name_any())),
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => drop(listed.insert(object.name_any(), object)),
                Ok(Event::InitDone) => *known.lock().unwrap() = std::mem::take(&mut listed),
                // A watch that breaks off begins again, with a list.
                Err(error) => println!("a watch of the invariants broke off: {error}"),
            }
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    pub fn find(&self, name: &str, what: String) {
        self.found.lock().unwrap().insert(format!("{name}: {what}"));
    }

    /// Compares the statuses with PostgreSQL and the registry.
    async fn look(&self, world: &World, server: &mut PgConnection, registry: &mut PgConnection) {
        let tenants = self.tenants.lock().unwrap().clone();
        let holds = self.holds.lock().unwrap().clone();
        let number = self.looks.fetch_add(1, Ordering::SeqCst);
        let recorded = self.registry(registry).await;
        let shown = shown(server).await;
        self.databases(&shown);
        let nothing = Shown {
            database: None,
            access: Some(Access::Blocked),
            widest: Access::Blocked,
            sessions: vec![],
        };
        for (name, tenant) in &tenants {
            self.id(name, tenant);
            let Some(access) = claim(tenant) else { continue };
            if let Some(problem) = too_wide(tenant, access) {
                self.find(name, problem);
            }
            let shown = shown.get(name).unwrap_or(&nothing);
            let wrong = match recorded.get(name) {
                Some(recorded) if recorded != access.as_str() => Some(format!("the registry has {recorded}")),
                _ => self.differs(name, access, shown),
            };
            let Some(wrong) = wrong else {
                self.by_hand.lock().unwrap().retain(|changed, from| changed != name || *from > number);
                continue;
            };
            let now = world.fleet.tenants.get_opt(name).await.unwrap();
            let stays = now.is_some_and(|now| now.resource_version() == tenant.resource_version());
            if stays && !self.by_hand.lock().unwrap().contains_key(name) {
                self.find(name, format!("is Ready with {access}, and {wrong}"));
            }
        }
        for (name, hold) in &holds {
            let tenant = &hold.spec.tenant;
            let (Some(shown), Some(mode)) = (shown.get(tenant), in_force(hold)) else { continue };
            if rank(shown.widest) <= rank(level(mode)) {
                continue;
            }
            let now = world.fleet.holds.get_opt(name).await.unwrap();
            let stays = now.is_some_and(|now| now.resource_version() == hold.resource_version());
            if stays && !self.by_hand.lock().unwrap().contains_key(tenant) {
                self.find(
                    tenant,
                    format!("hold {name} is in force with {mode}, and PostgreSQL shows {shown:?}"),
                );
            }
        }
    }

    /// What differs from the access that a status claims.
    fn differs(&self, name: &str, access: Access, shown: &Shown) -> Option<String> {
        if shown.access != Some(access) {
            return Some(format!("PostgreSQL shows {shown:?}"));
        }
        let sessions = self.sessions.lock().unwrap();
        let wider =
            sessions.get(name).into_iter().flatten().filter(|session| rank(session.access) > rank(access));
        let lives = wider.map(|session| session.pid).find(|pid| shown.sessions.contains(pid));
        let any = shown.sessions.first().copied().filter(|_| access == Access::Blocked);
        lives.or(any).map(|pid| format!("session {pid} from before exists"))
    }

    fn id(&self, name: &str, tenant: &Tenant) {
        let Some(id) = tenant.status.as_ref().and_then(|status| status.tenant_id.clone()) else { return };
        let mut ids = self.ids.lock().unwrap();
        let first = ids.entry(name.to_owned()).or_insert_with(|| id.clone());
        if *first != id {
            self.find(name, format!("its tenantId was {first} and is {id}"));
        }
    }

    /// A database is never dropped and never replaced.
    fn databases(&self, shown: &HashMap<String, Shown>) {
        let mut oids = self.oids.lock().unwrap();
        for (name, shown) in shown {
            let Some(now) = shown.database else { continue };
            let first = *oids.entry(name.clone()).or_insert(now);
            if first != now {
                self.find(name, format!("its database was {first} and is {now}"));
            }
        }
        for name in oids.keys() {
            if shown.get(name).is_none_or(|shown| shown.database.is_none()) {
                self.find(name, "its database does not exist".to_owned());
            }
        }
    }

    /// Checks the registry; returns the access that it records for each tenant.
    async fn registry(&self, session: &mut PgConnection) -> HashMap<String, String> {
        type Recorded = (String, String, String, i64, i64, bool, Option<Vec<u8>>);
        let rows: Vec<Recorded> = sqlx::query_as(
            "SELECT slug, status, access,
                 (SELECT count(*) FROM workflows w WHERE w.tenant_id = t.id AND finished_at IS NULL),
                 (SELECT count(*) FROM tenants o WHERE o.slug = t.slug), purge_started_at IS NULL, password_digest
             FROM tenants t",
        )
        .fetch_all(session)
        .await
        .unwrap();
        let mut digests = self.digests.lock().unwrap();
        for (name, status, _, running, lives, kept, digest) in &rows {
            if *running > 1 || *lives > 1 || !kept || status == "deprovisioned" {
                let what = format!("{status}, {running} workflows, {lives} rows, not purged: {kept}");
                self.find(name, format!("the registry has {what}"));
            }
            digests.entry(name.clone()).or_default().extend(digest.clone());
        }
        rows.into_iter().map(|row| (row.0, row.2)).collect()
    }

    /// Makes a manual change, which is no violation until it is observed to be repaired.
    pub async fn by_hand(&self, name: &str, change: impl Future<Output = ()>) {
        self.by_hand.lock().unwrap().insert(name.to_owned(), u64::MAX);
        change.await;
        let next = self.looks.load(Ordering::SeqCst);
        self.by_hand.lock().unwrap().insert(name.to_owned(), next);
    }

    /// Whether a manual change is repaired.
    pub fn is_repaired(&self, name: &str) -> bool {
        !self.by_hand.lock().unwrap().contains_key(name)
    }

    /// Opens a session, if the tenant may have one, and keeps it open.
    pub async fn connect(&self, world: &World, name: &str) {
        let mut server = world.superuser("postgres").await;
        let mut access = async || shown(&mut server).await.get(name).and_then(|shown| shown.access);
        let before = access().await;
        let Ok(mut open) = world.fleet.login(name).await else { return };
        let Ok(pid) = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut open).await else {
            return;
        };
        if let Some(access) = access().await.filter(|after| Some(*after) == before) {
            let session = Session { pid, access, _open: open };
            self.sessions.lock().unwrap().entry(name.to_owned()).or_default().push(session);
        }
    }

    /// Checks the activity log: every recorded transition is in the lifecycle table.
    pub async fn lives(&self, world: &World) {
        type Entry = (String, String, String, Json<Value>);
        let entries: Vec<Entry> = sqlx::query_as(
            "SELECT t.slug, t.status, a.action, a.details FROM activity a JOIN tenants t ON t.id = a.tenant_id ORDER BY a.id",
        )
        .fetch_all(&mut world.superuser("tenantry_system").await)
        .await
        .unwrap();
        let mut lives: BTreeMap<String, (String, String)> = BTreeMap::new();
        for (name, end, action, Json(details)) in entries {
            let said = |field: &str| details[field].as_str().map(str::to_owned);
            let to = match action.as_str() {
                "Registered" => {
                    lives.insert(name, ("provisioning".to_owned(), end));
                    continue;
                }
                "Activated" | "Reinstated" => said("status"),
                "Suspended" | "SuspensionChanged" | "Resumed" | "TrialBegun" | "TrialEnded" => said("to"),
                "DeprovisioningBegun" => Some("deprovisioning".to_owned()),
                "Deprovisioned" => Some("deprovisioned".to_owned()),
                "Failed" => Some("failed".to_owned()),
                "Retried" => Some("provisioning".to_owned()),
                _ => continue,
            };
            let (Some(to), Some((now, _))) = (to, lives.get_mut(&name)) else {
                self.find(&name, format!("{action} comes first, or leads nowhere: {details}"));
                continue;
            };
            let states = (RegistryStatus::parse(now), RegistryStatus::parse(&to));
            let known = matches!(states, (Some(from), Some(to)) if is_possible(from, to));
            if !known || said("from").is_some_and(|from| from != *now) {
                self.find(&name, format!("{action} led from {now} to {to}: {details}"));
            }
            *now = to;
        }
        for (name, (last, end)) in lives {
            if last != end {
                self.find(&name, format!("it is {end}, and its log ends with {last}"));
            }
        }
    }
}

/// The access that a status reports to be in force for the current spec.
fn claim(tenant: &Tenant) -> Option<Access> {
    let status = tenant.status.as_ref()?;
    let current = status.observed_generation == tenant.metadata.generation;
    let ready = find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "True");
    status.access.filter(|_| current && ready && tenant.metadata.deletion_timestamp.is_none())
}

/// The mode that a hold reports to be in force.
fn in_force(hold: &TenantHold) -> Option<TenantHoldMode> {
    let status = hold.status.as_ref()?;
    let current = status.observed_generation == hold.metadata.generation;
    let says = find_condition(&status.conditions, IN_FORCE).is_some_and(|found| found.status == "True");
    hold.spec.mode.filter(|_| current && says && hold.metadata.deletion_timestamp.is_none())
}

/// Whether a status reports wider access than its own holds and its spec allow.
fn too_wide(tenant: &Tenant, access: Access) -> Option<String> {
    let (spec, status) = (&tenant.spec, tenant.status.as_ref()?);
    let deprovisioned = spec.state == Some(DesiredState::Deprovisioned);
    if deprovisioned
        && (access != Access::Blocked
            || status.binding.is_some()
            || status.state != Some(TenantState::Deprovisioning))
    {
        return Some(format!("it is being deprovisioned, and is Ready as {status:?}"));
    }
    let said = spec.suspension.as_ref().and_then(|suspension| suspension.mode);
    let own = (spec.state == Some(DesiredState::Suspended))
        .then_some(if said == Some(SuspensionMode::Blocked) { Access::Blocked } else { Access::ReadOnly });
    let holds = status.holds.iter().map(|hold| level(hold.mode));
    let least = own.into_iter().chain(holds).map(rank).min()?;
    (rank(access) > least)
        .then(|| format!("{access} is wider than its status and its spec allow: {status:?}"))
}

fn level(mode: impl Into<HoldMode>) -> Access {
    match mode.into() {
        HoldMode::Blocked => Access::Blocked,
        HoldMode::ReadOnly => Access::ReadOnly,
        HoldMode::ShrinkOnly => Access::ShrinkOnly,
        HoldMode::None => Access::ReadWrite,
    }
}

fn rank(access: Access) -> u8 {
    match access {
        Access::Blocked => 0,
        Access::ReadOnly => 1,
        Access::ShrinkOnly => 2,
        Access::ReadWrite => 3,
        Access::Unknown => 4,
    }
}

/// What PostgreSQL shows of every tenant, by its slug.
async fn shown(session: &mut PgConnection) -> HashMap<String, Shown> {
    type Row = (String, Option<i64>, bool, Vec<String>, bool, bool, Vec<i32>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT replace(substring(r.rolname FROM '^tenant_(.*)_app$'), '_', '-'), d.oid::bigint, r.rolcanlogin,
             ARRAY(SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members m WHERE m.member = r.oid),
             EXISTS (SELECT FROM aclexplode(d.datacl) a WHERE a.grantee = r.oid AND a.privilege_type = 'CONNECT'),
             EXISTS (SELECT FROM aclexplode(d.datacl) a WHERE a.grantee = 0)
                 OR coalesce(shobj_description(r.oid, 'pg_authid') LIKE '% narrowing', false),
             ARRAY(SELECT a.pid FROM pg_stat_activity a WHERE a.usename = r.rolname)
         FROM pg_roles r LEFT JOIN pg_database d ON d.datname = left(r.rolname, -4)
         WHERE r.rolname ~ '^tenant_.*_app$'",
    )
    .fetch_all(session)
    .await
    .unwrap();
    let of_group = |group: &String| match group.as_str() {
        "tenantry_ro" => Access::ReadOnly,
        "tenantry_shrink" => Access::ShrinkOnly,
        "tenantry_rw" => Access::ReadWrite,
        _ => Access::Unknown,
    };
    let by_slug = |(name, database, login, groups, connect, unclear, sessions): Row| {
        let widest =
            groups.iter().map(of_group).max_by_key(|access| rank(*access)).unwrap_or(Access::Blocked);
        let access = match (groups.len(), connect, login) {
            _ if unclear => None,
            (0, false, false) | (1, true, true) => Some(widest),
            _ => None,
        };
        (name, Shown { database, access, widest, sessions })
    };
    rows.into_iter().map(by_slug).collect()
}

/// The time of a clock that is this many seconds ahead.
pub fn time(ahead: i64) -> Timestamp {
    Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_secs(ahead)
}
