//! Ways that need more than statements in a session.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::{FutureExt, StreamExt};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgPool,
    postgres::{PgPoolCopyExt, PgPoolOptions},
};
use tenantry_test_support::Wait;

use crate::servers::{OPERATOR, PASSWORD};

use super::{
    stage::{Actor, Outcome, as_text},
    ways::Finish,
    wire::Wire,
};

async fn pool(actor: &Actor) -> Outcome<PgPool> {
    let options = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
    options.connect(&actor.url()).await.map_err(as_text)
}

pub async fn copy_in(actor: Actor) -> Outcome<Finish> {
    let pool = pool(&actor).await?;
    let mut copy = pool.copy_in_raw("COPY users (email) FROM STDIN").await.map_err(as_text)?;
    let row = |end: &str| format!("{}@copy.example{end}", uuid::Uuid::new_v4()).into_bytes();
    copy.send(row("\n")).await.map_err(as_text)?;
    Ok(async move {
        copy.send(row("\n")).await.map_err(as_text)?;
        copy.finish().await.map(drop).map_err(as_text)
    }
    .boxed())
}

/// More than the buffers between the server and a client that does not read can hold.
pub async fn copy_out(actor: Actor) -> Outcome<Finish> {
    let pool = pool(&actor).await?;
    let much = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 40000)) TO STDOUT";
    let mut rows = pool.copy_out_raw(much).await.map_err(as_text)?;
    rows.next().await.ok_or("nothing came")?.map_err(as_text)?;
    Ok(async move {
        while let Some(row) = rows.next().await {
            row.map_err(as_text)?;
        }
        drop(pool);
        Ok(())
    }
    .boxed())
}

/// Waits for a lock of an administrator, catches its cancellation, waits again, and writes.
pub async fn stubborn(actor: Actor) -> Outcome<Finish> {
    let database = &actor.stage.tenant.placement.database;
    let mut lock = actor.stage.postgres.connect(database).await.map_err(as_text)?;
    lock.execute("SELECT pg_advisory_lock(7)").await.map_err(as_text)?;
    let mut session = actor.session().await?;
    let pid: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut session).await.map_err(as_text)?;
    let waits = actor.clone();
    let block = "DO $$ BEGIN
        LOOP
            BEGIN
                PERFORM pg_advisory_lock(7);
                EXIT;
            EXCEPTION WHEN query_canceled THEN
                -- And again.
            END;
        END LOOP;
        {write};
    END $$";
    let running = tokio::spawn(async move { waits.run(&mut session, block).await });
    let is_waiting =
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'advisory')";
    let begun = async {
        let mut waiting = false;
        while !waiting {
            waiting = sqlx::query_scalar(is_waiting).bind(pid).fetch_one(&mut lock).await.map_err(as_text)?;
        }
        Ok(())
    };
    Wait::until("the block waits for the advisory lock").future::<Outcome>(begun).await?;
    lock.execute(AssertSqlSafe(format!("SELECT pg_cancel_backend({pid})"))).await.map_err(as_text)?;
    Ok(async move {
        lock.execute("SELECT pg_advisory_unlock(7)").await.map_err(as_text)?;
        running.await.map_err(as_text)?
    }
    .boxed())
}

pub async fn snapshot(actor: Actor) -> Outcome<Finish> {
    let mut session = actor.session().await?;
    actor.run(&mut session, "BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let export = "SELECT pg_export_snapshot()";
    let id: String = sqlx::query_scalar(export).fetch_one(&mut session).await.map_err(as_text)?;
    Ok(async move {
        let mut fresh = actor.session().await?;
        let import =
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{id}'; COMMIT");
        let outcome = actor.run(&mut fresh, &import).await;
        drop(session);
        outcome
    }
    .boxed())
}

/// The same password, so that the test can still log in, but set by the tenant.
pub async fn password(actor: Actor) -> Outcome<Finish> {
    let mut session = actor.session().await?;
    let alter = format!("ALTER ROLE {{login}} PASSWORD '{}'", actor.stage.tenant.password.expose());
    actor.run(&mut session, &alter).await?;
    Ok(async move { actor.run(&mut actor.session().await?, "{write}").await }.boxed())
}

pub async fn half_way_in(actor: Actor) -> Outcome<Finish> {
    let (user, password) = actor.credentials();
    let database = actor.stage.tenant.placement.database.clone();
    let parameters = [("user", user.as_str()), ("database", &database)];
    let mut wire = Wire::knock(actor.stage.postgres.port(), &parameters, &password).await?;
    Ok(async move {
        wire.enter().await?;
        wire.query(&actor.fill("{write}")).await
    }
    .boxed())
}

/// Logs in and writes repeatedly, and for some time after the suspension.
pub async fn race(actor: Actor) -> Outcome<Finish> {
    let late = Arc::new(AtomicBool::new(false));
    let runners: Vec<_> = (0..12)
        .map(|_| {
            let (actor, late) = (actor.clone(), Arc::clone(&late));
            tokio::spawn(async move {
                let mut tries_left = 4;
                let mut outcome = Ok(());
                while tries_left > 0 {
                    let is_late = late.load(Ordering::SeqCst);
                    outcome = async { actor.run(&mut actor.session().await?, "{write}").await }.await;
                    if is_late {
                        if outcome.is_ok() {
                            break;
                        }
                        tries_left -= 1;
                    }
                }
                outcome
            })
        })
        .collect();
    Ok(async move {
        late.store(true, Ordering::SeqCst);
        let mut outcome = Err("no task ran".to_owned());
        for runner in runners {
            let one = runner.await.map_err(as_text)?;
            if outcome.is_err() {
                outcome = one;
            }
        }
        outcome
    }
    .boxed())
}

/// A tenant cannot grant its role, but an administrator can grant it to the wrong tenant, which then has a session here.
pub async fn lent(actor: Actor) -> Outcome<Finish> {
    let stage = &actor.stage;
    let mut administrator = stage.postgres.connect("postgres").await.map_err(as_text)?;
    let lend = actor.fill("SET ROLE tenantry_admin; GRANT {login} TO {other}");
    administrator.execute(AssertSqlSafe(lend)).await.map_err(as_text)?;
    let url = stage.postgres.url(
        &stage.other.placement.login,
        stage.other.password.expose(),
        &stage.tenant.placement.database,
    );
    let mut session = PgConnection::connect(&url).await.map_err(as_text)?;
    actor.run(&mut session, "BEGIN; {write}").await?;
    Ok(async move {
        let kept = actor.run(&mut session, "{write}; COMMIT").await;
        let mut fresh = match PgConnection::connect(&url).await {
            Ok(fresh) => fresh,
            Err(_) => return kept,
        };
        kept.and(actor.run(&mut fresh, "{write}").await)
    }
    .boxed())
}

/// Another tenant's login is refused here, but is starting for a moment, each time.
pub async fn knocking(actor: Actor) -> Outcome<Finish> {
    let stage = &actor.stage;
    let url = stage.postgres.url(
        &stage.other.placement.login,
        stage.other.password.expose(),
        &stage.tenant.placement.database,
    );
    let enough = Arc::new(AtomicBool::new(false));
    let knocking: Vec<_> = (0..12)
        .map(|_| {
            let (url, enough) = (url.clone(), Arc::clone(&enough));
            tokio::spawn(async move {
                while !enough.load(Ordering::SeqCst) {
                    drop(PgConnection::connect(&url).await);
                }
            })
        })
        .collect();
    Ok(async move {
        enough.store(true, Ordering::SeqCst);
        for one in knocking {
            one.await.map_err(as_text)?;
        }
        // Its aim is to delay the suspension; without one, nothing more happens.
        actor.run(&mut actor.session().await?, "{write}").await
    }
    .boxed())
}

pub async fn end_the_operator(actor: Actor) -> Outcome<Finish> {
    let url = actor.stage.postgres.url(OPERATOR, PASSWORD, "postgres");
    let mut operator = PgConnection::connect(&url).await.map_err(as_text)?;
    let own = "SELECT pg_backend_pid()";
    let pid: i32 = sqlx::query_scalar(own).fetch_one(&mut operator).await.map_err(as_text)?;
    Ok(async move {
        let mut session = actor.session().await?;
        let outcome = actor.run(&mut session, &format!("SELECT pg_terminate_backend({pid}, 5000)")).await;
        outcome.and(if operator.ping().await.is_ok() { Err("it lives".to_owned()) } else { Ok(()) })
    }
    .boxed())
}

pub async fn replication(actor: Actor) -> Outcome<Finish> {
    Ok(async move {
        let (user, password) = actor.credentials();
        let database = actor.stage.tenant.placement.database.clone();
        let parameters = [("user", user.as_str()), ("database", &database), ("replication", "database")];
        let mut wire = Wire::knock(actor.stage.postgres.port(), &parameters, &password).await?;
        wire.enter().await?;
        wire.query("IDENTIFY_SYSTEM").await
    }
    .boxed())
}
