//! The cost of a meter: the same rows inserted into a table with a meter and into one without.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use super::print;
use crate::error::Result;
use crate::{Postgres, progress};

/// How often each is measured. The fastest round is reported: other work on the machine only adds time.
const ROUNDS: usize = 5;

/// The ways to insert rows.
const METHODS: [Method; 4] = [
    Method { name: "one row per transaction", rows: 500, run: Run::Commits },
    Method { name: "one row per statement, one transaction", rows: 5_000, run: Run::OneTransaction },
    Method { name: "1,000 rows per statement", rows: 20_000, run: Run::Thousands },
    Method { name: "COPY of 100,000 rows", rows: 100_000, run: Run::Copy },
];

struct Method {
    name: &'static str,
    /// Per session.
    rows: usize,
    run: Run,
}

#[derive(Clone, Copy)]
enum Run {
    Commits,
    OneTransaction,
    Thousands,
    Copy,
}

struct Table {
    insert: &'static str,
    thousand: &'static str,
    copy: &'static str,
}

const UNMETERED: Table = Table {
    insert: "INSERT INTO bench_plain (email) VALUES ($1)",
    thousand: "INSERT INTO bench_plain (email) SELECT * FROM unnest($1::text[])",
    copy: "COPY bench_plain (email) FROM STDIN",
};

const METERED: Table = Table {
    insert: "INSERT INTO bench_metered (email) VALUES ($1)",
    thousand: "INSERT INTO bench_metered (email) SELECT * FROM unnest($1::text[])",
    copy: "COPY bench_metered (email) FROM STDIN",
};

/// Both tables are copies of `users` with its indexes. The limit is a number, so that the meter compares with it.
const TABLES: &str = "\
SET ROLE tenantry_owner;
CREATE TABLE public.bench_plain (LIKE public.users INCLUDING ALL);
CREATE TABLE public.bench_metered (LIKE public.users INCLUDING ALL);
SELECT tenantry.meter('benchRows', 'public.bench_metered');
INSERT INTO tenantry.limits VALUES ('benchRows', 1000000000);
RESET ROLE";

/// Measures in a tenant's database, and prints a table.
pub async fn compare(postgres: &Postgres, database: &str) -> Result<()> {
    let mut session = postgres.connect(database).await?;
    session.execute(TABLES).await?;
    print("inserts with and without a meter, microseconds per row:");
    print(&format!("  {:<48} {:>10} {:>10} {:>10}", "", "without", "with", "difference"));
    for method in METHODS {
        for sessions in [1, 4] {
            let step = progress::step(format!("{}, {sessions} sessions", method.name));
            let outcome = measure(postgres, database, &method, sessions, &mut session).await;
            let (plain, metered) = step.end(outcome)?;
            let name = format!("{}, {sessions} session{}", method.name, if sessions == 1 { "" } else { "s" });
            let difference = metered - plain;
            print(&format!(
                "  {name:<48} {plain:>10.1} {metered:>10.1} {:>10}",
                format!("{difference:+.1} {:+.0} %", difference / plain * 100.0)
            ));
        }
    }
    session.execute("DROP TABLE public.bench_plain, public.bench_metered").await?;
    Ok(())
}

/// Microseconds per row, without and with a meter. The rounds alternate, so that both run under the same load.
async fn measure(
    postgres: &Postgres,
    database: &str,
    method: &Method,
    sessions: usize,
    cleaner: &mut PgConnection,
) -> Result<(f64, f64)> {
    let mut fastest = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        for (table, fastest) in [UNMETERED, METERED].iter().zip(&mut fastest) {
            cleaner.execute("TRUNCATE public.bench_plain, public.bench_metered").await?;
            cleaner.execute("CHECKPOINT").await?;
            let took = insert(postgres, database, method, table, sessions).await?;
            *fastest = fastest.min(took.as_secs_f64() * 1e6 / (method.rows * sessions) as f64);
        }
    }
    let [plain, metered] = fastest;
    Ok((plain, metered))
}

async fn insert(
    postgres: &Postgres,
    database: &str,
    method: &Method,
    table: &Table,
    sessions: usize,
) -> Result<Duration> {
    let mut open_sessions = Vec::new();
    for _ in 0..sessions {
        let mut session = postgres.connect(database).await?;
        session.execute("SET ROLE tenantry_rw").await?;
        let emails: Vec<String> =
            (0..method.rows).map(|_| format!("{}@bench.example", Uuid::new_v4())).collect();
        open_sessions.push((session, emails));
    }
    let started = Instant::now();
    try_join_all(open_sessions.iter_mut().map(|(session, emails)| work(session, method.run, table, emails)))
        .await?;
    let took = started.elapsed();
    for (session, _) in open_sessions {
        session.close().await?;
    }
    Ok(took)
}

async fn work(session: &mut PgConnection, run: Run, table: &Table, emails: &[String]) -> Result<()> {
    match run {
        Run::Commits => {
            for email in emails {
                sqlx::query(table.insert).bind(email).execute(&mut *session).await?;
            }
        }
        Run::OneTransaction => {
            let mut transaction = session.begin().await?;
            for email in emails {
                sqlx::query(table.insert).bind(email).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
        Run::Thousands => {
            for thousand in emails.chunks(1_000) {
                sqlx::query(table.thousand).bind(thousand).execute(&mut *session).await?;
            }
        }
        Run::Copy => {
            let mut copy = session.copy_in_raw(table.copy).await?;
            for lines in emails.chunks(10_000) {
                copy.send((lines.join("\n") + "\n").into_bytes()).await?;
            }
            copy.finish().await?;
        }
    }
    Ok(())
}
