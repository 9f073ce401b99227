//! What the sessions of a tenant's login use of what all databases of a server share, and how much is too much. No
//! privilege limits it: only the end of the session does.

use std::{collections::HashMap, fmt};

use jiff::SignedDuration;

use super::identity::TenantId;

/// How much is too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The share of the server's lock table that one login's sessions may hold together.
    pub lock_table: f64,
    /// How long a transaction may be idle.
    pub idle_in_transaction: SignedDuration,
    /// How long a transaction may be open, busy or not.
    pub transaction: SignedDuration,
    /// How many transactions may begin on the server while one is open that VACUUM has to respect.
    pub transaction_ids: i64,
    /// From which share of the NOTIFY queue on, sessions with an older transaction are ended.
    pub notify_queue: f64,
    /// How old a transaction must be to count as one that holds the queue.
    pub notify_queue_holder: SignedDuration,
}

impl Bounds {
    /// The bounds in force.
    pub const IN_FORCE: Self = Self {
        // A full table refuses every new session on the server. It matters once the table is more than half full
        // (a pg_dump holds a lock on each table): with the default settings this is 800 of 6400.
        lock_table: 0.125,
        // As long as the operator's own sessions may (5 min), with room for slow jobs between two statements.
        idle_in_transaction: SignedDuration::from_mins(15),
        // A pg_dump of a large database takes an hour or two; longer, dead rows pile up in every database.
        transaction: SignedDuration::from_hours(6),
        // Half of the default autovacuum_freeze_max_age: autovacuum still has time to freeze.
        transaction_ids: 100_000_000,
        // As the notifications of the registry, which stop at half of the queue.
        notify_queue: 0.5,
        // A session that listens reads the queue between its transactions: a short one holds nothing for long.
        notify_queue_holder: SignedDuration::from_secs(10),
    };
}

/// What all databases of a server share.
#[derive(Clone, Copy, Debug)]
pub struct ServerUse {
    /// The number of locks for which the server has memory.
    pub lock_table: i64,
    /// The number of locks in it, of all sessions.
    pub locks: i64,
    /// The used share of the NOTIFY queue, from 0 to 1.
    pub notify_queue: f64,
}

impl ServerUse {
    /// Whether no session can fill the lock table within a moment.
    pub fn has_room_for_locks(&self) -> bool {
        self.locks < self.lock_table / 4
    }
}

/// How many transactions began since one, of whose id only the lower 32 bits are known, until the next. One that began after
/// the next id was read has a higher id: none.
pub fn transactions_since(xid: i64, next: i64) -> i64 {
    let since = next.wrapping_sub(xid) & i64::from(u32::MAX);
    if since > i64::from(i32::MAX) { 0 } else { since }
}

/// What one session of a tenant's login uses. Times are absent where the operator may not read them.
#[derive(Clone, Debug)]
pub struct SessionUse {
    /// Its process.
    pub pid: i32,
    /// The tenant that the login belongs to.
    pub tenant: TenantId,
    /// The login.
    pub login: String,
    /// The database that it is connected to.
    pub database: String,
    /// The number of locks in the lock table that it holds or waits for.
    pub locks: i64,
    /// How long its transaction is open.
    pub transaction: Option<SignedDuration>,
    /// How long its open transaction is idle.
    pub idle_in_transaction: Option<SignedDuration>,
    /// How many transactions began since the oldest that VACUUM has to respect because of it.
    pub transaction_ids: Option<i64>,
}

/// What a session uses too much of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Excess {
    /// The lock table: the number of locks of the login's sessions.
    Locks(i64),
    /// An idle transaction.
    IdleInTransaction(SignedDuration),
    /// An open transaction.
    Transaction(SignedDuration),
    /// Transaction ids that VACUUM may not reclaim.
    TransactionIds(i64),
    /// The NOTIFY queue, whose used share this is.
    NotifyQueue(f64),
}

impl Excess {
    /// Its name, for the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Locks(_) => "Locks",
            Self::IdleInTransaction(_) => "IdleInTransaction",
            Self::Transaction(_) => "Transaction",
            Self::TransactionIds(_) => "TransactionIds",
            Self::NotifyQueue(_) => "NotifyQueue",
        }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locks(number) => write!(f, "its login held {number} locks"),
            Self::IdleInTransaction(age) => write!(f, "its transaction was idle for {} s", age.as_secs()),
            Self::Transaction(age) => write!(f, "its transaction was open for {} s", age.as_secs()),
            Self::TransactionIds(number) => {
                write!(f, "its transaction kept VACUUM from {number} transaction ids")
            }
            Self::NotifyQueue(share) => {
                let percent = share * 100.0;
                write!(
                    f,
                    "its open transaction kept the NOTIFY queue from being read, {percent:.0} % of which is used"
                )
            }
        }
    }
}

/// The sessions that use too much, each with what.
pub fn excessive<'a>(
    sessions: &'a [SessionUse],
    server: ServerUse,
    bounds: &Bounds,
) -> Vec<(&'a SessionUse, Excess)> {
    let mut locks: HashMap<&str, i64> = HashMap::new();
    for session in sessions {
        *locks.entry(&session.login).or_default() += session.locks;
    }
    let found = sessions.iter().map(|session| {
        let of_login = locks.get(session.login.as_str()).copied().unwrap_or_default();
        (session, excess(session, of_login, server, bounds))
    });
    let mut found: Vec<_> = found.filter_map(|(session, excess)| Some((session, excess?))).collect();
    found.extend(queue_holder(sessions, server, bounds));
    found
}

/// The session that probably keeps the NOTIFY queue from being read. Which sessions listen is not shown, so one is ended at
/// a time, as long as the queue stays full: first those that are idle in a transaction, then by the age of that.
fn queue_holder<'a>(
    sessions: &'a [SessionUse],
    server: ServerUse,
    bounds: &Bounds,
) -> Option<(&'a SessionUse, Excess)> {
    if server.notify_queue <= bounds.notify_queue {
        return None;
    }
    let old = sessions.iter().filter(|session| session.transaction > Some(bounds.notify_queue_holder));
    let holder = old.max_by_key(|session| (session.idle_in_transaction.is_some(), session.transaction))?;
    Some((holder, Excess::NotifyQueue(server.notify_queue)))
}

fn excess(session: &SessionUse, of_login: i64, server: ServerUse, bounds: &Bounds) -> Option<Excess> {
    let is_beyond = |age: Option<SignedDuration>, most| age.filter(|age| *age > most);
    let is_filling = server.locks > server.lock_table / 2;
    if is_filling && session.locks > 0 && of_login as f64 > server.lock_table as f64 * bounds.lock_table {
        return Some(Excess::Locks(of_login));
    }
    if let Some(number) = session.transaction_ids.filter(|number| *number > bounds.transaction_ids) {
        return Some(Excess::TransactionIds(number));
    }
    if let Some(age) = is_beyond(session.idle_in_transaction, bounds.idle_in_transaction) {
        return Some(Excess::IdleInTransaction(age));
    }
    is_beyond(session.transaction, bounds.transaction).map(Excess::Transaction)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: ServerUse = ServerUse { lock_table: 6400, locks: 4000, notify_queue: 0.0 };

    fn session(login: &str) -> SessionUse {
        SessionUse {
            pid: 1,
            tenant: TenantId(uuid::Uuid::nil()),
            login: login.to_owned(),
            database: "a".to_owned(),
            locks: 3,
            transaction: None,
            idle_in_transaction: None,
            transaction_ids: None,
        }
    }

    fn found(sessions: &[SessionUse], server: ServerUse) -> Vec<(String, Excess)> {
        let found = excessive(sessions, server, &Bounds::IN_FORCE);
        found.into_iter().map(|(session, excess)| (session.login.clone(), excess)).collect()
    }

    #[test]
    fn usual_session_is_left_alone() {
        let busy = SessionUse {
            transaction: Some(SignedDuration::from_hours(2)),
            idle_in_transaction: Some(SignedDuration::from_secs(30)),
            transaction_ids: Some(5_000_000),
            locks: 700,
            ..session("busy")
        };
        assert_eq!(found(&[busy, session("calm")], SERVER), []);
    }

    #[test]
    fn transactions_are_counted_across_the_wrap_around() {
        let epoch = 1_i64 << 32;
        assert_eq!(transactions_since(100, 103), 3);
        assert_eq!(transactions_since(100, 3 * epoch + 103), 3);
        assert_eq!(transactions_since(epoch - 1, epoch + 4), 5);
        assert_eq!(transactions_since(0, i64::from(i32::MAX)), i64::from(i32::MAX));
        // It began after the next id was read.
        assert_eq!(transactions_since(103, 100), 0);
        assert_eq!(transactions_since(2, 7 * epoch - 1), 0);
    }

    #[test]
    fn locks_of_one_login_count_together() {
        let many = SessionUse { locks: 500, ..session("many") };
        let none = SessionUse { locks: 0, ..session("many") };
        // One that holds no lock is not ended for those of the others.
        let sessions = [many.clone(), none, many, session("other")];
        let of = |login: &str| (login.to_owned(), Excess::Locks(1000));
        assert_eq!(found(&sessions, SERVER), [of("many"), of("many")]);
        // In a table with room they harm no other login.
        assert_eq!(found(&sessions, ServerUse { locks: 3000, ..SERVER }), []);
    }

    #[test]
    fn old_transactions_are_excessive() {
        let idle = SignedDuration::from_mins(16);
        let open = SignedDuration::from_hours(7);
        let sessions = [
            SessionUse { idle_in_transaction: Some(idle), ..session("idle") },
            SessionUse { transaction: Some(open), ..session("open") },
            SessionUse { transaction_ids: Some(100_000_001), ..session("holds") },
        ];
        assert_eq!(
            found(&sessions, SERVER),
            [
                ("idle".to_owned(), Excess::IdleInTransaction(idle)),
                ("open".to_owned(), Excess::Transaction(open)),
                ("holds".to_owned(), Excess::TransactionIds(100_000_001)),
            ]
        );
    }

    #[test]
    fn transactions_that_hold_a_filling_queue_are_excessive() {
        let of = |seconds| SessionUse {
            transaction: Some(SignedDuration::from_secs(seconds)),
            ..session(&seconds.to_string())
        };
        let filling = ServerUse { notify_queue: 0.6, ..SERVER };
        let idle = SessionUse { idle_in_transaction: Some(SignedDuration::from_secs(2)), ..of(12) };
        let of_queue = |name: &str| [(name.to_owned(), Excess::NotifyQueue(0.6))];
        // One at a time: the oldest, and before it one that does nothing.
        assert_eq!(found(&[of(9), of(11), of(20)], filling), of_queue("20"));
        assert_eq!(found(&[of(9), idle, of(20)], filling), of_queue("12"));
        assert_eq!(found(&[of(9)], filling), []);
        assert_eq!(found(&[of(9), of(11)], SERVER), []);
    }
}
