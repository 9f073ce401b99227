//! Which locks on shared objects a tenant's login may not keep. Every role, database and right on a server is a row of a
//! shared catalog: a tenant that locks one can stop the operator, and can keep others from connecting.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use super::identity::TenantId;

/// How long a lock may last. It is seen by two looks then.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// How long a tenant may block others with one lock after another, whatever the sessions: it is seen by three looks then.
const BLOCKING_LIMIT: Duration = Duration::from_secs(5);
/// The most that one look adds: what was seen once may be over a moment later.
const PER_LOOK: Duration = Duration::from_secs(2);
/// The most that is remembered: a tenant that stops is forgotten soon.
const BLOCKING_MAX: Duration = Duration::from_secs(10);

/// Who holds a lock, or waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LockHolder {
    /// A session.
    Session {
        /// Its process.
        pid: i32,
    },
    /// A prepared transaction.
    Prepared {
        /// Its name.
        gid: String,
        /// The database in which it was prepared.
        database: String,
    },
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session { pid } => write!(f, "session with pid {pid}"),
            Self::Prepared { gid, database } => write!(f, "prepared transaction {gid} in {database}"),
        }
    }
}

/// The modes of locks, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    /// `AccessShareLock`
    AccessShare,
    /// `RowShareLock`
    RowShare,
    /// `RowExclusiveLock`
    RowExclusive,
    /// Every stronger one.
    Stronger,
}

impl LockMode {
    /// The mode of this name in `pg_locks`.
    pub fn parse(name: &str) -> Self {
        match name {
            "AccessShareLock" => Self::AccessShare,
            "RowShareLock" => Self::RowShare,
            "RowExclusiveLock" => Self::RowExclusive,
            _ => Self::Stronger,
        }
    }
}

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockedObject {
    /// A shared catalog.
    Catalog,
    /// A row of one, for which a session waits.
    Row,
    /// A database.
    Database {
        /// Whether it is that of the session.
        is_own: bool,
    },
    /// The lock that every transaction with a NOTIFY takes for the time of its COMMIT.
    Notifications,
    /// A role.
    Role {
        /// Whether it is that of the session.
        is_own: bool,
    },
    /// Another shared object.
    Other,
}

impl fmt::Display for LockedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Catalog => "a shared catalog",
            Self::Row => "a row of a shared catalog",
            Self::Database { is_own: true } => "its database",
            Self::Database { is_own: false } => "another database",
            Self::Notifications => "notifications",
            Self::Role { is_own: true } => "its role",
            Self::Role { is_own: false } => "another role",
            Self::Other => "a shared object",
        })
    }
}

/// A lock on a shared object that a tenant's login holds or waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedLock {
    /// Who holds it.
    pub holder: LockHolder,
    /// The transaction: another one of the same session has another name.
    pub transaction: String,
    /// The tenant.
    pub tenant: TenantId,
    /// The role: the tenant's login, or the owner of a prepared transaction.
    pub role: String,
    /// What is locked.
    pub object: LockedObject,
    /// How.
    pub mode: LockMode,
    /// Whether another session waits for the object now.
    pub is_waited_for: bool,
}

impl SharedLock {
    /// Whether others may have to wait for it. Every query that reads a shared catalog locks it, and every session that
    /// starts locks its database: those locks block no other session.
    fn is_harmful(&self) -> bool {
        match self.object {
            LockedObject::Row
            | LockedObject::Database { is_own: false }
            | LockedObject::Role { is_own: false } => true,
            LockedObject::Database { is_own: true } => self.mode > LockMode::RowExclusive,
            LockedObject::Catalog | LockedObject::Role { is_own: true } | LockedObject::Other => {
                self.mode > LockMode::RowShare
            }
            // Held for as long as a COMMIT takes. Who waits for it is a victim.
            LockedObject::Notifications => false,
        }
    }
}

/// The transactions on one server that were seen with a harmful lock, and when first; and the tenants that were seen to block
/// others, and for how long. A tenant can pass a lock from one session to the next, each for a short time.
#[derive(Debug, Default)]
pub struct LockWatch {
    seen: HashMap<(LockHolder, String), Duration>,
    blocking: HashMap<TenantId, Duration>,
    last: Option<Duration>,
}

impl LockWatch {
    /// Which transactions have to end. `at` is the time since any fixed moment.
    pub fn look<'a>(&mut self, locks: &'a [SharedLock], at: Duration) -> Vec<&'a SharedLock> {
        let harmful: Vec<&SharedLock> = locks.iter().filter(|lock| lock.is_harmful()).collect();
        self.count_blocking(&harmful, at);
        let mut overdue = Vec::new();
        let mut named = BTreeSet::new();
        let mut seen = HashMap::new();
        for lock in harmful {
            let key = (lock.holder.clone(), lock.transaction.clone());
            let first = *self.seen.get(&key).unwrap_or(&at);
            let is_kept = at.saturating_sub(first) >= PATIENCE;
            let blocks_on =
                self.blocking.get(&lock.tenant).is_some_and(|blocking| *blocking >= BLOCKING_LIMIT);
            if (is_kept || blocks_on && lock.is_waited_for) && named.insert(&lock.holder) {
                overdue.push(lock);
            }
            seen.insert(key, first);
        }
        self.seen = seen;
        overdue
    }

    /// The time of a tenant rises while looks see it block others, and falls at half that speed while they do not.
    fn count_blocking(&mut self, harmful: &[&SharedLock], at: Duration) {
        let passed = self.last.map_or(PER_LOOK, |last| at.saturating_sub(last));
        self.last = Some(at);
        let now: BTreeSet<TenantId> =
            harmful.iter().filter(|lock| lock.is_waited_for).map(|lock| lock.tenant).collect();
        self.blocking.retain(|tenant, blocking| {
            if !now.contains(tenant) {
                *blocking = blocking.saturating_sub(passed / 2);
            }
            !blocking.is_zero()
        });
        for tenant in now {
            let blocking = self.blocking.entry(tenant).or_default();
            *blocking = (*blocking + passed.min(PER_LOOK)).min(BLOCKING_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn lock(pid: i32, transaction: &str, object: LockedObject, mode: LockMode) -> SharedLock {
        SharedLock {
            holder: LockHolder::Session { pid },
            transaction: transaction.into(),
            tenant: TenantId(Uuid::from_u128(1)),
            role: "tenant_a_app".into(),
            object,
            mode,
            is_waited_for: false,
        }
    }

    /// A lock of a tenant on another database, for which others wait.
    fn blocking(tenant: u128, pid: i32) -> SharedLock {
        SharedLock {
            tenant: TenantId(Uuid::from_u128(tenant)),
            is_waited_for: true,
            ..lock(pid, "3/1", LockedObject::Database { is_own: false }, LockMode::AccessShare)
        }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn transaction_ends_when_it_keeps_a_harmful_lock() {
        let other = LockedObject::Database { is_own: false };
        let held = [
            lock(1, "3/1", other, LockMode::AccessShare),
            lock(1, "3/1", LockedObject::Catalog, LockMode::RowExclusive),
            lock(2, "4/1", other, LockMode::Stronger),
        ];
        let mut watch = LockWatch::default();
        assert!(watch.look(&held, at(0)).is_empty());
        assert!(watch.look(&held, at(1000)).is_empty());
        let ended = watch.look(&held, at(2000));
        assert_eq!(ended, [&held[0], &held[2]], "each once");
        assert_eq!(watch.look(&held, at(2100)).len(), 2, "it is still there");
    }

    #[test]
    fn each_transaction_has_its_time() {
        let role = LockedObject::Role { is_own: false };
        let mut watch = LockWatch::default();
        for number in 0..10 {
            let short = [lock(1, &format!("3/{number}"), role, LockMode::AccessShare)];
            assert!(watch.look(&short, at(number * 2000)).is_empty(), "each ends by itself");
        }
        let back = [lock(1, "3/0", role, LockMode::AccessShare)];
        assert!(watch.look(&back, at(20_000)).is_empty(), "it was away");
    }

    #[test]
    fn tenant_that_blocks_at_several_looks_is_ended_whatever_its_sessions() {
        let mut watch = LockWatch::default();
        let looks: [[SharedLock; 1]; 8] = [1, 2, 3, 4, 5, 6, 7, 8].map(|pid| [blocking(1, pid)]);
        assert!(watch.look(&looks[0], at(0)).is_empty());
        assert!(watch.look(&looks[1], at(2000)).is_empty());
        assert_eq!(watch.look(&looks[2], at(4000)), [&looks[2][0]]);
        // It goes on: the next look comes at once, and ends its successor.
        assert_eq!(watch.look(&looks[3], at(4250)), [&looks[3][0]]);
        assert!(watch.look(&[], at(4500)).is_empty(), "a short pause");
        assert_eq!(watch.look(&looks[4], at(4750)), [&looks[4][0]]);
        // It is forgotten.
        assert!(watch.look(&[], at(30_000)).is_empty());
        assert!(watch.look(&looks[5], at(32_000)).is_empty());
    }

    #[test]
    fn tenant_that_blocks_at_every_second_look_is_ended_too() {
        let mut watch = LockWatch::default();
        let mut ended = 0;
        for look in 0..10 {
            let locks = [blocking(1, look)];
            let locks = if look % 2 == 0 { &locks[..] } else { &[] };
            ended += watch.look(locks, at(2000 * u64::try_from(look).unwrap())).len();
        }
        assert!(ended > 0);
    }

    #[test]
    fn what_is_seen_now_and_then_stays() {
        let mut watch = LockWatch::default();
        for look in 0..40 {
            // Each of two tenants is seen to block others once in ten seconds.
            let locks = match look % 5 {
                0 => vec![blocking(1, look)],
                2 => vec![blocking(2, look)],
                // One for which no session waits may be seen all the time, if it is not the same one.
                _ => vec![lock(100 + look, "5/1", LockedObject::Catalog, LockMode::RowExclusive)],
            };
            let overdue = watch.look(&locks, at(2000 * u64::try_from(look).unwrap()));
            assert!(overdue.is_empty(), "look {look}: {overdue:?}");
        }
        // With few looks, one adds no more than with many.
        let mut watch = LockWatch::default();
        for look in 0..2 {
            let locks = [blocking(1, look)];
            assert!(watch.look(&locks, at(60_000 * u64::try_from(look).unwrap())).is_empty());
        }
    }

    #[test]
    fn prepared_transaction_ends_too() {
        let mut held = lock(1, "3/1", LockedObject::Row, LockMode::Stronger);
        held.holder = LockHolder::Prepared { gid: "g".into(), database: "tenant_a".into() };
        let held = [held];
        let mut watch = LockWatch::default();
        assert!(watch.look(&held, at(0)).is_empty());
        assert_eq!(watch.look(&held, at(1500)), [&held[0]]);
    }

    #[test]
    fn locks_of_ordinary_work_stay() {
        let fine = [
            (LockedObject::Catalog, LockMode::AccessShare),
            (LockedObject::Catalog, LockMode::RowShare),
            (LockedObject::Database { is_own: true }, LockMode::RowExclusive),
            (LockedObject::Role { is_own: true }, LockMode::AccessShare),
            (LockedObject::Notifications, LockMode::Stronger),
        ];
        let harmful = [
            (LockedObject::Catalog, LockMode::RowExclusive),
            (LockedObject::Row, LockMode::Stronger),
            (LockedObject::Database { is_own: true }, LockMode::Stronger),
            (LockedObject::Database { is_own: false }, LockMode::AccessShare),
            (LockedObject::Role { is_own: true }, LockMode::RowExclusive),
            (LockedObject::Role { is_own: false }, LockMode::AccessShare),
            (LockedObject::Other, LockMode::Stronger),
        ];
        for (object, mode) in fine {
            assert!(!lock(1, "3/1", object, mode).is_harmful(), "{object:?} {mode:?}");
        }
        for (object, mode) in harmful {
            assert!(lock(1, "3/1", object, mode).is_harmful(), "{object:?} {mode:?}");
        }
    }

    #[test]
    fn modes_are_read_as_pg_locks_writes_them() {
        assert_eq!(LockMode::parse("AccessShareLock"), LockMode::AccessShare);
        assert_eq!(LockMode::parse("RowExclusiveLock"), LockMode::RowExclusive);
        assert_eq!(LockMode::parse("ShareUpdateExclusiveLock"), LockMode::Stronger);
        assert_eq!(LockMode::parse("AccessExclusiveLock"), LockMode::Stronger);
    }
}
