//! Work that may be blocked by the locks of tenants, and the wait for it.

use std::{pin::pin, time::Duration};

use futures::future::BoxFuture;

use crate::domain::identity::TenantId;

/// How long a statement may take before the first look at what blocks it, and the longest pause between two looks.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// The same for one that creates or drops a database, which takes long by itself.
const LONG_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

/// Something that may be blocked.
#[derive(Clone, Debug, Default)]
pub(in crate::postgres) struct Blocked {
    /// The process of the session that runs the statement.
    pub pid: Option<i32>,
    /// The database to which a session connects: its process is not known yet.
    pub database: Option<String>,
    /// The login whose access the statement restricts. All its sessions are ended, whether they block the statement or not:
    /// otherwise others would take the place of those that do.
    pub login: Option<String>,
    /// Whether the statement creates or drops a database.
    pub is_slow: bool,
}

impl Blocked {
    /// Sessions that are connecting to a database.
    pub(super) fn connections_to(database: &str) -> Self {
        Self { database: Some(database.to_owned()), ..Self::default() }
    }
}

/// A session of a tenant that was asked to end, or a prepared transaction that was rolled back, because it blocked others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedToEnd {
    /// The tenant.
    pub tenant: TenantId,
    /// The process of the session, which may still run.
    pub pid: Option<i32>,
    /// What it was, for people.
    pub what: String,
}

/// Runs something that may be blocked, and ends what blocks it until it is done.
pub(super) async fn while_unblocking<T>(
    blocked: &Blocked,
    unblock: impl Fn() -> BoxFuture<'static, ()>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let [mut pause, longest] = if blocked.is_slow { LONG_PAUSES } else { PAUSES };
    loop {
        if let Ok(done) = tokio::time::timeout(pause, &mut work).await {
            return done;
        }
        // A task of its own: if the work is done meanwhile, the standing session is not lost.
        let look = tokio::spawn(unblock());
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = look => {}
        }
        pause = (pause * 2).min(longest);
    }
}
