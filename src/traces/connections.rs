//! sqlx reports each statement of a connection, and not of which. Only its threshold for slow statements is the connection's
//! own, and part of the report: here it is the number of an entry in a table. As a time it is a few microseconds at most, so that
//! every statement takes longer.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use log::LevelFilter;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

/// The servers' maintenance databases, and the registry's: sessions there stay open. Beyond this number, the oldest entry is
/// used again.
const LASTING: u32 = 1000;
/// The tenants' databases: a session there ends with its operation, and there are at most a thousand per server.
const PASSING: u32 = 4000;

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

/// Where a statement ran.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
}

/// The options of a connection whose statements get spans, if traces are on; otherwise the same options. `lasts` is false for
/// a session that ends with its operation.
#[must_use]
pub fn with_traced_statements(options: PgConnectOptions, lasts: bool) -> PgConnectOptions {
    if super::tracer().is_none() {
        return options;
    }
    let endpoint = Endpoint {
        host: options.get_host().to_owned(),
        port: options.get_port(),
        database: options.get_database().unwrap_or_default().to_owned(),
    };
    let number = lock().number(endpoint, lasts);
    options
        .log_statements(LevelFilter::Trace)
        .log_slow_statements(LevelFilter::Trace, Duration::from_nanos(number.into()))
}

/// The connection's endpoint, by the threshold in the report of a statement.
pub(super) fn endpoint(threshold: &str) -> Option<Arc<Endpoint>> {
    let number = threshold.strip_suffix("ns").and_then(|number| number.parse().ok());
    // From 1000 ns on, it is written in microseconds.
    let number = number.or_else(|| {
        let (whole, part) =
            threshold.strip_suffix("µs")?.split_once('.').unwrap_or((threshold.strip_suffix("µs")?, ""));
        format!("{whole}{part:0<3}").parse().ok()
    });
    lock().entries.get(&number?).cloned()
}

fn lock() -> std::sync::MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Table {
    entries: HashMap<u32, Arc<Endpoint>>,
    numbers: HashMap<Arc<Endpoint>, u32>,
    lasting: u32,
    passing: u32,
}

impl Table {
    fn number(&mut self, endpoint: Endpoint, lasts: bool) -> u32 {
        if let Some(number) = self.numbers.get(&endpoint) {
            return *number;
        }
        let (next, first, most) = match lasts {
            true => (&mut self.lasting, 1, LASTING),
            false => (&mut self.passing, 1 + LASTING, PASSING),
        };
        let number = first + *next;
        *next = (*next + 1) % most;
        let endpoint = Arc::new(endpoint);
        if let Some(former) = self.entries.insert(number, Arc::clone(&endpoint)) {
            self.numbers.remove(&former);
        }
        self.numbers.insert(endpoint, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(database: &str) -> Endpoint {
        Endpoint { host: "db.example".to_owned(), port: 5432, database: database.to_owned() }
    }

    #[test]
    fn entries_are_found_by_the_threshold_as_it_is_written() {
        let numbers: Vec<_> = {
            let mut table = lock();
            (0..1200).map(|n| table.number(of(&format!("traces_{n}")), false)).collect()
        };
        for (n, number) in numbers.iter().enumerate() {
            let written = format!("{:?}", Duration::from_nanos((*number).into()));
            assert_eq!(*endpoint(&written).unwrap(), of(&format!("traces_{n}")), "{written}");
        }
        for other in ["1s", "", "0ns", "x ns"] {
            assert_eq!(endpoint(other), None, "{other}");
        }
    }

    #[test]
    fn table_is_bounded_and_keeps_what_lasts() {
        let mut table = Table::default();
        let lasting = table.number(of("postgres"), true);
        for n in 0..3 * PASSING {
            table.number(of(&format!("tenant_{n}")), false);
        }
        assert_eq!(table.entries.len(), 1 + PASSING as usize);
        assert_eq!(table.entries.len(), table.numbers.len());
        assert_eq!(table.number(of("postgres"), true), lasting);
        assert_eq!(*table.entries[&lasting], of("postgres"));
    }
}
