//! The slots of closed sessions. A server process outlives the closed connection for a moment, and under load the next
//! session would exceed the cap. So the slot of a closed session is freed only once `pg_stat_get_activity` no longer shows
//! its process; that is queried only while an operation waits for a slot.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    connect::{ANSWER_LIMIT, with_timeout},
    pool::{Closing, Kind, Sessions, lock},
};

/// The interval at which the server is asked for the processes of closed sessions.
const CLOSE_POLL: Duration = Duration::from_millis(2);
/// After this time the process of a closed session counts as ended: its server may be down.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

impl Sessions {
    /// Frees the slot of a closed session once its process has ended. Without a waiting operation, that is left to the next
    /// one that needs a slot.
    pub(super) fn free_slot(self: &Arc<Self>, slot: OwnedSemaphorePermit, kind: Kind, pid: Option<i32>) {
        match (kind, pid) {
            (Kind::Tenant, Some(pid)) => {
                lock(&self.closing).push(Closing { pid, since: Instant::now(), _slot: slot });
                if self.waiting.load(Ordering::SeqCst) > 0 {
                    self.reap_in_background();
                }
            }
            _ => drop(slot),
        }
    }

    pub(super) fn reap_in_background(self: &Arc<Self>) {
        let sessions = Arc::clone(self);
        tokio::spawn(async move { sessions.reap().await });
    }

    /// Waits until the processes of all closed sessions have ended, and frees their slots.
    pub(super) async fn reap(self: &Arc<Self>) {
        let _one = self.reaping.lock().await;
        loop {
            let pids: Vec<i32> = lock(&self.closing).iter().map(|closing| closing.pid).collect();
            if pids.is_empty() {
                return;
            }
            let running = self.running(&pids).await;
            lock(&self.closing).retain(|closing| {
                !pids.contains(&closing.pid)
                    || (running.contains(&closing.pid) && closing.since.elapsed() < CLOSE_TIMEOUT)
            });
            if !running.is_empty() {
                tokio::time::sleep(CLOSE_POLL).await;
            }
        }
    }

    /// Ends the process of one of the operator's own sessions. Without `pg_signal_backend`, `tenantry_admin` may not: then the
    /// time limit of the statement does.
    pub(super) async fn end(self: &Arc<Self>, pid: i32) {
        let Ok(mut session) = self.admin().await else { return };
        let end = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE pid = $1 AND starts_with(usename, 'tenantry_migrator_') AND application_name = $2",
        )
        .bind(pid)
        .bind(&self.config.application_name)
        .execute(&mut *session);
        let ended = with_timeout(ANSWER_LIMIT, "end a session that was given up", end).await;
        if let Err(error) = ended {
            tracing::debug!(pid, %error, "could not end a session that was given up");
        }
        session.release();
    }

    /// The given processes that are still running. A server that does not respond counts as having none.
    async fn running(self: &Arc<Self>, pids: &[i32]) -> Vec<i32> {
        let Ok(mut session) = self.admin().await else { return Vec::new() };
        let running = sqlx::query_scalar::<_, i32>(
            "SELECT a.pid FROM unnest($1::int[]) AS p (pid), pg_stat_get_activity(p.pid) AS a",
        )
        .bind(pids)
        .fetch_all(&mut *session)
        .await;
        match running {
            Ok(running) => {
                session.release();
                running
            }
            Err(_) => Vec::new(),
        }
    }
}
