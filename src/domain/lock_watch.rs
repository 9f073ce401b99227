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

/// The transactions on one server that were seen with a harmful lock, and when first.
#[derive(Debug, Default)]
pub struct LockWatch {
    seen: HashMap<(LockHolder, String), Duration>,
}

impl LockWatch {
    /// Which transactions have to end. `at` is the time since any fixed moment.
    pub fn look<'a>(&mut self, locks: &'a [SharedLock], at: Duration) -> Vec<&'a SharedLock> {
        let mut overdue = Vec::new();
        let mut named = BTreeSet::new();
        let mut seen = HashMap::new();
        for lock in locks.iter().filter(|lock| lock.is_harmful()) {
            let key = (lock.holder.clone(), lock.transaction.clone());
            let first = *self.seen.get(&key).unwrap_or(&at);
            if at.saturating_sub(first) >= PATIENCE && named.insert(&lock.holder) {
                overdue.push(lock);
            }
            seen.insert(key, first);
        }
        self.seen = seen;
        overdue
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
