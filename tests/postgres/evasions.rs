//! Ways in which a tenant's login may try to evade a suspension. Each is tried in sessions from before and after the
//! suspension, and is first shown to work without one.

mod deaf;
mod locks;
mod moves;
mod pace;
mod reader;
mod restart;
mod stage;
mod watch;
mod ways;
pub mod wire;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use sqlx::Executor;
use tenantry::domain::access::AccessLevel;
use tenantry_dev::Postgres;

use crate::servers::{SERVERS, Tenant, ready};

use self::{
    stage::{Actor, Outcome, Stage, as_text},
    ways::{Finish, WAYS, Way},
};

/// The number of ways tried at the same time.
const AT_ONCE: usize = 6;
/// The maximum duration of a suspension, on a busy machine: on an idle one, it is a few seconds.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn suspension_cannot_be_evaded_on_15() {
    try_all(&SERVERS[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn suspension_cannot_be_evaded_on_18() {
    try_all(&SERVERS[1]).await;
}

async fn try_all(postgres: &'static Postgres) {
    let major = postgres.binaries().major;
    let server = ready(postgres).await;
    let other = Arc::new(Tenant::new("tenant_beside"));
    other.provision(&server, 1).await;
    let ways: Vec<Named> = WAYS
        .iter()
        .filter(|(_, majors, _)| majors.contains(&major))
        .map(|(name, _, way)| Named { name, way: *way })
        .collect();
    let alike = |a: &Named, b: &Named| a.way.at_a_time() == b.way.at_a_time();
    let groups = ways.chunk_by(alike).flat_map(|ways| ways.chunks(ways[0].way.at_a_time()));
    let groups = groups.map(<[Named]>::to_vec).enumerate();
    let tried = futures::stream::iter(groups).map(|(index, group)| {
        let (server, other) = (server.clone(), Arc::clone(&other));
        let names: Vec<&str> = group.iter().map(|named| named.name).collect();
        let names = names.join(", ");
        // A task of its own: a panic does not hide the other results.
        let one = tokio::spawn(async move {
            let stage = Stage::set(postgres, &server, &other, &format!("tenant_way_{index}")).await?;
            Outcome::Ok(try_group(&stage, &group).await)
        });
        async move { one.await.map_err(as_text).flatten().map_err(|why| format!("{names}: {why}")) }
    });
    let outcomes: Vec<_> = tried.buffer_unordered(AT_ONCE).collect().await;
    let (mut wrong, mut slowest) = (Vec::new(), Duration::ZERO);
    for outcome in outcomes {
        match outcome {
            Ok(tried) => {
                wrong.extend(tried.wrong);
                slowest = slowest.max(tried.slowest);
            }
            Err(why) => wrong.push(why),
        }
    }
    println!("PostgreSQL {major}: {} ways; the slowest narrowing took {slowest:?}", ways.len());
    assert!(ways.len() >= 15);
    assert!(wrong.is_empty(), "on PostgreSQL {major}\n{}\n", wrong.join("\n"));
}

#[derive(Clone, Copy)]
struct Named {
    name: &'static str,
    way: Way,
}

/// The results of some ways on one tenant.
#[derive(Default)]
struct Tried {
    /// A line for each way that worked or could not be tried.
    wrong: Vec<String>,
    /// The duration of the slowest revocation.
    slowest: Duration,
}

impl Tried {
    fn note<T>(&mut self, what: impl std::fmt::Display, outcome: Outcome<T>) -> Option<T> {
        outcome.map_err(|why| self.wrong.push(format!("{what}: {why}"))).ok()
    }
}

async fn try_group(stage: &Arc<Stage>, group: &[Named]) -> Tried {
    let mut tried = Tried::default();
    for Named { name, way } in group {
        tried.note(name, show_that_it_works(stage, *way).await);
    }
    for level in [AccessLevel::ShrinkOnly, AccessLevel::ReadOnly, AccessLevel::Blocked] {
        let group: Vec<Named> = group.iter().copied().filter(|named| named.way.is_against(level)).collect();
        if !group.is_empty() {
            try_at(stage, &group, level, &mut tried).await;
        }
    }
    tried
}

async fn show_that_it_works(stage: &Arc<Stage>, way: Way) -> Outcome {
    let by = async |is_administrator| {
        let actor = Actor { stage: Arc::clone(stage), is_administrator };
        way.begin(actor).await?.await
    };
    let control = by(way.is_forbidden()).await;
    control.map_err(|why| format!("it does not work without a suspension either: {why}"))?;
    if way.is_forbidden() && by(false).await.is_ok() {
        return Err("a tenant with full access may do it".to_owned());
    }
    stage.set_access(AccessLevel::ReadWrite).await
}

async fn try_at(stage: &Arc<Stage>, group: &[Named], level: AccessLevel, tried: &mut Tried) {
    let tenant = Actor { stage: Arc::clone(stage), is_administrator: false };
    let mut begun = Vec::new();
    for Named { name, way } in group {
        let finish = tried.note(format!("{name}, to begin with"), way.begin(tenant.clone()).await);
        begun.extend(finish.map(|finish| (name, finish)));
    }
    let names = || group.iter().map(|named| named.name).collect::<Vec<_>>().join(", ");
    if let Some(took) = tried.note(format!("{level}: {}", names()), narrow(&tenant, level).await) {
        tried.slowest = tried.slowest.max(took);
    }
    for (name, finish) in begun {
        tried.note(format!("{level}: {name}"), is_refused(stage, finish, level).await);
    }
    let reinstated = async {
        stage.set_access(AccessLevel::ReadWrite).await?;
        stage.check_level(AccessLevel::ReadWrite).await?;
        tenant.run(&mut tenant.session().await?, "{write}; DELETE FROM users").await
    };
    tried.note(format!("reinstated after {level}: {}", names()), reinstated.await);
}

/// Suspends the tenant and verifies it at once. Returns the duration.
async fn narrow(tenant: &Actor, level: AccessLevel) -> Outcome<Duration> {
    let stage = &tenant.stage;
    let (before, start) = (stage.sessions().await?, Instant::now());
    stage.set_access(level).await?;
    let took = start.elapsed();
    stage.check_ended(&before, level).await?;
    stage.check_level(level).await?;
    check_new_session(tenant, level).await?;
    if took > SOON { Err(format!("it took {took:?}")) } else { Ok(took) }
}

async fn is_refused(stage: &Stage, finish: Finish, level: AccessLevel) -> Outcome {
    let content = stage.content().await?;
    let Err(why) = finish.await else { return Err("IT WORKED".to_owned()) };
    if stage.content().await? != content {
        return Err(format!("IT CHANGED SOMETHING, though it was refused: {why}"));
    }
    stage.check_level(level).await
}

/// With ReadOnly or ShrinkOnly, a new session reads and does not insert; with Blocked there is no new session.
async fn check_new_session(tenant: &Actor, level: AccessLevel) -> Outcome {
    let Tenant { placement, password } = &tenant.stage.tenant;
    if level == AccessLevel::Blocked {
        return tenant.stage.server.verify_refused(placement, password).await.map_err(as_text);
    }
    let mut session = tenant.session().await?;
    session.execute("SELECT * FROM users").await.map_err(as_text)?;
    match tenant.run(&mut session, "{write}").await {
        Err(why) if why.contains("permission denied for table users") => Ok(()),
        other => Err(format!("a new session's write: {other:?}")),
    }
}
