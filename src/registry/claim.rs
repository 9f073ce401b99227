//! The session that holds this process's claims on workflows.
//!
//! A claim is an advisory lock of a session that does nothing else. It ends when the process ends, for any reason, when the
//! server restarts, or when a new leader ends the session: no timeout is involved. Any session can see whether a lock is
//! held, without a privilege.

use std::sync::Arc;

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::Mutex;

use super::Result;

#[derive(Debug)]
pub(super) struct Claim {
    options: Arc<PgConnectOptions>,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    key: i32,
    // Not used again: the lock is held as long as the session is open.
    session: PgConnection,
}

impl Claim {
    pub(super) fn new(options: Arc<PgConnectOptions>) -> Self {
        Self { options, held: Mutex::new(None) }
    }

    /// The key of this process's claims. `lost` is a key whose lock was found to be released.
    pub(super) async fn key(&self, lost: Option<i32>) -> Result<i32> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref()
            && Some(held.key) != lost
        {
            return Ok(held.key);
        }
        // The old session is closed, or broken: it is dropped without a goodbye.
        *held = None;
        let mut session = self.options.connect().await?;
        let key = sqlx::query_scalar("SELECT take_claim()").fetch_one(&mut session).await?;
        *held = Some(Held { key, session });
        Ok(key)
    }

    pub(super) async fn close(&self) {
        if let Some(held) = self.held.lock().await.take() {
            // If this fails, the server ends the session when the socket closes.
            let _ = held.session.close().await;
        }
    }
}
